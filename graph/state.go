package graph

import (
	"fmt"
	"slices"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// layout says where main's states stand and which layer each of their rows belongs to.
type layout struct {
	handles              []arg // in the order of main's inputs
	key, value           arg
	conv, recurrent      arg
	channelsLast         bool  // conv [1, K, channels] (apple-q35), else [1, channels, K-1] (zoo-s1)
	linear, full         []int // the layers of each kind: row i of a state is layer linear[i] or full[i]
	channels, kept, taps int   // of conv: columns that the state keeps, and those that engine.State has
}

// arg is a state among main's inputs.
type arg struct {
	at   int
	name string
	typ  *aicode.Type
}

// newLayout finds the states, and from the order in which main writes their rows which layer each belongs to. Where that is
// not told the states have no layer names.
func newLayout(p *aicode.Program, g *aicode.Graph, s *bundle.States) (*layout, error) {
	l := &layout{}
	for i, a := range g.Inputs {
		if a.Type.Kind == aicode.Handle {
			l.handles = append(l.handles, arg{i, a.State, a.Type.Of})
		}
	}
	for _, f := range []struct {
		to   *arg
		from *aicode.Arg
	}{{&l.key, s.Key}, {&l.value, s.Value}, {&l.conv, s.Conv}, {&l.recurrent, s.Recurrent}} {
		i := slices.IndexFunc(l.handles, func(a arg) bool { return a.name == f.from.State })
		if i < 0 {
			return nil, &inputerr.Error{File: g.Name, Field: "states", Found: "no state " + f.from.State, Want: "one among the function's inputs"}
		}
		*f.to = l.handles[i]
	}
	for _, a := range l.handles {
		for i, d := range a.typ.Dims {
			if d == aicode.Dynamic && (i != 3 || a != l.key && a != l.value) || d > maxElements {
				return nil, &inputerr.Error{File: g.Name, Field: "state " + a.name, Found: a.typ.String(), Want: "fixed dimensions but the number of cached tokens"}
			}
		}
		if _, ok := volume(dimsFor(a.typ, 1)); !ok {
			return nil, &inputerr.Error{File: g.Name, Field: "state " + a.name, Found: a.typ.String(), Want: fmt.Sprintf("at most %d elements", maxElements)}
		}
	}
	f := &flow{p, g}
	for _, op := range g.Body.Ops { // every layer writes one row of its own kind
		switch f.updates(op) {
		case l.key.name:
			l.full = append(l.full, len(l.full)+len(l.linear))
		case l.recurrent.name:
			l.linear = append(l.linear, len(l.full)+len(l.linear))
		}
	}
	if int64(len(l.full)) != l.key.typ.Dims[0] || int64(len(l.linear)) != l.recurrent.typ.Dims[0] || l.conv.typ.Dims[0] != l.recurrent.typ.Dims[0] {
		l.full, l.linear = nil, nil
	}
	d := l.conv.typ.Dims
	if l.channels, l.kept, l.taps = int(d[2]), int(d[3]), int(d[3])+1; d[2] < d[3] {
		l.channelsLast, l.channels, l.kept, l.taps = true, int(d[3]), int(d[2]), int(d[2])
	}
	return l, nil
}

// named says whether the states can be told by layer.
func (l *layout) named() bool { return l.full != nil || l.linear != nil }

// dimsFor is a state's shape with room for tokens.
func dimsFor(t *aicode.Type, tokens int) []int {
	dims := intsOf(t.Dims)
	for i, d := range dims {
		if d < 0 {
			dims[i] = tokens
		}
	}
	return dims
}

// sequence is one prompt at work.
type sequence struct {
	len    int
	states []*handle // as layout.handles
	oldest []float32 // [linear layers, channels]: the conv's column before those that zoo-s1 keeps
}

func (l *layout) start() *sequence {
	s := &sequence{oldest: make([]float32, len(l.linear)*l.channels)}
	for _, a := range l.handles {
		s.states = append(s.states, &handle{name: a.name, t: zeros(a.typ.Elem, dimsFor(a.typ, 0))})
	}
	return s
}

func (s *sequence) state(l *layout, a arg) *handle {
	return s.states[slices.IndexFunc(l.handles, func(b arg) bool { return b.at == a.at })]
}

// capacityStep is by how many tokens a cache of dynamic length grows; results do not depend on it.
const capacityStep = 64

// reserve gives the caches room for tokens.
func (s *sequence) reserve(l *layout, tokens int) error {
	for _, a := range []arg{l.key, l.value} {
		h := s.state(l, a)
		if a.typ.Dims[3] != aicode.Dynamic || h.t.Dims[3] >= tokens {
			continue
		}
		dims := dimsFor(a.typ, (tokens+capacityStep-1)/capacityStep*capacityStep)
		if _, ok := volume(dims); !ok {
			return &inputerr.Error{File: "length", Found: fmt.Sprintf("%d tokens", tokens), Want: fmt.Sprintf("caches of at most %d elements", maxElements), Do: "shorten the prompt or generate fewer tokens"}
		}
		t := zeros(a.typ.Elem, dims)
		fill(t.part(3, 0, h.t.Dims[3]), h.t)
		h.t = t
	}
	return nil
}

// before notes, before a step, the conv columns that the step pushes out.
func (s *sequence) before(l *layout) {
	if l.channelsLast || !l.named() {
		return
	}
	copy(s.oldest, s.state(l, l.conv).t.part(3, 0, 1).floats())
}

// export gives the sequence's states by layer, in the shapes of engine.State.
func (l *layout) export(s *sequence) *engine.State {
	out := &engine.State{Len: s.len, Tensors: map[string]engine.StateTensor{}}
	for i, layer := range l.linear {
		conv := engine.StateTensor{Shape: []int{l.channels, l.taps}, Data: l.convOut(s, i)}
		out.Tensors[trace.CacheConvState.Name(layer)] = conv
		out.Tensors[trace.CacheRecurrentState.Name(layer)] = stateTensor(s.state(l, l.recurrent).t.part(0, i, 1), 2)
	}
	for i, layer := range l.full {
		for tap, a := range map[trace.Tap]arg{trace.CacheKey: l.key, trace.CacheValue: l.value} {
			out.Tensors[tap.Name(layer)] = stateTensor(s.state(l, a).t.part(0, i, 1).part(3, 0, s.len), 2)
		}
	}
	return out
}

// stateTensor copies a view, without its first axes, which have one element.
func stateTensor(t *Tensor, lead int) engine.StateTensor {
	return engine.StateTensor{Shape: slices.Clone(t.Dims[lead:]), Data: slices.Clone(t.floats())}
}

// convOut is the conv state of the i-th linear layer as [channels, taps].
func (l *layout) convOut(s *sequence, i int) []float32 {
	row := s.state(l, l.conv).t.part(0, i, 1)
	if l.channelsLast {
		return slices.Clone(row.view([]int{l.channels, l.taps}, []int{row.strides[3], row.strides[2]}, row.off).floats())
	}
	x := row.floats()
	out := make([]float32, l.channels*l.taps)
	for c := range l.channels {
		out[c*l.taps] = s.oldest[i*l.channels+c]
		copy(out[c*l.taps+1:], x[c*l.kept:][:l.kept])
	}
	return out
}

// load starts a sequence from a state, whose numbers are rounded to the dtype that the graph stores.
func (l *layout) load(in *engine.State) (*sequence, error) {
	s := l.start()
	if len(in.Tensors) != 2*(len(l.linear)+len(l.full)) {
		return nil, &inputerr.Error{File: "state", Found: fmt.Sprintf("%d tensors", len(in.Tensors)), Want: fmt.Sprintf("%d, two a layer", 2*(len(l.linear)+len(l.full))), Do: "give a state of this model, whole"}
	}
	if err := s.reserve(l, in.Len); err != nil {
		return nil, err
	}
	s.len = in.Len
	get := func(tap trace.Tap, layer int, want ...int) ([]float32, error) {
		t := in.Tensors[tap.Name(layer)]
		n, _ := volume(want)
		if !slices.Equal(t.Shape, want) || len(t.Data) != n {
			return nil, &inputerr.Error{File: "state", Field: tap.Name(layer), Found: fmt.Sprintf("%d numbers of shape %v", len(t.Data), t.Shape),
				Want: fmt.Sprintf("%d of shape %v", n, want), Do: "give a state of this model, whole"}
		}
		return t.Data, nil
	}
	put := func(a arg, i int, dims []int, x []float32) {
		x = slices.Clone(x)
		grid(a.typ.Elem).Slice(x)
		dst := s.state(l, a).t.part(0, i, 1)
		if a == l.key || a == l.value {
			dst = dst.part(3, 0, in.Len)
		}
		fill(dst, newFloats(a.typ.Elem, dims, x).view(dst.Dims, rowMajor(dst.Dims), 0))
	}
	for i, layer := range l.linear {
		x, err := get(trace.CacheConvState, layer, l.channels, l.taps)
		if err != nil {
			return nil, err
		}
		l.convIn(s, i, x)
		d := intsOf(l.recurrent.typ.Dims[2:])
		if x, err = get(trace.CacheRecurrentState, layer, d...); err != nil {
			return nil, err
		}
		put(l.recurrent, i, d, x)
	}
	for i, layer := range l.full {
		for tap, a := range map[trace.Tap]arg{trace.CacheKey: l.key, trace.CacheValue: l.value} {
			d := []int{int(a.typ.Dims[2]), in.Len, int(a.typ.Dims[4])}
			x, err := get(tap, layer, d...)
			if err != nil {
				return nil, err
			}
			put(a, i, d, x)
		}
	}
	return s, nil
}

// convIn is convOut's inverse.
func (l *layout) convIn(s *sequence, i int, x []float32) {
	x = slices.Clone(x)
	grid(l.conv.typ.Elem).Slice(x)
	all := newFloats(l.conv.typ.Elem, []int{l.channels, l.taps}, x)
	row := s.state(l, l.conv).t.part(0, i, 1)
	if l.channelsLast {
		fill(row, all.view(row.Dims, []int{0, 0, 1, l.taps}, 0))
		return
	}
	for c := range l.channels {
		s.oldest[i*l.channels+c] = x[c*l.taps]
	}
	fill(row, all.view(row.Dims, []int{0, 0, l.taps, 1}, 1))
}
