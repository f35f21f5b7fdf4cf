package model

import (
	"context"
	"fmt"
	"slices"

	"sibyl/attention"
	"sibyl/config"
	"sibyl/engine"
	"sibyl/gdn"
	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/trace"
)

// State is one sequence's state in all layers; GDN[l] or KV[l] is nil by the layer's kind.
type State struct {
	Len  int   // tokens consumed
	next int32 // rope position of the next text token: Len, unless a prompt came with positions of its own
	GDN  []*gdn.State
	KV   []*attention.Cache
}

// NewState is the state before the first token.
func (d *Decoder) NewState() *State {
	s := d.noState()
	for l := range d.Layers {
		d.begin(s, l)
	}
	return s
}

// noState is NewState before any layer of it has begun.
func (d *Decoder) noState() *State {
	return &State{GDN: make([]*gdn.State, len(d.Layers)), KV: make([]*attention.Cache, len(d.Layers))}
}

// has says whether layer l's part is there.
func (s *State) has(l int) bool { return s.GDN[l] != nil || s.KV[l] != nil }

// begin makes layer l's part of s, if it is not there.
func (d *Decoder) begin(s *State, l int) {
	switch g := d.Layers[l].GDN; {
	case g != nil && s.GDN[l] == nil:
		s.GDN[l] = g.NewState()
	case g == nil && s.KV[l] == nil:
		s.KV[l] = attention.NewCache(d.Layers[l].Attention.Contract.KV)
	}
}

// cacheTaps are the states of layer l.
func (d *Decoder) cacheTaps(l int) []trace.Tap {
	if d.Layers[l].GDN != nil {
		return []trace.Tap{trace.CacheConvState, trace.CacheRecurrentState}
	}
	return []trace.Tap{trace.CacheKey, trace.CacheValue}
}

func gdnStates(states []*State, l int) []*gdn.State {
	out := make([]*gdn.State, len(states))
	for i, s := range states {
		out[i] = s.GDN[l]
	}
	return out
}

func caches(states []*State, l int) []*attention.Cache {
	out := make([]*attention.Cache, len(states))
	for i, s := range states {
		out[i] = s.KV[l]
	}
	return out
}

// Export gives the state by the cache names of the taps.
func (d *Decoder) Export(s *State) *engine.State {
	out := &engine.State{Len: s.Len, Tensors: map[string]engine.StateTensor{}}
	for l := range d.Layers {
		d.exportLayer(out, s, l)
	}
	return out
}

// exportLayer adds layer l of s to out.
func (d *Decoder) exportLayer(out *engine.State, s *State, l int) {
	c := d.Config
	put := func(tap trace.Tap, shape []int, x []float32) {
		out.Tensors[tap.Name(l)] = engine.StateTensor{Shape: shape, Data: x}
	}
	if c.Layers[l] == config.GatedDeltaNet {
		put(trace.CacheConvState, []int{c.QKVDim(), c.ConvKernel}, d.Layers[l].GDN.ConvColumns(s.GDN[l]))
		put(trace.CacheRecurrentState, []int{c.ValueHeads, c.KeyDim, c.ValueDim}, append([]float32(nil), s.GDN[l].S...))
		return
	}
	shape := []int{c.NumKVHeads, s.Len, c.HeadDim}
	put(trace.CacheKey, shape, d.Layers[l].Attention.HeadMajor(&s.KV[l].K, s.Len))
	put(trace.CacheValue, shape, d.Layers[l].Attention.HeadMajor(&s.KV[l].V, s.Len))
}

