package model

import (
	"sibyl/internal/shown"
)

// Where nobody asks for logits themselves, the vocabulary goes by in parts: all positions meet a part of the head, which is then
// unpacked once, and what they gave is reduced while it is in a cache.
const (
	partBytes = 4 << 20 // of the logits of a part
	partUnit  = 768     // whole register tiles, blocks of scales and stretches of package shown
	partRows  = 8       // fewer positions are bound by the reading of the head, in one stream
	partTop   = 64      // more candidates are found faster in a whole row
)

// byParts says whether so many rows may be shown by parts: the logits are not asked for, and the order in which their
// exponentials are summed is free.
func (r *run) byParts(rows int, tap bool) bool {
	return rows >= partRows && !tap && !r.want.Logits && r.want.TopK <= partTop && r.e.stream == nil && r.e.arith.LogSum != nil
}

// showByParts is show.
func (r *run) showByParts(x []float32, rows []row) error {
	d, call := r.e.d, &r.s.call
	V, H := d.Config.VocabSize, d.Config.HiddenSize
	if r.block == nil {
		r.block = logitRooms.Get().(*[]float32)
	}
	for len(rows) > 0 {
		block := rows[:min(callRows, len(rows))]
		rows = rows[len(block):]
		n, in := len(block), rowsOf(x, block, H)
		seen := make([]*shown.Parts, n)
		for i, b := range block {
			seen[i] = shown.NewParts(shown.At{Seq: b.seq.Index, Pos: b.seq.Pos + b.t}, r.want.TopK)
		}
		size := min(V, max(1, min(partBytes, r.e.logitsBytes)/4/n/partUnit)*partUnit)
		if cap(*r.block) < n*size {
			*r.block = make([]float32, n*size)
		}
		for lo := 0; lo < V; lo += size {
			width := min(size, V-lo)
			logits := (*r.block)[:n*width]
			call.Arith.Linear(call.Pool, logits, in, n, d.Head.Slice(lo, lo+width))
			d.roundLogits(logits, call)
			call.Pool.For(n, 8*width, func(a, b int) {
				for i := a; i < b; i++ {
					seen[i].Add(logits[i*width:][:width], lo, call.Arith.LogSum)
				}
			})
		}
		for _, p := range seen {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			if err := r.each(p.Position()); err != nil {
				return err
			}
		}
	}
	return nil
}
