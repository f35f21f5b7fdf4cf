package gdn

import (
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// conv is the depthwise causal convolution, without bias and before silu: x, out [Rows, C]; the state holds the last
// Kernel rows of x and advances. Source: transformers 5.23, causal_conv1d_fn and _update.
func (m *Mixer) conv(out, x []float32, batch *ragged.Batch, states []*State) {
	C, K := m.Channels(), m.Kernel
	taps := m.tapMajor()
	for i := range batch.Seqs {
		s := &batch.Seqs[i]
		rows := x[s.Row*C:][:s.Len*C]
		if s.Pos == 0 {
			kernels.Touch(states[i].Conv)
		}
		// A window is K rows, the last of them the current token's. The first K-1 windows reach into the history.
		mark := batch.Mark()
		early := min(K-1, s.Len)
		edge := batch.Room((K - 1 + early) * C)
		copy(edge, states[i].Conv[C:])
		copy(edge[(K-1)*C:], rows[:early*C])
		batch.Pool.For(s.Len, C*K*2, func(lo, hi int) {
			for t := lo; t < hi; t++ {
				win := edge[min(t, early)*C:]
				if t >= K-1 {
					win = rows[(t-K+1)*C:]
				}
				m.convRow(out[(s.Row+t)*C:][:C], taps, win[:K*C], batch)
			}
		})
		batch.Release(mark)
		// the last K rows of [old state | new rows]
		if s.Len >= K {
			copy(states[i].Conv, rows[(s.Len-K)*C:])
		} else {
			copy(states[i].Conv, states[i].Conv[s.Len*C:])
			copy(states[i].Conv[(K-s.Len)*C:], rows)
		}
		m.Contract.Conv.Slice(states[i].Conv)
	}
}

// tapMajor is the conv's weight [Kernel, C], made when it is first asked for.
func (m *Mixer) tapMajor() []float32 {
	if m.tapsOf != &m.Conv[0] {
		m.taps, m.tapsOf = transpose(m.Conv, m.Channels(), m.Kernel), &m.Conv[0]
	}
	return m.taps
}

// convRow is one token: y[c] = sum_j w[j, c] * win[j, c]. A contract that rounds products or running sums gets them
// one by one in the order of the taps; the others get the whole sum.
func (m *Mixer) convRow(y, w, win []float32, batch *ragged.Batch) {
	c, C := m.Contract, len(y)
	product, partial := c.At[precision.ConvProduct], c.At[precision.ConvPartial]
	if product == precision.F32 && partial == precision.F32 {
		batch.Arith.Conv(y, w, win)
	} else {
		for ch := range y {
			var sum float32
			for j := range m.Kernel {
				p := product.Value(float32(w[j*C+ch] * win[j*C+ch])) // float32(): not fused with the sum
				if j == 0 {
					sum = p
				} else {
					sum = partial.Value(sum + p)
				}
			}
			y[ch] = sum
		}
	}
	c.Round(precision.ConvSum, y)
}
