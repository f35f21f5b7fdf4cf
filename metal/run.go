package metal

import (
	"context"
	"encoding/binary"
	"math"

	"sibyl/engine"
	"sibyl/internal/shown"
	"sibyl/metal/gpu"
	"sibyl/metal/ops"
	"sibyl/precision"
	"sibyl/trace"
)

// Passes of a prefill hold at most callRows rows, of at most callSeqs sequences. The cuts change no result.
const (
	callRows = 512
	callSeqs = 8
)

// run is one ragged batch from start to end.
type run struct {
	e       *Engine
	ctx     context.Context
	want    engine.Want
	each    func(*engine.Position) error
	prompts []engine.Prompt
	first   int     // index of prompts[0] among all prompts
	have    []int   // tokens consumed by each
	next    []int32 // rope position of its next text token
	st      *states
}

// start makes the states; room is how many tokens the longest sequence will have, as far as that is known.
func (r *run) start(from *engine.State, room int) (err error) {
	n := len(r.prompts)
	r.have, r.next = make([]int, n), make([]int32, n)
	if r.st, err = r.e.d.newStates(n, max(1, room)); err != nil {
		return err
	}
	if from != nil {
		r.have[0], r.next[0] = from.Len, int32(from.Len)
		return r.st.load(from)
	}
	return nil
}

// feed is new tokens of one sequence; nil positions mean text.
type feed struct {
	seq       int
	ids       []int32
	positions [][3]int32
}

// all feeds the prompts in calls of the path's size, a long call in several passes.
func (r *run) all() error {
	done := make([]int, len(r.prompts))
	for {
		active := 0
		for i, p := range r.prompts {
			if done[i] < len(p.IDs) {
				active++
			}
		}
		if active == 0 {
			return nil
		}
		var feeds []feed
		for i, p := range r.prompts {
			n := min(max(1, callRows/active), r.want.Path.End(done[i], len(p.IDs))-done[i])
			if n == 0 {
				continue
			}
			f := feed{seq: i, ids: p.IDs[done[i]:][:n]}
			if p.PositionIDs != nil {
				f.positions = p.PositionIDs[done[i]:][:n]
			}
			feeds = append(feeds, f)
			done[i] += n
		}
		if err := r.feed(feeds); err != nil {
			return err
		}
	}
}

// feed runs one call and shows its positions.
func (r *run) feed(feeds []feed) error {
	d, s := r.e.d, &r.e.scratch
	c := &call{d: d, s: s, sink: r.want.Taps, states: r.st}
	var ids []uint32
	var pos [][3]int32
	longest := 0
	for _, f := range feeds {
		c.seqs = append(c.seqs, ops.Seq{Row: uint32(c.rows), Len: uint32(len(f.ids)), Pos: uint32(r.have[f.seq]), Slot: uint32(f.seq)})
		c.index = append(c.index, r.first+f.seq)
		c.rows += len(f.ids)
		longest = max(longest, r.have[f.seq]+len(f.ids))
		for i, id := range f.ids {
			ids = append(ids, uint32(id))
			p := [3]int32{r.next[f.seq], r.next[f.seq], r.next[f.seq]}
			if f.positions != nil {
				p = f.positions[i]
			}
			pos = append(pos, p)
			r.next[f.seq] = max(r.next[f.seq], p[0]+1, p[1]+1, p[2]+1)
		}
	}
	if err := r.st.grow(longest); err != nil {
		return err
	}
	c.splits = ops.Splits(c.seqs)
	if err := s.fit(d.mem, d.cfg, c.rows, c.splits, min(c.rows, logitRows(d.cfg.VocabSize)), gpuTopK); err != nil {
		return err
	}
	c.inputs(ids, pos)
	c.list = d.set.Begin()
	if err := c.forward(r.ctx); err != nil {
		return err
	}
	for i, f := range feeds {
		r.have[f.seq] += int(c.seqs[i].Len)
	}
	if err := r.head(c); err != nil {
		return err
	}
	if c.flush(); c.err != nil {
		return c.err
	}
	return nil
}

// inputs writes what a call reads besides weights: ids, sequences, tiles, rope tables.
func (c *call) inputs(ids []uint32, pos [][3]int32) {
	d, s := c.d, c.s
	putWords(s.ids, ids)
	var w []uint32
	for _, q := range c.seqs {
		w = append(w, q.Row, q.Len, q.Pos, q.Slot)
	}
	putWords(s.seqs, w)
	tiles := ops.Tiles(c.seqs, ops.AttentionDims{Heads: d.cfg.NumHeads, KVHeads: d.cfg.NumKVHeads})
	c.tiles, w = len(tiles), w[:0]
	for _, t := range tiles {
		w = append(w, t.Row, t.Tokens, t.Seq, t.Heads)
	}
	putWords(s.tiles, w)
	c.rope(pos)
}

