package gdn

import (
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// conv is the depthwise causal convolution, without bias and before silu: x, out [Rows, C]; the state holds the last
// Kernel rows of x and advances. Source: transformers 5.23, causal_conv1d_fn and _update.
func (m *Mixer) conv(out, x []float32, batch *ragged.Batch, states []*State) {
	C, K := m.Channels(), m.Kernel
	for i := range batch.Seqs {
		s := &batch.Seqs[i]
		// history rows, then the new ones: row t+K-1 of win is the current token of row t
		win := batch.Buf((K - 1 + s.Len) * C)
		copy(win, states[i].Conv[C:])
		copy(win[(K-1)*C:], x[s.Row*C:][:s.Len*C])
		batch.Pool.For(s.Len, C*K*2, func(lo, hi int) {
			col := make([]float32, K)
			for t := lo; t < hi; t++ {
				m.convRow(out[(s.Row+t)*C:][:C], win[t*C:], col, batch)
			}
		})
		// the last K rows of [old state | new rows]
		if s.Len >= K {
			copy(states[i].Conv, x[(s.Row+s.Len-K)*C:][:K*C])
		} else {
			copy(states[i].Conv, states[i].Conv[s.Len*C:])
			copy(states[i].Conv[(K-s.Len)*C:], x[s.Row*C:][:s.Len*C])
		}
		m.Contract.Conv.Slice(states[i].Conv)
	}
}

// convRow is one token: y[c] = sum_j w[c, j] * win[j, c]. A contract that rounds products or running sums gets them
// one by one in the order of the taps; the others get the whole sum, for which col [K] holds one channel's inputs.
func (m *Mixer) convRow(y, win, col []float32, batch *ragged.Batch) {
	c, C, K := m.Contract, len(y), m.Kernel
	product, partial := c.At[precision.ConvProduct], c.At[precision.ConvPartial]
	for ch := range y {
		w := m.Conv[ch*K:][:K]
		if product == precision.F32 && partial == precision.F32 {
			for j := range K {
				col[j] = win[j*C+ch]
			}
			y[ch] = batch.Arith.Conv(w, col)
			continue
		}
		var sum float32
		for j := range K {
			p := product.Value(float32(w[j] * win[j*C+ch])) // float32(): not fused with the sum
			if j == 0 {
				sum = p
			} else {
				sum = partial.Value(sum + p)
			}
		}
		y[ch] = sum
	}
	c.Round(precision.ConvSum, y)
}
