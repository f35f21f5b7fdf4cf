package kernels

import (
	"math"

	"sibyl/precision"
)

// Products of two float32 are exact in float64, so fusing cannot change these sums; only their order could, and the
// bound sees to it that it does not: a sum of n products in four chains errs by at most (n/4+4) u sum|w*x|,
// u = 2^-53 (Higham, Accuracy and Stability, 4.2), and sum|w*x| <= |w||x| (Cauchy-Schwarz).
func sumBound(n int) float64 { return float64(n/4+6) * 0x1p-53 }

func norm2(x []float64) float64 {
	var a, b float64
	i := 0
	for ; i+1 < len(x); i += 2 {
		a += x[i] * x[i]
		b += x[i+1] * x[i+1]
	}
	if i < len(x) {
		a += x[i] * x[i]
	}
	return math.Sqrt(a+b) * (1 + 0x1p-20) // the slack covers this sum's own rounding
}

// dot64x2 is two rows against two vectors: each load serves two products.
func dot64x2(a0, a1, x0, x1 []float64) (r00, r01, r10, r11 float64) {
	n := len(a0)
	a1, x0, x1 = a1[:n], x0[:n], x1[:n]
	var p00, p01, p10, p11 float64
	i := 0
	for ; i+1 < n; i += 2 {
		u, v, y, z := a0[i], a1[i], x0[i], x1[i]
		r00 += u * y
		r01 += u * z
		r10 += v * y
		r11 += v * z
		u, v, y, z = a0[i+1], a1[i+1], x0[i+1], x1[i+1]
		p00 += u * y
		p01 += u * z
		p10 += v * y
		p11 += v * z
	}
	if i < n {
		u, v, y, z := a0[i], a1[i], x0[i], x1[i]
		r00 += u * y
		r01 += u * z
		r10 += v * y
		r11 += v * z
	}
	return r00 + p00, r01 + p01, r10 + p10, r11 + p11
}

func widen(dst []float64, x []float32) {
	for i, v := range x {
		dst[i] = float64(v)
	}
}

// finish rounds one sum, or decides it in wider arithmetic.
func finish(s, bound float64, w, x []float64) float32 {
	if r, ok := precision.Near(s, bound); ok {
		return r
	}
	return precision.SumTerms(len(w), func(i int) float64 { return w[i] * x[i] }, 1)
}

// rowBlock is how many tokens share one reading of the weights; 64 rows of 17408 float64 are 9 MB.
const rowBlock = 64

func linearExactGo(p *Pool, out, x []float32, rows int, w *Matrix) {
	if rows == 1 {
		gemvExact(p, out, x, w)
		return
	}
	n, N := w.Cols, w.Rows
	u := 2 * sumBound(n) // two chains in dot64x2
	for t0 := 0; t0 < rows; t0 += rowBlock {
		T := min(rowBlock, rows-t0)
		x64 := make([]float64, T*n)
		widen(x64, x[t0*n:(t0+T)*n])
		xn := make([]float64, T)
		for t := range xn {
			xn[t] = norm2(x64[t*n:][:n])
		}
		p.For((N+1)/2, 2*n*T, func(lo, hi int) {
			row, a := make([]float32, n), make([]float64, 2*n)
			for o := 2 * lo; o < min(2*hi, N); o += 2 {
				two := min(2, N-o)
				for r := range two {
					w.Row(row, o+r)
					widen(a[r*n:], row)
				}
				if two == 1 {
					copy(a[n:], a[:n])
				}
				a0, a1 := a[:n], a[n:]
				n0, n1 := norm2(a0)*u, norm2(a1)*u
				for t := 0; t < T; t += 2 {
					t1 := min(t+1, T-1)
					y, z := x64[t*n:][:n], x64[t1*n:][:n]
					r00, r01, r10, r11 := dot64x2(a0, a1, y, z)
					d, e := out[(t0+t)*N+o:], out[(t0+t1)*N+o:]
					d[0], e[0] = finish(r00, n0*xn[t], a0, y), finish(r01, n0*xn[t1], a0, z)
					if two == 2 {
						d[1], e[1] = finish(r10, n1*xn[t], a1, y), finish(r11, n1*xn[t1], a1, z)
					}
				}
			}
		})
	}
}

