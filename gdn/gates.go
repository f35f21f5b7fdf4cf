package gdn

import (
	"math"

	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// l2norm is x * rsqrt(sum(x*x) + eps) per key head, in place; x [Rows, nk, dk]. Source: l2norm in modeling_qwen3_5.py.
func (m *Mixer) l2norm(x []float32, ar *kernels.Arith, batch *ragged.Batch) {
	c, dk := m.Contract, m.KeyDim
	batch.Pool.For(len(x)/dk, dk*8, func(lo, hi int) {
		sq := make([]float32, dk)
		for h := lo; h < hi; h++ {
			y := x[h*dk:][:dk]
			copy(sq, y)
			kernels.Multiply(sq, y)
			c.Round(precision.L2Square, sq)
			s := c.Round1(precision.L2Sum, ar.Sum(sq))
			s = c.Round1(precision.L2Eps, s+c.L2Eps)
			r := c.Round1(precision.L2Rsqrt, ar.Rsqrt(s))
			kernels.Scale(y, r)
			c.Round(precision.L2Out, y)
		}
	})
}

// decay is g = -exp(A_log) * softplus(a + dt_bias), a [Rows, nv]; it replaces a. Every step is float32.
func (m *Mixer) decay(a []float32, ar *kernels.Arith) []float32 {
	softplus := ar.Softplus
	if m.Contract.Softplus3 {
		softplus = ar.Softplus3
	}
	rate := m.Rate
	if rate == nil {
		rate = make([]float32, m.ValueHeads)
		ar.Rate(rate, m.ALog)
		for h, v := range rate {
			rate[h] = -v
		}
	}
	for i := range a {
		a[i] += m.DtBias[i%m.ValueHeads]
	}
	softplus(a, a)
	for i := range a {
		a[i] *= rate[i%m.ValueHeads]
	}
	m.Contract.Round(precision.G, a)
	return a
}

// scaleQuery is q * float32(dk^-0.5); transformers' recurrent form divides by dk^0.5 instead, which a contract may say.
func (m *Mixer) scaleQuery(q []float32, batch *ragged.Batch) {
	root := math.Sqrt(float64(m.KeyDim))
	batch.Elementwise(len(q), 1, func(lo, hi int) {
		x := q[lo:hi]
		if m.Contract.QDivide {
			for i := range x {
				x[i] /= float32(root)
			}
		} else {
			kernels.Scale(x, float32(1/root))
		}
		m.Contract.Round(precision.QScale, x)
	})
}