// rope writes cos and sin [rows, rot/2] of the rows' positions: angle = R32(position * inv_freq). The table is rounded as the first
// attention layer's contract says.
func (c *call) rope(pos [][3]int32) {
	d := c.d
	round := d.ropeRound()
	cos, sin := make([]float32, 0, len(pos)*len(d.invFreq)), make([]float32, 0, len(pos)*len(d.invFreq))
	for _, p := range pos {
		for j, f := range d.invFreq {
			a, b := precision.SinCosR32(float32(float32(p[d.axis[j]]) * f))
			sin, cos = append(sin, round.Value(a)), append(cos, round.Value(b))
		}
	}
	putFloats(c.s.cos, cos)
	putFloats(c.s.sin, sin)
}

func (d *decoder) ropeRound() precision.Round {
	for l := range d.layers {
		if a := d.layers[l].attn; a != nil {
			return a.c.At[precision.RopeTable]
		}
	}
	return precision.F32
}

// logitRows bounds the logits held at once to 64 MB.
func logitRows(vocab int) int { return max(1, min(64, 16<<20/vocab)) }

// gpuTopK is how many candidates a position gets from the device; who asks for more reads the row.
const gpuTopK = 8

// head shows final norm, logits and positions of the call's rows, as far as they are asked for.
func (r *run) head(c *call) error {
	d, s := r.e.d, c.s
	H := d.cfg.HiddenSize
	all := c.wants(trace.Logits, -1)
	last := 0
	for _, q := range c.seqs {
		last = max(last, int(q.Pos+q.Len))
	}
	if !all && last <= r.want.From && !c.wants(trace.FinalNorm, -1) {
		return nil
	}
	c.list.RMSNorm(s.x, d.finalNorm.w, d.finalNorm.one, s.n, c.rows, ops.Matrix(H), float32(d.cfg.RMSNormEps), d.finalNorm.round)
	c.put(trace.FinalNorm, -1, s.n, H)
	for i, q := range c.seqs {
		lo := min(int(q.Len), max(0, r.want.From-int(q.Pos)))
		if all {
			lo = 0
		}
		for lo < int(q.Len) {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			n := min(logitRows(d.cfg.VocabSize), int(q.Len)-lo)
			if err := r.show(c, i, lo, n, all); err != nil {
				return err
			}
			lo += n
		}
	}
	return c.err
}

// show computes the logits of n rows of sequence i of the call from lo on and reports them.
func (r *run) show(c *call, i, lo, n int, tap bool) error {
	d, s, q := r.e.d, c.s, c.seqs[i]
	V := d.cfg.VocabSize
	x := s.n
	x.Offset += (int(q.Row) + lo) * d.cfg.HiddenSize * 4
	k := min(max(2, r.want.TopK), V)
	rows := r.want.Logits || k > gpuTopK
	c.list.Linear(d.head, x, s.logits, n, d.plan.contract(-1, precision.PartHead).At[precision.Logits])
	c.list.Head(s.logits, s.chunks, s.best, n, V)
	if !rows {
		c.list.TopK(s.logits, s.chunkV, s.chunkI, s.topV, s.topI, n, V, k)
	}
	if c.flush(); c.err != nil {
		return c.err
	}
	pos := int(q.Pos) + lo
	if tap {
		if err := c.sink.Put(trace.Logits.Name(-1), c.index[i], pos, n, getFloats(s.logits, 0, n*V)); err != nil {
			return err
		}
	}
	for t := range n {
		if pos+t < r.want.From {
			continue
		}
		p := &engine.Position{Seq: c.index[i], Pos: pos + t}
		if rows {
			*p = *shown.Position(p.Seq, p.Pos, getFloats(s.logits, t*V, V), k, r.want.Logits)
		} else {
			r.fromDevice(p, s, t, k)
		}
		if err := r.each(p); err != nil {
			return err
		}
	}
	return nil
}

// fromDevice fills a position from what the head's kernels say of row t; the row itself is read only for a tie, or where its largest
// logit is no number.
func (r *run) fromDevice(p *engine.Position, s *scratch, t, k int) {
	word := func(x gpu.Slice, i int) uint32 { return binary.LittleEndian.Uint32(x.Buffer.Bytes()[4*i:]) }
	V := r.e.d.cfg.VocabSize
	lse := float64(math.Float32frombits(word(s.best, 4*t+3)))
	if word(s.best, 4*t+2) != 1 || math.IsNaN(lse) || math.IsInf(lse, 0) {
		*p = *shown.Position(p.Seq, p.Pos, getFloats(s.logits, t*V, V), k, false)
		return
	}
	p.ID, p.LSE = int32(word(s.best, 4*t)), lse
	p.Ties = []int32{p.ID}
	for j := range k {
		p.Top = append(p.Top, engine.Candidate{ID: int32(word(s.topI, t*k+j)), Logit: float64(math.Float32frombits(word(s.topV, t*k+j)))})
	}
}

// finish hands over the states, to the taps and to the caller.
func (r *run) finish(final *engine.State) error {
	if final != nil {
		*final = *r.st.export(0, r.have[0])
	}
	if r.want.Taps == nil {
		return nil
	}
	for i := range r.prompts {
		for l, kind := range r.e.d.cfg.Layers {
			for _, tap := range cacheTaps(kind) {
				if name := tap.Name(l); r.want.Taps.Wants(name) {
					if err := r.want.Taps.Put(name, r.first+i, 0, 1, r.st.tensor(tap, l, i, r.have[i]).Data); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
