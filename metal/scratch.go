package metal

import (
	"sibyl/config"
	"sibyl/metal/gpu"
	"sibyl/metal/ops"
)

// scratch is the device memory of one call's activations, used again by every layer and call. Widths are those of the taps.
type scratch struct {
	rows, splits, logitRows int // what there is room for

	ids, seqs, tiles, cos, sin           gpu.Slice
	x, n, y                              gpu.Slice // [rows, H]
	qkv, conv, pre                       gpu.Slice // [rows, C]
	z, core, gated                       gpu.Slice // [rows, nv dv]
	a, b, g, beta                        gpu.Slice // [rows, nv]
	ql2, kl2                             gpu.Slice // [rows, nk dk]
	qg, q, k, kn, v, ungated, attended   gpu.Slice
	part                                 gpu.Slice
	inner, up                            gpu.Slice // [rows, I]
	router, probs, index, weight         gpu.Slice
	expertInner, each, shared, gate, out gpu.Slice
	logits, chunks, best                 gpu.Slice
	chunkV, chunkI, topV, topI           gpu.Slice
}

// slot is one of scratch's tensors and what it takes.
type slot struct {
	to *gpu.Slice
	n  int // of 4 bytes
}

// fit makes room for a call; what is large enough stays. Where there is no room nothing stays, so that a smaller call starts anew.
func (s *scratch) fit(mem *memory, c *config.Config, rows, splits, logitRows, topK int) error {
	if rows <= s.rows && splits <= s.splits && logitRows <= s.logitRows {
		return nil
	}
	rows, splits, logitRows = max(rows, s.rows), max(splits, s.splits), max(logitRows, s.logitRows)
	for _, t := range s.slots(c, rows, splits, logitRows, topK) {
		if t.to.Buffer != nil && len(t.to.Buffer.Bytes()) >= 4*t.n {
			continue
		}
		mem.release(t.to)
		var err error
		if *t.to, err = mem.buffer(4 * max(1, t.n)); err != nil {
			s.release(mem, c)
			return err
		}
	}
	s.rows, s.splits, s.logitRows = rows, splits, logitRows
	return nil
}

func (s *scratch) slots(c *config.Config, rows, splits, logitRows, topK int) []slot {
	H, C, V := c.HiddenSize, c.QKVDim(), c.VocabSize
	vw, kw := c.ValueWidth(), c.KeyHeads*c.KeyDim
	d := ops.AttentionDims{Heads: c.NumHeads, KVHeads: c.NumKVHeads, HeadDim: c.HeadDim}
	inner := c.IntermediateSize
	var e, k, ei int
	if c.MoE != nil {
		inner, e, k, ei = c.MoE.SharedIntermediateSize, c.MoE.NumExperts, c.MoE.TopK, c.MoE.IntermediateSize
	}
	half := c.RotaryDim / 2
	all := []slot{{&s.ids, rows}, {&s.seqs, 4 * rows}, {&s.tiles, 4 * rows * (1 + c.NumHeads/c.NumKVHeads)}, {&s.cos, rows * half}, {&s.sin, rows * half},
		{&s.x, rows * H}, {&s.n, rows * H}, {&s.y, rows * H}, {&s.qkv, rows * C}, {&s.conv, rows * C}, {&s.pre, rows * C},
		{&s.z, rows * vw}, {&s.core, rows * vw}, {&s.gated, rows * vw}, {&s.a, rows * c.ValueHeads}, {&s.b, rows * c.ValueHeads},
		{&s.g, rows * c.ValueHeads}, {&s.beta, rows * c.ValueHeads}, {&s.ql2, rows * kw}, {&s.kl2, rows * kw},
		{&s.qg, 2 * rows * c.QWidth()}, {&s.q, rows * c.QWidth()}, {&s.k, rows * c.KVWidth()}, {&s.kn, rows * c.KVWidth()}, {&s.v, rows * c.KVWidth()},
		{&s.ungated, rows * c.QWidth()}, {&s.attended, rows * c.QWidth()}, {&s.part, ops.PartFloats(rows, splits, d)},
		{&s.inner, rows * inner}, {&s.up, rows * inner}}
	if c.MoE != nil {
		all = append(all, slot{&s.router, rows * e}, slot{&s.probs, rows * e}, slot{&s.index, rows * k}, slot{&s.weight, rows * k},
			slot{&s.expertInner, rows * k * ei}, slot{&s.each, rows * k * H}, slot{&s.shared, rows * H}, slot{&s.gate, rows}, slot{&s.out, rows * H})
	}
	chunks := ops.HeadChunks(V)
	return append(all, slot{&s.logits, logitRows * V}, slot{&s.chunks, 4 * logitRows * chunks}, slot{&s.best, 4 * logitRows},
		slot{&s.chunkV, logitRows * chunks * topK}, slot{&s.chunkI, logitRows * chunks * topK}, slot{&s.topV, logitRows * topK}, slot{&s.topI, logitRows * topK})
}

func (s *scratch) release(mem *memory, c *config.Config) {
	for _, t := range s.slots(c, 0, 0, 0, 0) {
		mem.release(t.to)
	}
	*s = scratch{}
}
