package faults

import (
	"maps"
	"slices"

	"sibyl/engine"
	"sibyl/model"
	"sibyl/precision"
	"sibyl/trace"
)

const shareOfState = "the state lies between the right and the wrong"

var stateFaults = []*Fault{
	{
		Name: "conv-state-post-silu", Part: GDN, Partial: shareOfChannels,
		Mistake: "conv state of the post-silu values",
		around: func(s *subject, e *model.Engine, layers []int, strength float32) engine.Engine {
			var taps []string
			for _, l := range layers {
				taps = append(taps, trace.GDNConvOut.Name(l))
			}
			K := s.d.Config.ConvKernel
			return &caller{Engine: e, taps: taps, after: func(c *call) {
				for _, l := range layers {
					rows, state := c.taps[trace.GDNConvOut.Name(l)], c.state.Tensors[trace.CacheConvState.Name(l)].Data
					C := len(state) / K
					n := len(rows) / C
					for j := range min(n, K) { // the newest column is K-1, of the last row
						for ch := range C {
							if chosen(ch, strength) {
								state[ch*K+K-1-j] = rows[(n-1-j)*C+ch]
							}
						}
					}
				}
			}}
		},
	},
	{
		Name: "stale-at-reset", Part: GDN, Partial: shareOfState,
		Mistake: "stale state at a reset",
		around: func(s *subject, e *model.Engine, layers []int, strength float32) engine.Engine {
			var last *engine.State // of the sequence before
			return &caller{Engine: e, start: func() *engine.State {
				if last == nil {
					return nil
				}
				st := s.d.Export(s.d.NewState())
				for _, name := range recurrentNames(layers) {
					mix(st.Tensors[name].Data, last.Tensors[name].Data, strength)
				}
				return st
			}, after: func(c *call) { last = c.state }}
		},
	},
	{
		Name: "stale-at-continue", Part: GDN, Partial: shareOfState,
		Mistake: "stale state at a continued prefill: the second call starts from what the first started from",
		around: func(s *subject, e *model.Engine, layers []int, strength float32) engine.Engine {
			return &caller{Engine: e, after: func(c *call) {
				if c.index > 0 {
					return
				}
				before := c.before
				if before == nil {
					before = s.d.Export(s.d.NewState())
				}
				for _, name := range recurrentNames(layers) {
					mix(c.state.Tensors[name].Data, before.Tensors[name].Data, strength)
				}
			}}
		},
	},
	{
		Name: "state-fp16", Part: GDN,
		Mistake: "recurrent state in fp16 where it should not be",
		Why:     "it is a rounding, and the one that coreai-fp16 is defined to have",
		layer:   stateIn(precision.F16),
	},
	{
		Name: "state-fp32", Part: GDN,
		Mistake: "recurrent state in fp32 where it should be fp16",
		Why:     "it is one rounding fewer, which is a recorded variant (coreai-eager-s32) of the expected conversion",
		layer:   stateIn(precision.F32),
	},
	{
		Name: "state-bf16", Part: GDN,
		Mistake: "recurrent state in a type too narrow: bf16",
		layer:   stateIn(precision.BF16),
	},
}

func stateIn(r precision.Round) func(*subject, int, float32) error {
	return func(s *subject, l int, _ float32) error {
		s.contract(l).State = r
		return nil
	}
}

// recurrentNames are the states of layers that a reset must clear: the KV cache's are hidden by its length.
func recurrentNames(layers []int) (names []string) {
	for _, l := range layers {
		names = append(names, trace.CacheConvState.Name(l), trace.CacheRecurrentState.Name(l))
	}
	return names
}

func mix(x, wrong []float32, s float32) {
	for i := range x {
		x[i] = blend(x[i], wrong[i], s)
	}
}

// restated is an engine whose states are laid out otherwise inside.
type restated struct {
	*model.Engine
	in, out func(*engine.State)
}

func cloneState(s *engine.State) *engine.State {
	if s == nil {
		return nil
	}
	c := &engine.State{Len: s.Len, Tensors: maps.Clone(s.Tensors)}
	for name, t := range c.Tensors {
		t.Data = slices.Clone(t.Data)
		c.Tensors[name] = t
	}
	return c
}

func (r *restated) inner(s *engine.State) *engine.State {
	c := cloneState(s)
	if c != nil {
		r.in(c)
	}
	return c
}

func (r *restated) outer(s *engine.State, err error) error {
	if s != nil && err == nil {
		r.out(s)
	}
	return err
}
