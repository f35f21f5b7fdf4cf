package gdn

import (
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
)

// rule runs the delta rule over the batch: q, k [Rows, nk, dk] (q scaled), v, out [Rows, nv, dv], g, decay = exp(g) and
// beta [Rows, nv]. Heads are independent, and so are sequences.
func (m *Mixer) rule(out, q, k, v, g, decay, beta []float32, batch *ragged.Batch, states []*State) {
	nv, work := m.ValueHeads, 4*m.KeyDim*m.ValueDim
	longest := 0
	for i := range batch.Seqs {
		longest = max(longest, batch.Seqs[i].Len)
	}
	batch.Pool.For(len(batch.Seqs)*nv, work*longest, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			s, h := &batch.Seqs[i/nv], i%nv
			S := states[i/nv].S[h*m.KeyDim*m.ValueDim:][:m.KeyDim*m.ValueDim]
			if s.Pos == 0 {
				kernels.Touch(S)
			}
			if m.Chunk && s.Len > 1 {
				m.chunkHead(out, q, k, v, g, beta, decay, S, s, h, batch)
				continue
			}
			m.recurrentHead(out, q, k, v, decay, beta, S, s.Row, s.Row+s.Len, h, batch)
			if m.Contract.StatePerCall && !s.More {
				m.Contract.State.Slice(S)
			}
		}
	})
}

// recurrentHead is the definition: tokens lo..hi-1 of one value head, one after the other.
func (m *Mixer) recurrentHead(out, q, k, v, decay, beta, S []float32, lo, hi, h int, batch *ragged.Batch) {
	dk, dv, nk, nv := m.KeyDim, m.ValueDim, m.KeyHeads, m.ValueHeads
	kh := h / (nv / nk) // repeat_interleave, not tiling
	tmp := make([]float64, 2*dv)
	for t := lo; t < hi; t++ {
		batch.Arith.DeltaStep(S, q[(t*nk+kh)*dk:][:dk], k[(t*nk+kh)*dk:][:dk], v[(t*nv+h)*dv:][:dv],
			out[(t*nv+h)*dv:][:dv], decay[t*nv+h], beta[t*nv+h], tmp)
		if !m.Contract.StatePerCall {
			m.Contract.State.Slice(S)
		}
	}
}
