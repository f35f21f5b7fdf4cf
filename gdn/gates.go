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

// gates turns a into g = -exp(A_log) * softplus(a + dt_bias) and b into beta = sigmoid(b), in place, and writes exp(g) to decay;
// all [Rows, nv]. Every step of g is float32. Rows go together by whole groups, wherever threads part them.
func (m *Mixer) gates(a, b, decay []float32, batch *ragged.Batch) {
	c, ar, nv := m.Contract, batch.Arith, m.ValueHeads
	softplus := ar.Softplus
	if c.Softplus3 {
		softplus = ar.Softplus3
	}
	rate := m.Rate
	if rate == nil {
		rate = make([]float32, nv)
		ar.Rate(rate, m.ALog)
		for h, v := range rate {
			rate[h] = -v
		}
	}
	batch.Pool.For((batch.Rows+kernels.Group-1)/kernels.Group, kernels.Group*nv*100, func(lo, hi int) {
		first, last := lo*kernels.Group, min(hi*kernels.Group, batch.Rows)
		g, beta, d := a[first*nv:last*nv], b[first*nv:last*nv], decay[first*nv:last*nv]
		for i := range g {
			g[i] += m.DtBias[i%nv]
		}
		softplus(g, g)
		for i := range g {
			g[i] *= rate[i%nv]
		}
		c.Round(precision.G, g)
		batch.ByRow(len(g), last-first, func(lo, hi int) {
			ar.Sigmoid(beta[lo:hi], beta[lo:hi])
			ar.Exp(d[lo:hi], g[lo:hi])
		})
		c.Round(precision.Beta, beta)
	})
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
