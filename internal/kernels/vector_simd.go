//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"math"

	"sibyl/precision"
)

func init() {
	dotFastKernel.add(simdLevel, dotFastSIMD)
	dotExactKernel.add(simdLevel, dotExactSIMD)
	columnsFastKernel.add(simdLevel, weightedRowsFastSIMD)
	columnsExactKernel.add(simdLevel, weightedRowsExactSIMD)
	sumExactKernel.add(simdLevel, sumExactSIMD)
	sumFastKernel.add(simdLevel, sumFastSIMD)
	multiplyKernel.add(simdLevel, multiplySIMD)
	addKernel.add(simdLevel, addSIMD)
	scaleKernel.add(simdLevel, scaleSIMD)
	gainKernel.add(simdLevel, gainSIMD)
	turnKernel.add(simdLevel, turnSIMD)
	maxKernel.add(simdLevel, maxSIMD)
	rmsFastKernel.add(simdLevel, invRMSFastSIMD)
	rmsExactKernel.add(simdLevel, invRMSExactSIMD)
}

func dotFastSIMD(a, b []float32) float32 {
	whole := len(a) &^ 31
	var s float32
	if whole > 0 {
		s = dotFastWhole(&a[0], &b[0], whole)
	}
	return s + dotFastGo(a[whole:], b[whole:])
}

// dotSums is sum a[i]*b[i] and the sum of its magnitudes: eight chains and the tail's.
func dotSums(a, b []float32) (s, m float64) {
	whole := len(a) &^ 7
	if whole > 0 {
		s, m = dotExactWhole(&a[0], &b[0], whole)
	}
	for i := whole; i < len(a); i++ {
		p := float64(a[i]) * float64(b[i])
		s += p
		m += math.Abs(p)
	}
	return s, m
}

func dotExactSIMD(a, b []float32) float32 {
	s, m := dotSums(a, b)
	if r, ok := precision.Near(s, 2*sumBound(len(a))*m); ok {
		return r
	}
	return dotExactGo(a, b)
}

func invRMSFastSIMD(x []float32, eps float32) float32 {
	s, _ := dotSums(x, x)
	return rsqrtFast(float32(s/float64(len(x))) + eps)
}

func invRMSExactSIMD(x []float32, eps float32) float32 {
	whole := len(x) &^ 7
	var s float64
	if whole > 0 {
		s = squaresWhole(&x[0], whole)
	}
	for _, v := range x[whole:] {
		s += float64(float32(v * v))
	}
	m, ok := precision.Near(s/float64(len(x)), (4*sumBound(len(x))+0x1p-52)*s/float64(len(x)))
	if !ok {
		return invRMSExactGo(x, eps)
	}
	return precision.RsqrtR32(m + eps)
}

func weightedRowsFastSIMD(out, w, v []float32, stride int) {
	c := 0
	if len(w) > 0 {
		for ; c+32 <= len(out); c += 32 {
			columnsFast32(&out[c], &w[0], &v[c], stride, len(w))
		}
		for ; c+8 <= len(out); c += 8 {
			columnsFast8(&out[c], &w[0], &v[c], stride, len(w))
		}
	}
	if c < len(out) {
		weightedRowsFastGo(out[c:], w, v[min(c, len(v)):], stride)
	}
}

func weightedRowsExactSIMD(out, w, v []float32, stride int) {
	c := 0
	if len(w) > 0 {
		u := 4 * sumBound(len(w))
		var s, m [8]float64
		for ; c+8 <= len(out); c += 8 {
			columnsExact8(&s[0], &m[0], &w[0], &v[c], stride, len(w))
			for i := range s {
				r, ok := precision.Near(s[i], u*m[i])
				if !ok {
					r = precision.SumTerms(len(w), func(j int) float64 { return float64(w[j]) * float64(v[j*stride+c+i]) }, 1)
				}
				out[c+i] = r
			}
		}
	}
	if c < len(out) {
		weightedRowsExactGo(out[c:], w, v[min(c, len(v)):], stride)
	}
}

// ones make a sum of a dot product: a product with 1 is exact.
var ones = func() (x [256]float32) {
	for i := range x {
		x[i] = 1
	}
	return x
}()

func sumExactSIMD(x []float32) float32 {
	var s, m float64
	for rest := x; len(rest) > 0; {
		n := min(len(rest), len(ones))
		t, a := dotSums(rest[:n], ones[:n])
		s, m, rest = s+t, m+a, rest[n:]
	}
	if r, ok := precision.Near(s, 4*sumBound(len(x))*m); ok {
		return r
	}
	return sumExactGo(x)
}

func sumFastSIMD(x []float32) (s float32) {
	for ; len(x) > len(ones); x = x[len(ones):] {
		s += dotFastSIMD(x[:len(ones)], ones[:])
	}
	return s + dotFastSIMD(x, ones[:len(x)])
}

// tapsSIMD are the taps of the conv that assembly knows: every model's of the family.
const tapsSIMD = 4

func convFastSIMD(f func(out, w, x *float32, stride, n int), group int) convFunc {
	return func(out, w, x []float32) {
		C := len(out)
		if len(w) != tapsSIMD*C {
			convFastGo(out, w, x)
			return
		}
		whole := C / group * group
		if whole > 0 {
			f(&out[0], &w[0], &x[0], C, whole)
		}
		for c := whole; c < C; c++ {
			var s float32
			for j := range tapsSIMD {
				s += w[j*C+c] * x[j*C+c]
			}
			out[c] = s
		}
	}
}

func multiplySIMD(dst, x []float32) {
	whole := len(dst) &^ 7
	if whole > 0 {
		multiplyWhole(&dst[0], &x[0], whole)
	}
	multiplyGo(dst[whole:], x[whole:])
}

func addSIMD(dst, x []float32) {
	whole := len(dst) &^ 7
	if whole > 0 {
		addWhole(&dst[0], &x[0], whole)
	}
	addGo(dst[whole:], x[whole:])
}

func scaleSIMD(x []float32, r float32) {
	whole := len(x) &^ 7
	if whole > 0 {
		scaleWhole(&x[0], r, whole)
	}
	scaleGo(x[whole:], r)
}

func gainSIMD(dst, x, gain []float32, r float32) {
	whole := len(dst) &^ 7
	if whole > 0 {
		gainWhole(&dst[0], &x[0], &gain[0], r, whole)
	}
	gainGo(dst[whole:], x[whole:], gain[whole:], r)
}

func turnSIMD(a, b, cos, sin []float32) {
	whole := len(a) &^ 7
	if whole > 0 {
		turnWhole(&a[0], &b[0], &cos[0], &sin[0], whole)
	}
	turnGo(a[whole:], b[whole:], cos[whole:], sin[whole:])
}

func maxSIMD(x []float32) (top float32, nan bool) {
	whole := len(x) &^ 7
	if whole == 0 {
		return maxGo(x)
	}
	top, nan = maxWhole(&x[0], whole)
	if whole < len(x) {
		t, n := maxGo(x[whole:])
		top, nan = max(top, t), nan || n
	}
	return top, nan
}