func dotExactGo(a, b []float32) float32 {
	var s0, s1, m0, m1 float64
	b = b[:len(a)]
	i := 0
	for ; i+1 < len(a); i += 2 {
		p, q := float64(a[i])*float64(b[i]), float64(a[i+1])*float64(b[i+1])
		s0 += p
		s1 += q
		m0 += math.Abs(p)
		m1 += math.Abs(q)
	}
	if i < len(a) {
		p := float64(a[i]) * float64(b[i])
		s0 += p
		m0 += math.Abs(p)
	}
	if r, ok := precision.Near(s0+s1, 2*sumBound(len(a))*(m0+m1)); ok {
		return r
	}
	return precision.SumTerms(len(a), func(i int) float64 { return float64(a[i]) * float64(b[i]) }, 1)
}

// convBy is Conv with every sum made by dot.
func convBy(dot func(a, b []float32) float32, out, w, x []float32) {
	C := len(out)
	taps := len(w) / max(C, 1)
	col := make([]float32, 2*taps)
	a, b := col[:taps], col[taps:]
	for c := range out {
		for j := range taps {
			a[j], b[j] = w[j*C+c], x[j*C+c]
		}
		out[c] = dot(a, b)
	}
}

func convExactGo(out, w, x []float32) { convBy(dotExactGo, out, w, x) }

func sumExactGo(x []float32) float32 {
	var s, m float64
	for _, v := range x {
		s += float64(v)
		m += math.Abs(float64(v))
	}
	if r, ok := precision.Near(s, 4*sumBound(len(x))*m); ok {
		return r
	}
	return precision.SumTerms(len(x), func(i int) float64 { return float64(x[i]) }, 1)
}

func weightedRowsExactGo(out, w, v []float32, stride int) {
	D := len(out)
	buf := make([]float64, 2*D)
	s, m := buf[:D], buf[D:]
	for j, wj := range w {
		row := v[j*stride:][:D]
		a := float64(wj)
		for d, x := range row {
			p := a * float64(x)
			s[d] += p
			m[d] += math.Abs(p)
		}
	}
	u := 4 * sumBound(len(w))
	for d := range out {
		r, ok := precision.Near(s[d], u*m[d])
		if !ok {
			r = precision.SumTerms(len(w), func(j int) float64 { return float64(w[j]) * float64(v[j*stride+d]) }, 1)
		}
		out[d] = r
	}
}

func invRMSExactGo(x []float32, eps float32) float32 {
	var s float64
	for _, v := range x {
		s += float64(float32(v * v))
	}
	n := float64(len(x))
	m, ok := precision.Near(s/n, (4*sumBound(len(x))+0x1p-52)*s/n)
	if !ok {
		m = precision.SumTerms(len(x), func(i int) float64 { return float64(float32(x[i] * x[i])) }, n)
	}
	return precision.RsqrtR32(m + eps)
}

func deltaStepExactGo(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
	dv := len(v)
	mem, mag := tmp[:dv], tmp[dv:2*dv]
	clear(tmp[:2*dv])
	for d, kd := range k {
		row := S[d*dv:][:dv]
		for e, s := range row {
			s = float32(s * decay)
			row[e] = s
			p := float64(float32(s * kd))
			mem[e] += p
			mag[e] += math.Abs(p)
		}
	}
	u := 4 * sumBound(len(k))
	for e := range dv {
		m, ok := precision.Near(mem[e], u*mag[e])
		if !ok {
			m = precision.SumTerms(len(k), func(d int) float64 { return float64(float32(S[d*dv+e] * k[d])) }, 1)
		}
		out[e] = float32(float32(v[e]-m) * beta) // delta, until out is known
	}
	clear(tmp[:2*dv])
	for d, kd := range k {
		row, qd := S[d*dv:][:dv], q[d]
		for e, s := range row {
			s += float32(kd * out[e])
			row[e] = s
			p := float64(float32(s * qd))
			mem[e] += p
			mag[e] += math.Abs(p)
		}
	}
	for e := range dv {
		o, ok := precision.Near(mem[e], u*mag[e])
		if !ok {
			o = precision.SumTerms(len(q), func(d int) float64 { return float64(float32(S[d*dv+e] * q[d])) }, 1)
		}
		out[e] = o
	}
}
