package graph

import (
	"fmt"
	"slices"

	"sibyl/bundle/aicode"
)

// Locate says which operations make a tap of the taps before it, the last one first: where to look when two runs part there.
// Constants are left out: their readers are there. A state's row counts with what was written into it at the token before.
// It implements engine.Locator.
func (e *Engine) Locate(name string) []string {
	var out []string
	for _, o := range e.makers(name) {
		text := o.op.Where()
		if o.via != nil {
			text = fmt.Sprintf("%s, in %s which op %d calls", text, o.graph, o.via.Index)
		}
		if callee := e.m.b.p.Graph(o.op.Callee); callee != nil && callee.Composite != "" {
			text += ": " + callee.Composite
		}
		out = append(out, text)
	}
	return out
}

// located is an operation of main, or of a graph that main calls.
type located struct {
	op, via *aicode.Op
	graph   string
}

// slicer walks back from a tap's values to those of other taps.
type slicer struct {
	flow
	stop  map[*aicode.Value]bool
	seen  map[*aicode.Value]bool
	found []located
}

// makers lists the operations of a tap, in falling order of their places in main.
func (e *Engine) makers(name string) []located {
	t := e.tapNamed(name)
	if t == nil {
		return nil
	}
	s := &slicer{flow: flow{e.m.b.p, e.main.g}, stop: map[*aicode.Value]bool{}, seen: map[*aicode.Value]bool{}}
	for i := range e.taps {
		for _, p := range e.taps[i].parts {
			if e.taps[i].name != name && p.via == nil {
				s.stop[p.v] = true
			}
		}
	}
	for _, p := range t.parts {
		delete(s.stop, p.v)
		if p.via == nil {
			s.back(p.v)
			continue
		}
		s.inside(p)
	}
	slices.SortStableFunc(s.found, func(a, b located) int { return order(b) - order(a) })
	return s.found
}

// order orders operations of called graphs by their calls.
func order(l located) int {
	if l.via != nil {
		return l.via.Index
	}
	return l.op.Index
}

// tapNamed finds a tap, the logits among them.
func (e *Engine) tapNamed(name string) *tap {
	if name == logitsName {
		v := e.main.g.Body.Ops[len(e.main.g.Body.Ops)-1].Operands[e.logitsAt()]
		return &tap{name, whole(v)}
	}
	for _, t := range slices.Concat(e.taps, e.ops) {
		if t.name == name {
			return t
		}
	}
	return nil
}

// back notes what makes v, up to the other taps.
func (s *slicer) back(v *aicode.Value) {
	if v == nil || v.Def == nil || s.seen[v] || s.stop[v] || v.Def.Const != nil {
		return
	}
	s.seen[v] = true
	op := v.Def
	if !slices.ContainsFunc(s.found, func(l located) bool { return l.op == op }) {
		s.found = append(s.found, located{op: op})
	}
	switch s.kind(op) {
	case "read_handle":
		return // the state as it came in: its rows are followed from the slice
	case "slice":
		s.written(op)
	}
	for _, o := range data(s.kind(op), op) {
		s.back(o)
	}
}

// data are the operands whose elements reach the result: not those that say shapes, places and axes.
func data(kind string, op *aicode.Op) []*aicode.Value {
	v := op.Operands
	switch kind {
	case "concat":
		return v[1:]
	case "slice_update":
		return []*aicode.Value{v[0], v[len(v)-1]}
	case "slice", "split", "softmax", "sort", "argsort", "reduce_sum", "reduce_mean", "reshape", "transpose", "expand_dims", "shrink_dims", "broadcast_to", "broadcast_in_dims":
		return v[:1]
	}
	return v
}

// written follows what the function writes into the row of a state that a slice reads.
func (s *slicer) written(slice *aicode.Op) {
	h := s.handle(slice)
	if h == nil {
		return
	}
	for _, op := range s.g.Body.Ops {
		if s.kind(op) == "slice_update" && s.handle(op) == h && slices.Equal(ints(op.Operands[1]), ints(slice.Operands[1])) && ints(slice.Operands[1]) != nil {
			s.seen[result(op)] = true
			s.found = append(s.found, located{op: op})
			s.back(operand(op, 4))
		}
	}
}

// handle is the state that an operation's first operand was read from.
func (s *slicer) handle(op *aicode.Op) *aicode.Value {
	r := operand(op, 0)
	if r == nil || r.Def == nil || s.kind(r.Def) != "read_handle" {
		return nil
	}
	return operand(r.Def, 0)
}

// inside notes what makes a value of a called graph, and what makes the operands it needs.
func (s *slicer) inside(p part) {
	g := s.p.Graph(p.via.Callee)
	if g == nil {
		return
	}
	var walk func(v *aicode.Value)
	seen := map[*aicode.Value]bool{}
	walk = func(v *aicode.Value) {
		if v == nil || seen[v] {
			return
		}
		seen[v] = true
		if v.Def == nil {
			s.back(operand(p.via, v.Index))
			return
		}
		if v.Def.Const != nil {
			return
		}
		s.found = append(s.found, located{v.Def, p.via, g.Name})
		for _, o := range v.Def.Operands {
			walk(o)
		}
	}
	walk(p.v)
}
