package model

import (
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// Norm is RMSNorm with gain 1+w: y = x * rsqrt(mean(x*x) + eps) * (1 + w). Source: Qwen3_5RMSNorm.forward,
// transformers 5.23.
type Norm struct {
	Weight   []float32 // [H], as stored; the gain is One+w
	One      float32   // 1; 0 where a bundle stores 1+w
	Eps      float32
	Contract *precision.Contract
}

// Forward writes the norm of every row of x [Rows, H] to out.
func (n *Norm) Forward(out, x []float32, batch *ragged.Batch) {
	H := len(n.Weight)
	mark := batch.Mark()
	defer batch.Release(mark)
	gain := batch.Room(H)
	for i, w := range n.Weight {
		gain[i] = n.One + w
	}
	batch.Pool.For(len(x)/H, 4*H, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			row, y := x[t*H:][:H], out[t*H:][:H]
			kernels.Gain(y, row, gain, batch.Arith.InvRMS(row, n.Eps))
			n.Contract.Round(precision.Norm, y)
		}
	})
}
