package main

import (
	"fmt"
	"slices"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// readState makes a state of the cache.* tensors of a trace file. All of the model's must be there, in its shapes, and
// the file's bytes must be those that were written: nothing that continues from it would show the damage.
func readState(path string, c *config.Config) (st *engine.State, err error) {
	f, err := trace.Open(path, "")
	if err != nil {
		return nil, err
	}
	defer closing(f, &err)
	if err := f.Verify(); err != nil {
		return nil, err
	}
	st = &engine.State{Len: len(f.IDs()), Tensors: map[string]engine.StateTensor{}}
	if m := f.Meta(); m != nil {
		st.Len += m.Past
	}
	have := map[string]trace.TensorInfo{}
	for _, t := range f.Tensors() {
		have[t.Name] = t
	}
	for _, e := range trace.All(c) {
		if !e.Tap.Cache() {
			continue
		}
		t, ok := have[e.Name]
		want := e.Shape(c, st.Len)
		switch {
		case !ok:
			return nil, &inputerr.Error{File: path, Field: e.Name, Found: "nothing", Want: "every state of the model",
				Do: "make the trace with --taps 'cache.*' or with all taps"}
		case !slices.Equal(t.Shape, want):
			return nil, &inputerr.Error{File: path, Field: e.Name, Found: "shape " + shapeText(t.Shape),
				Want: shapeText(want), Do: "give a trace of this model"}
		}
		x := engine.StateTensor{Shape: t.Shape, Data: make([]float32, t.Len())}
		if err := f.Read(e.Name, 0, x.Data); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		st.Tensors[e.Name] = x
	}
	return st, nil
}

// shifted gives a sink the rows of a run that continues from a state: engines count positions from the start of
// the sequence, a trace file from its own first token.
type shifted struct {
	engine.Sink
	past int
}

// Put moves rows of tokens; states at the end are whole tensors and stay.
func (s *shifted) Put(name string, seq, pos, rows int, x []float32) error {
	if t, _, ok := trace.Parse(name); ok && !t.Cache() {
		pos -= s.past
	}
	return s.Sink.Put(name, seq, pos, rows, x)
}
