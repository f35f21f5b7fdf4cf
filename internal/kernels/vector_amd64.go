//go:build !noasm

package kernels

import (
	"math"

	"sibyl/precision"
)

func init() {
	dotFastKernel.add(AVX2, dotFastSIMD)
	dotExactKernel.add(AVX2, dotExactSIMD)
	columnsFastKernel.add(AVX2, weightedRowsFastAVX2)
	columnsExactKernel.add(AVX2, weightedRowsExactAVX2)
	rmsFastKernel.add(AVX2, invRMSFastAVX2)
	rmsExactKernel.add(AVX2, invRMSExactAVX2)
}

func dotFastSIMD(a, b []float32) float32 {
	whole := len(a) &^ 31
	var s float32
	if whole > 0 {
		s = dotFastAVX2(&a[0], &b[0], whole)
	}
	return s + dotFastGo(a[whole:], b[whole:])
}

// dotSums is sum a[i]*b[i] and the sum of its magnitudes: eight chains and the tail's.
func dotSums(a, b []float32) (s, m float64) {
	whole := len(a) &^ 7
	if whole > 0 {
		s, m = dotExactAVX2(&a[0], &b[0], whole)
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

func invRMSFastAVX2(x []float32, eps float32) float32 {
	s, _ := dotSums(x, x)
	return rsqrtFast(float32(s/float64(len(x))) + eps)
}

func invRMSExactAVX2(x []float32, eps float32) float32 {
	whole := len(x) &^ 7
	var s float64
	if whole > 0 {
		s = squaresAVX2(&x[0], whole)
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

func weightedRowsFastAVX2(out, w, v []float32, stride int) {
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

func weightedRowsExactAVX2(out, w, v []float32, stride int) {
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
