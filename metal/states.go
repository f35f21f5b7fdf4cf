package metal

import (
	"fmt"
	"slices"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/precision"
	"sibyl/trace"
)

// states are those of a batch's sequences, on the device: sequence i has slot i.
type states struct {
	d      *decoder
	slots  int
	room   int // tokens that the caches hold
	layers []layerState
}

// layerState is one layer's, of all slots: the first two of a GatedDeltaNet layer, the others of an attention layer.
type layerState struct {
	conv      stored // [slots, C, K] float32, values on the contract's grid
	recurrent stored // [slots, nv, dv, dk]: the transpose of the tap's
	key       stored // [slots, kv, room, hd]
	value     stored
}

// newStates makes empty states with room for so many tokens.
func (d *decoder) newStates(slots, room int) (*states, error) {
	s := &states{d: d, slots: slots, layers: make([]layerState, len(d.layers))}
	c := d.cfg
	for l := range d.layers {
		w, st := &d.layers[l], &s.layers[l]
		if w.gdn == nil {
			st.key.typ, st.value.typ = w.attn.c.KV, w.attn.c.KV
			continue
		}
		st.recurrent.typ = w.gdn.c.State
		if err := s.make(&st.conv, slots*c.QKVDim()*c.ConvKernel); err != nil {
			return nil, s.refused(err)
		}
		if err := s.make(&st.recurrent, slots*c.ValueHeads*c.ValueDim*c.KeyDim); err != nil {
			return nil, s.refused(err)
		}
	}
	if err := s.grow(room); err != nil {
		return nil, s.refused(err)
	}
	return s, nil
}

// refused gives back what was made before there was no more.
func (s *states) refused(err error) error {
	s.release()
	return err
}

// make gives t memory of n values; where there is none t stays as it is.
func (s *states) make(t *stored, n int) error {
	b, err := s.d.mem.buffer(n * t.size())
	if err == nil {
		t.Slice = b
	}
	return err
}

// grow gives the caches room for at least n tokens, keeping what they hold.
func (s *states) grow(n int) error {
	if n <= s.room {
		return nil
	}
	c := s.d.cfg
	n = min(max(n, 2*s.room), max(n, c.MaxPositions))
	for l := range s.layers {
		if s.d.layers[l].attn == nil {
			continue
		}
		for _, t := range []*stored{&s.layers[l].key, &s.layers[l].value} {
			old := *t
			if err := s.make(t, s.slots*c.NumKVHeads*n*c.HeadDim); err != nil {
				return err
			}
			from, to := s.room*c.HeadDim*t.size(), n*c.HeadDim*t.size()
			for h := range s.slots * c.NumKVHeads * min(1, s.room) {
				copy(t.Buffer.Bytes()[h*to:], old.Buffer.Bytes()[h*from:][:from])
			}
			s.d.mem.release(&old.Slice)
		}
	}
	s.room = n
	return nil
}

func (s *states) release() {
	for l := range s.layers {
		for _, t := range []*stored{&s.layers[l].conv, &s.layers[l].recurrent, &s.layers[l].key, &s.layers[l].value} {
			s.d.mem.release(&t.Slice)
		}
	}
}

// cacheTaps are the states of a layer.
func cacheTaps(kind config.LayerKind) [2]trace.Tap {
	if kind == config.GatedDeltaNet {
		return [2]trace.Tap{trace.CacheConvState, trace.CacheRecurrentState}
	}
	return [2]trace.Tap{trace.CacheKey, trace.CacheValue}
}

// cells calls f for every number of a state of a slot, at its place in the tap and on the device.
func (s *states) cells(tap trace.Tap, l, slot, tokens int, f func(t stored, tap, device int)) {
	c, st := s.d.cfg, &s.layers[l]
	switch tap {
	case trace.CacheConvState:
		n := c.QKVDim() * c.ConvKernel
		for i := range n {
			f(st.conv, i, slot*n+i)
		}
	case trace.CacheRecurrentState:
		for h := range c.ValueHeads {
			for k := range c.KeyDim {
				for v := range c.ValueDim {
					f(st.recurrent, (h*c.KeyDim+k)*c.ValueDim+v, ((slot*c.ValueHeads+h)*c.ValueDim+v)*c.KeyDim+k)
				}
			}
		}
	default:
		t := st.key
		if tap == trace.CacheValue {
			t = st.value
		}
		for h := range c.NumKVHeads {
			for i := range tokens * c.HeadDim {
				f(t, h*tokens*c.HeadDim+i, (slot*c.NumKVHeads+h)*s.room*c.HeadDim+i)
			}
		}
	}
}

// tensor reads one state.
func (s *states) tensor(tap trace.Tap, l, slot, tokens int) engine.StateTensor {
	shape := tap.Shape(s.d.cfg, tokens)
	n := 1
	for _, d := range shape {
		n *= d
	}
	x := make([]float32, n)
	s.cells(tap, l, slot, tokens, func(t stored, at, device int) { x[at] = t.get(device) })
	return engine.StateTensor{Shape: shape, Data: x}
}

// export reads a slot's state by the cache names of the taps.
func (s *states) export(slot, tokens int) *engine.State {
	out := &engine.State{Len: tokens, Tensors: map[string]engine.StateTensor{}}
	for l, kind := range s.d.cfg.Layers {
		for _, tap := range cacheTaps(kind) {
			out.Tensors[tap.Name(l)] = s.tensor(tap, l, slot, tokens)
		}
	}
	return out
}

// load sets slot 0 from a state, rounded to the contract's state types. Every tensor must be there.
func (s *states) load(in *engine.State) error {
	for l, kind := range s.d.cfg.Layers {
		for _, tap := range cacheTaps(kind) {
			t, shape := in.Tensors[tap.Name(l)], tap.Shape(s.d.cfg, in.Len)
			want := 1
			for _, d := range shape {
				want *= d
			}
			if !slices.Equal(t.Shape, shape) || len(t.Data) != want {
				return &inputerr.Error{File: "state", Field: tap.Name(l), Found: fmt.Sprintf("%d numbers of shape %v", len(t.Data), t.Shape),
					Want: fmt.Sprintf("%d of shape %v", want, shape), Do: "give a state of this model, whole"}
			}
			round := precision.F32
			if tap == trace.CacheConvState {
				round = s.d.layers[l].gdn.c.Conv
			}
			s.cells(tap, l, 0, in.Len, func(t2 stored, at, device int) { t2.put(device, round.Value(t.Data[at])) })
		}
	}
	return nil
}
