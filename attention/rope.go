package attention

import (
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// Rope is the partial rotary embedding: the first Rot dims of a head, in pairs (i, i+Rot/2), turn by
// position * InvFreq[i]; the other dims pass.
type Rope struct {
	Rot     int
	InvFreq []float32 // [Rot/2], precision.InvFreq
	Axis    []uint8   // [Rot/2], which position axis (0 T, 1 H, 2 W) a frequency takes
}

// NewRope builds the tables. section is mrope_section [T, H, W]; interleaved mRoPE (the family's only form) gives
// frequency j to H if j%3 == 1 and j < 3*section[1], to W if j%3 == 2 and j < 3*section[2], else to T. Source:
// transformers 5.23, Qwen3_5TextRotaryEmbedding.apply_interleaved_mrope.
func NewRope(theta float64, rot int, section [3]int) *Rope {
	r := &Rope{Rot: rot, InvFreq: precision.InvFreq(theta, rot), Axis: make([]uint8, rot/2)}
	for j := range r.Axis {
		for axis := 1; axis <= 2; axis++ {
			if j%3 == axis && j < 3*section[axis] {
				r.Axis[j] = uint8(axis)
			}
		}
	}
	return r
}

// Table gives cos and sin of a batch's rows, [Rows, Rot/2] each: angle = R32(position * inv_freq), the table rounded
// as the contract says. One table serves every layer of a contract.
func (r *Rope) Table(batch *ragged.Batch, c *precision.Contract) (cos, sin []float32) {
	half := r.Rot / 2
	cos, sin = make([]float32, batch.Rows*half), make([]float32, batch.Rows*half)
	for i := range batch.Seqs {
		s := &batch.Seqs[i]
		for t := range s.Len {
			row := (s.Row + t) * half
			for j, f := range r.InvFreq {
				angle := float32(float32(s.Position(t, int(r.Axis[j]))) * f)
				sin[row+j], cos[row+j] = precision.SinCosR32(angle)
			}
		}
	}
	c.Round(precision.RopeTable, cos)
	c.Round(precision.RopeTable, sin)
	return cos, sin
}

// apply turns one head x [HeadDim] in place: y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin, with the products and the
// sum rounded as the contract says.
func (r *Rope) apply(x, cos, sin []float32, c *precision.Contract) {
	half := r.Rot / 2
	product, sum := c.At[precision.RopeProduct], c.At[precision.RopeOut]
	if product == precision.F32 && sum == precision.F32 {
		kernels.Turn(x[:half], x[half:2*half], cos, sin)
		return
	}
	for j := range half {
		a, b := x[j], x[j+half]
		x[j] = sum.Value(product.Value(float32(a*cos[j])) - product.Value(float32(b*sin[j])))
		x[j+half] = sum.Value(product.Value(float32(b*cos[j])) + product.Value(float32(a*sin[j])))
	}
}
