// Package ragged is the batch that flows through the decoder: the rows of several sequences of different lengths in
// one matrix x [Rows, width]. Linears and norms see all rows; mixers see the sequences.
package ragged

import (
	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/precision"
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

	slabs []slab // scratch memory, by start
	used  int
}

// slab is a piece of scratch memory: the places start .. start+len(x)-1 of all there is.
type slab struct {
	start int
	x     []float32
}

// leastSlab is the smallest piece of scratch memory, in numbers.
const leastSlab = 1 << 14

// Buf gives n zeroed float32 that live until what was marked before is released.
func (b *Batch) Buf(n int) []float32 {
	x := b.Room(n)
	clear(x)
	return x
}

// Room is Buf for what is written before it is read: it holds anything. What was lent once is lent again, and never moves or
// becomes garbage, so that passes of one size need the memory of one.
func (b *Batch) Room(n int) []float32 {
	end := 0
	for _, s := range b.slabs {
		at := max(b.used, s.start) - s.start
		if end = s.start + len(s.x); at+n <= len(s.x) {
			b.used = s.start + at + n
			return s.x[at : at+n : at+n]
		}
	}
	b.slabs = append(b.slabs, slab{max(end, b.used), make([]float32, max(n, leastSlab))})
	return b.Room(n)
}

// block is how many elements an elementwise pass has in hand: they stay in the first-level cache.
const block = 2048

// Elementwise calls f on ranges of at most a block that cover 0..n once, on the pool's threads. work is the multiply-adds
// of one element.
func (b *Batch) Elementwise(n, work int, f func(lo, hi int)) {
	b.Pool.For((n+block-1)/block, block*work, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			f(i*block, min((i+1)*block, n))
		}
	})
}

// ByRow calls f for all of n numbers at once, or, where the arithmetic asks for it, for those of each of so many rows.
func (b *Batch) ByRow(n, rows int, f func(lo, hi int)) {
	width := n
	if b.Arith.ByRow {
		width = n / rows
	}
	for lo := 0; lo < n; lo += width {
		f(lo, lo+width)
	}
}

// Linears is the products of x with several weights of one width, rounded as c says for precision.Linear.
func (b *Batch) Linears(c *precision.Contract, x []float32, products ...kernels.Product) {
	b.Arith.Products(b.Pool, x, b.Rows, products...)
	for _, o := range products {
		b.Round(c, precision.Linear, o.Out)
	}
}

// Round rounds x in place as c says for p.
func (b *Batch) Round(c *precision.Contract, p precision.Point, x []float32) {
	if c.At[p] != precision.F32 {
		b.Elementwise(len(x), 1, func(lo, hi int) { c.Round(p, x[lo:hi]) })
	}
}

// Add is x += y, rounded as c says for p.
func (b *Batch) Add(c *precision.Contract, p precision.Point, x, y []float32) {
	b.Elementwise(len(x), 1, func(lo, hi int) {
		kernels.Add(x[lo:hi], y[lo:hi])
		c.Round(p, x[lo:hi])
	})
}

// Mark is a place in the scratch memory; Release gives back what was taken since.
func (b *Batch) Mark() int { return b.used }

// Release frees the scratch taken since mark.
func (b *Batch) Release(mark int) { b.used = mark }

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
