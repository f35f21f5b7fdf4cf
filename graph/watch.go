package graph

import (
	"fmt"
	"slices"

	"sibyl/bundle/aicode"
)

// watcher hands over the values of one call that a sink wants.
type watcher struct {
	a     asked
	first int // position of the call's first token
	n     int // tokens of the call
	uses  map[place][]*pending
}

// place is a value by the operation that makes it, in main or in a graph that main calls.
type place struct {
	via, op *aicode.Op
	result  int
}

// pending is a tap of which parts are still to come.
type pending struct {
	tap  *tap
	rows [][]float32 // by part; nil until it came
}

// watch gives what is to be called after each operation, nil if the sink wants nothing that is there.
func (e *Engine) watch(s *sequence, n int, a asked) *watcher {
	if a.sink == nil {
		return nil
	}
	w := &watcher{a: a, first: s.len, n: n, uses: map[place][]*pending{}}
	for _, t := range slices.Concat(e.taps, e.ops) {
		if !a.sink.Wants(t.name) {
			continue
		}
		p := &pending{t, make([][]float32, len(t.parts))}
		for _, part := range t.parts {
			at := place{part.via, part.v.Def, part.v.Index}
			if !slices.Contains(w.uses[at], p) {
				w.uses[at] = append(w.uses[at], p)
			}
		}
	}
	if len(w.uses) == 0 {
		return nil
	}
	return w
}

// after is told of an operation's results.
func (w *watcher) after(via *aicode.Op, i *instr, fr frame) error {
	for k, slot := range i.out {
		at := place{via, i.op, k}
		for _, p := range w.uses[at] {
			if err := w.take(p, at, fr[slot].t); err != nil {
				return err
			}
		}
	}
	return nil
}

// take fills in the parts of a tap that the value at a place is, and hands the tap over when it is complete.
func (w *watcher) take(p *pending, at place, t *Tensor) error {
	for k, part := range p.tap.parts {
		if part.via != at.via || part.v.Def != at.op || part.v.Index != at.result {
			continue
		}
		x, err := tokenRows(t, part.v.Type, w.n)
		if err != nil {
			return fmt.Errorf("tap %s: %w", p.tap.name, err)
		}
		if p.rows[k], err = part.blocks(x, w.n); err != nil {
			return fmt.Errorf("tap %s: %w", p.tap.name, err)
		}
	}
	if slices.ContainsFunc(p.rows, func(x []float32) bool { return x == nil }) {
		return nil
	}
	x := p.rows[0]
	if len(p.rows) > 1 {
		x = alternate(p.rows, p.tap.parts[0].unit)
	}
	return w.a.sink.Put(p.tap.name, w.a.seq, w.first, w.n, x)
}

// tokenRows gives a value as rows of tokens: its dynamic axis first, or all of it where a call has one token.
func tokenRows(t *Tensor, typ *aicode.Type, n int) ([]float32, error) {
	axis := slices.Index(typ.Dims, aicode.Dynamic)
	rest := -1
	if axis >= 0 {
		rest = slices.Index(typ.Dims[axis+1:], aicode.Dynamic)
	}
	switch {
	case t == nil:
		return nil, fmt.Errorf("no tensor")
	case axis < 0 && n == 1:
		// One token: the whole value is its row.
	case axis < 0 || rest >= 0 || t.Dims[axis] != n:
		return nil, fmt.Errorf("%s has no row for each of %d tokens", t, n)
	default:
		order := append([]int{axis}, without(len(t.Dims), axis)...)
		dims, strides := make([]int, len(order)), make([]int, len(order))
		for i, a := range order {
			dims[i], strides[i] = t.Dims[a], t.strides[a]
		}
		t = t.view(dims, strides, t.off)
	}
	if t.isFloat() {
		return slices.Clone(t.floats()), nil
	}
	out := make([]float32, t.Len())
	for i, v := range t.ints() {
		out[i] = float32(v)
	}
	return out, nil
}

func without(n, axis int) []int {
	var out []int
	for a := range n {
		if a != axis {
			out = append(out, a)
		}
	}
	return out
}

// blocks takes the part's blocks of each of n rows.
func (p *part) blocks(x []float32, n int) ([]float32, error) {
	if p.unit == 0 {
		return x, nil
	}
	width := len(x) / n
	if (p.lo+(p.n-1)*p.step+1)*p.unit > width {
		return nil, fmt.Errorf("rows of %d elements, want %d blocks of %d from block %d on", width, p.n, p.unit, p.lo)
	}
	out := make([]float32, 0, n*p.n*p.unit)
	for r := range n {
		for b := range p.n {
			out = append(out, x[r*width+(p.lo+b*p.step)*p.unit:][:p.unit]...)
		}
	}
	return out, nil
}

// alternate takes a block of unit elements of each part in turn.
func alternate(parts [][]float32, unit int) []float32 {
	var out []float32
	for at := 0; at < len(parts[0]); at += unit {
		for _, x := range parts {
			out = append(out, x[at:][:unit]...)
		}
	}
	return out
}
