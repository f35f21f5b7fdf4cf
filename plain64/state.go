package plain64

import (
	"cmp"
	"fmt"
	"slices"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// state is what a sequence carries from call to call, all of it float64.
type state struct {
	n      int   // tokens consumed
	next   int32 // the text position of the next token: one past the largest so far, on all three axes
	layers []layerState
}

// layerState holds the first two for a GatedDeltaNet layer, the other two for an attention layer, all in the layout
// of their taps.
type layerState struct {
	conv       []float64   // [C, K]: the last K columns of in_proj_qkv, oldest first, zero before the sequence
	recurrent  []float64   // [nv, dk, dv]
	key, value [][]float64 // [kv] of [n, hd]; key after rope
}

// each calls f for every state tensor in the order of the layers, with its parts: concatenated, they are the tensor.
func (s *state) each(c *config.Config, f func(tap trace.Tap, l int, parts [][]float64)) {
	for l := range s.layers {
		w := &s.layers[l]
		if c.Layers[l] == config.GatedDeltaNet {
			f(trace.CacheConvState, l, [][]float64{w.conv})
			f(trace.CacheRecurrentState, l, [][]float64{w.recurrent})
		} else {
			f(trace.CacheKey, l, w.key)
			f(trace.CacheValue, l, w.value)
		}
	}
}

// export rounds s to the float32 of engine.State.
func (s *state) export(c *config.Config) *engine.State {
	out := &engine.State{Len: s.n, Tensors: map[string]engine.StateTensor{}}
	s.each(c, func(tap trace.Tap, l int, parts [][]float64) {
		out.Tensors[tap.Name(l)] = engine.StateTensor{Shape: tap.Shape(c, s.n), Data: narrow(slices.Concat(parts...))}
	})
	return out
}

// newState makes a state of its own from st, which must hold exactly the tensors of this model; nil is the empty state.
// st.Len is from 0 to MaxPositions.
func newState(c *config.Config, st *engine.State) (*state, error) {
	if st == nil {
		st = &engine.State{}
	}
	bad := func(field, found, want string) error {
		return &inputerr.Error{File: "state", Field: field, Found: found, Want: want, Do: "give a state of this model, made by a prefill"}
	}
	s := &state{n: st.Len, next: int32(st.Len), layers: make([]layerState, c.NumLayers)}
	for l := range s.layers { // the parts, still of no length where the length is st's to say
		s.layers[l] = layerState{
			conv: make([]float64, c.QKVDim()*c.ConvKernel), recurrent: make([]float64, c.ValueHeads*c.KeyDim*c.ValueDim),
			key: make([][]float64, c.NumKVHeads), value: make([][]float64, c.NumKVHeads),
		}
	}
	if st.Tensors == nil && st.Len == 0 {
		return s, nil
	}
	var err error
	known := 0
	s.each(c, func(tap trace.Tap, l int, parts [][]float64) {
		known++
		t, want, size := st.Tensors[tap.Name(l)], tap.Shape(c, st.Len), 1
		for _, n := range want {
			size *= n
		}
		if err != nil || !slices.Equal(t.Shape, want) || len(t.Data) != size {
			err = cmp.Or(err, bad(tap.Name(l), fmt.Sprintf("shape %v with %d numbers", t.Shape, len(t.Data)), fmt.Sprintf("shape %v", want)))
			return
		}
		for p, n := 0, size/len(parts); p < len(parts); p++ {
			parts[p] = slices.Grow(parts[p][:0], n)[:n]
			for i := range parts[p] {
				parts[p][i] = float64(t.Data[p*n+i])
			}
		}
	})
	if err == nil && known != len(st.Tensors) {
		err = bad("tensors", fmt.Sprintf("%d of them", len(st.Tensors)), fmt.Sprintf("the %d states of this model", known))
	}
	return s, err
}

// taps hands tensors to a sink, rounded to float32. The first error sticks and stops the run. A nil sink costs nothing.
type taps struct {
	sink      engine.Sink
	seq       int // sequence, as Put names it
	pos, rows int // the tokens of the current call
	layer     int
	err       error
}

func (t *taps) begin(pos, rows int) { t.pos, t.rows = pos, rows }

func (t *taps) wants(tap trace.Tap) bool {
	return t.sink != nil && t.err == nil && t.sink.Wants(tap.Name(t.layer))
}

// put hands over one row of x a token of the current call, or a whole state (one row at position 0).
func (t *taps) put(tap trace.Tap, x []float64) {
	if !t.wants(tap) {
		return
	}
	pos, rows := t.pos, t.rows
	if tap.Cache() {
		pos, rows = 0, 1
	}
	t.err = t.sink.Put(tap.Name(t.layer), t.seq, pos, rows, narrow(x))
}

// states hands over the states at the end.
func (t *taps) states(c *config.Config, s *state) error {
	s.each(c, func(tap trace.Tap, l int, parts [][]float64) {
		if t.layer = l; t.wants(tap) {
			t.put(tap, slices.Concat(parts...))
		}
	})
	return t.err
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

func widenIDs(ids []int32) []float64 {
	x := make([]float64, len(ids))
	for i, id := range ids {
		x[i] = float64(id)
	}
	return x
}
