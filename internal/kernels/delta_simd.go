//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"math"

	"sibyl/precision"
)

// The columns of S do not depend on each other: a strip of them goes through the whole step while it is in the cache.
// The decay is applied in each of the two passes, so that the first writes nothing.

// deltas turns the columns of S^T k into delta = beta*(v - S^T k).
func deltas(mem *[64]float32, v []float32, beta float32) {
	for i, x := range v {
		mem[i] = beta * (x - mem[i])
	}
}

// deltaColumnsFast is the step for the columns from e on.
func deltaColumnsFast(S, q, k, v, out []float32, decay, beta float32, e int) {
	dv := len(v)
	for ; e < dv; e++ {
		var mem, o float32
		for d, kd := range k {
			mem += S[d*dv+e] * decay * kd
		}
		delta := beta * (v[e] - mem)
		for d, kd := range k {
			s := S[d*dv+e]*decay + kd*delta
			S[d*dv+e] = s
			o += s * q[d]
		}
		out[e] = o
	}
}

// deltaExact is the exact step, so many columns at a time.
type deltaExact struct {
	strip int
	read  func(s *float64, m, S, k *float32, decay float32, stride, n int)
	write func(s *float64, m, S, k, q, delta *float32, decay float32, stride, n int)
}

func (x deltaExact) step(S, q, k, v, out []float32, decay, beta float32, _ []float64) {
	dv, dk := len(v), len(k)
	// The sums are one chain of dk each; the magnitudes' own sum, in float32, errs by dk roundings of 2^-24.
	u := 4 * sumBound(dk) * (1 + float64(dk+8)*0x1p-23)
	var s [16]float64
	var m, delta [16]float32
	e := 0
	for ; e+x.strip <= dv; e += x.strip {
		x.read(&s[0], &m[0], &S[e], &k[0], decay, dv, dk)
		for i := range x.strip {
			mem, ok := precision.Near(s[i], u*float64(m[i]))
			if !ok {
				mem = precision.SumTerms(dk, func(d int) float64 { return float64(float32(float32(S[d*dv+e+i]*decay) * k[d])) }, 1)
			}
			delta[i] = float32(float32(v[e+i]-mem) * beta)
		}
		x.write(&s[0], &m[0], &S[e], &k[0], &q[0], &delta[0], decay, dv, dk)
		for i := range x.strip {
			o, ok := precision.Near(s[i], u*float64(m[i]))
			if !ok {
				o = precision.SumTerms(dk, func(d int) float64 { return float64(float32(S[d*dv+e+i] * q[d])) }, 1)
			}
			out[e+i] = o
		}
	}
	for ; e < dv; e++ {
		deltaColumnExact(S, q, k, v, out, decay, beta, e)
	}
}

// deltaColumnExact is the step for one column.
func deltaColumnExact(S, q, k, v, out []float32, decay, beta float32, e int) {
	dv := len(v)
	mem := sumOf(len(k), func(d int) float64 { return float64(float32(float32(S[d*dv+e]*decay) * k[d])) })
	delta := float32(float32(v[e]-mem) * beta)
	for d, kd := range k {
		S[d*dv+e] = float32(S[d*dv+e]*decay) + float32(kd*delta)
	}
	out[e] = sumOf(len(q), func(d int) float64 { return float64(float32(S[d*dv+e] * q[d])) })
}

// sumOf is the exact sum of n terms.
func sumOf(n int, term func(i int) float64) float32 {
	var s, m float64
	for i := range n {
		t := term(i)
		s += t
		m += math.Abs(t)
	}
	if r, ok := precision.Near(s, 4*sumBound(n)*m); ok {
		return r
	}
	return precision.SumTerms(n, term, 1)
}