// Import makes a state of what Export gives, rounded to the contract's state types. Every tensor must be there.
func (d *Decoder) Import(in *engine.State) (*State, error) {
	s := d.NewState()
	s.Len, s.next = in.Len, int32(in.Len)
	get := func(tap trace.Tap, l int, want int) ([]float32, error) {
		t, shape := in.Tensors[tap.Name(l)], tap.Shape(d.Config, in.Len)
		if len(t.Data) != want || !slices.Equal(t.Shape, shape) {
			return nil, &inputerr.Error{File: "state", Field: tap.Name(l), Found: fmt.Sprintf("%d numbers of shape %v", len(t.Data), t.Shape),
				Want: fmt.Sprintf("%d of shape %v", want, shape), Do: "give a state of this model, whole"}
		}
		return append([]float32(nil), t.Data...), nil
	}
	c := d.Config
	for l, kind := range c.Layers {
		if kind == config.GatedDeltaNet {
			m := d.Layers[l].GDN
			cols, err := get(trace.CacheConvState, l, c.QKVDim()*c.ConvKernel)
			if err != nil {
				return nil, err
			}
			if err := m.SetConvColumns(s.GDN[l], cols); err != nil {
				return nil, err
			}
			if s.GDN[l].S, err = get(trace.CacheRecurrentState, l, c.ValueHeads*c.KeyDim*c.ValueDim); err != nil {
				return nil, err
			}
			m.Contract.Conv.Slice(s.GDN[l].Conv)
			m.Contract.State.Slice(s.GDN[l].S)
			continue
		}
		m, n := d.Layers[l].Attention, c.KVWidth()*in.Len
		k, err := get(trace.CacheKey, l, n)
		if err != nil {
			return nil, err
		}
		v, err := get(trace.CacheValue, l, n)
		if err != nil {
			return nil, err
		}
		if s.KV[l], err = m.FromHeadMajor(k, v, in.Len, m.Contract.KV); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Session decodes: sequences with their states, fed in calls.
type Session struct {
	d      *Decoder
	call   Call
	first  int // index of the first sequence among all prompts, for taps
	States []*State

	layerDone func(l int) // told after each layer of a call; may be nil
}

// NewSession starts one sequence a state.
func (d *Decoder) NewSession(states []*State, pool *kernels.Pool, arith *kernels.Arith, sink engine.Sink) *Session {
	s := &Session{d: d, States: states}
	s.call.Pool, s.call.Arith, s.call.Sink = pool, arith, sink
	return s
}

// Feed is new tokens for one of the session's sequences.
type Feed struct {
	Seq       int
	IDs       []int32
	Positions [][3]int32 // rope positions of IDs; nil means text
	More      bool       // the caller's call goes on in the next feed of this sequence
}

// positions gives the rope positions of a feed and moves next past them; nil means Len, Len+1, ...
func (s *State) positions(f Feed) [][3]int32 {
	if f.Positions != nil {
		for _, p := range f.Positions {
			s.next = max(s.next, p[0]+1, p[1]+1, p[2]+1)
		}
		return f.Positions
	}
	start := s.next
	s.next += int32(len(f.IDs))
	if int(start) == s.Len {
		return nil
	}
	out := make([][3]int32, len(f.IDs))
	for i := range out {
		p := start + int32(i)
		out[i] = [3]int32{p, p, p}
	}
	return out
}

// prepare makes the feeds the session's call and gives their ids, the rows in the order of the feeds.
func (s *Session) prepare(feeds []Feed) (ids []int32) {
	b := &s.call.Batch
	b.Seqs, b.Rows, s.call.States, s.call.tables = nil, 0, nil, nil
	for _, f := range feeds {
		st := s.States[f.Seq]
		b.Seqs = append(b.Seqs, ragged.Seq{Index: s.first + f.Seq, Row: b.Rows, Len: len(f.IDs), Pos: st.Len,
			Positions: st.positions(f), More: f.More})
		s.call.States = append(s.call.States, st)
		ids = append(ids, f.IDs...)
		b.Rows += len(f.IDs)
	}
	return ids
}

// Run feeds tokens in one pass and gives the residual stream [rows, H], rows in the order of the feeds.
func (s *Session) Run(ctx context.Context, feeds []Feed) ([]float32, error) {
	return s.d.Forward(ctx, s.prepare(feeds), &s.call, s.layerDone)
}
