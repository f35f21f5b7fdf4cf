// Package ragged is the batch that flows through the decoder: the rows of several sequences of different lengths in
// one matrix x [Rows, width]. Linears and norms see all rows; mixers see the sequences.
package ragged

import (
	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/trace"
)

// Seq is one sequence's part of a batch.
type Seq struct {
	Index     int        // which prompt: the seq of a tap
	Row, Len  int        // its rows are Row .. Row+Len-1
	Pos       int        // tokens it had consumed before this call
	Positions [][3]int32 // rope position of each row on T, H, W; nil means text: Pos, Pos+1, ... on all three
	More      bool       // the caller's call goes on in a later batch: what is rounded once a call waits for its end
}

// Position is the rope position of the sequence's i-th row on an axis (0 T, 1 H, 2 W).
func (s *Seq) Position(i, axis int) int32 {
	if s.Positions == nil {
		return int32(s.Pos + i)
	}
	return s.Positions[i][axis]
}

// Batch is one call: its sequences, the arithmetic that runs it, scratch memory and who listens.
type Batch struct {
	Seqs  []Seq
	Rows  int
	Pool  *kernels.Pool
	Arith *kernels.Arith
	Sink  engine.Sink // nil when nobody listens: then a tap costs one comparison
	Err   error       // the sink's first error

	arena []float32
	used  int
	spill int
}

// Buf gives n zeroed float32 that live until Reset.
func (b *Batch) Buf(n int) []float32 {
	if b.used+n > len(b.arena) {
		b.spill += n
		return make([]float32, n)
	}
	x := b.arena[b.used : b.used+n : b.used+n]
	b.used += n
	clear(x)
	return x
}

// Mark is a place in the scratch memory; Release gives back what was taken since.
func (b *Batch) Mark() int { return b.used }

// Release frees the scratch taken since mark.
func (b *Batch) Release(mark int) {
	b.used = mark
	if b.spill > 0 && mark == 0 { // grow once, so that the next layer fits
		b.arena = make([]float32, len(b.arena)+b.spill)
		b.spill = 0
	}
}

// Put hands x, which has one row per row of the batch, to the sink, sequence by sequence. layer is ignored for taps
// that are not per layer.
func (b *Batch) Put(tap trace.Tap, layer int, x []float32) {
	if b.Sink == nil || b.Err != nil {
		return
	}
	name := tap.Name(layer)
	if !b.Sink.Wants(name) {
		return
	}
	width := len(x) / b.Rows
	for i := range b.Seqs {
		s := &b.Seqs[i]
		if b.Err = b.Sink.Put(name, s.Index, s.Pos, s.Len, x[s.Row*width:][:s.Len*width]); b.Err != nil {
			return
		}
	}
}
