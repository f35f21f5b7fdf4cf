package oracletest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

func (s *suite) stater() engine.Stater {
	s.Helper()
	st, ok := s.e.(engine.Stater)
	if !ok {
		s.Fatalf("Shows is %q, but the engine (%T) is no Stater", s.info.Shows, s.e)
	}
	return st
}

func (s *suite) prefill(ids []int32) *engine.State {
	s.Helper()
	st, err := s.stater().Prefill(s.Context(), engine.Prompt{IDs: ids}, s.path())
	if err != nil {
		s.Fatalf("Prefill(%d tokens): %v", len(ids), err)
	}
	return st
}

func cloneState(st *engine.State) *engine.State {
	out := &engine.State{Len: st.Len, Tensors: map[string]engine.StateTensor{}}
	for name, t := range st.Tensors {
		out.Tensors[name] = engine.StateTensor{Shape: slices.Clone(t.Shape), Data: slices.Clone(t.Data)}
	}
	return out
}

// sameState compares two states tensor by tensor.
func (s *suite) sameState(what string, bound float64, a, b *engine.State) {
	s.Helper()
	if a.Len != b.Len || !slices.Equal(slices.Sorted(maps.Keys(a.Tensors)), slices.Sorted(maps.Keys(b.Tensors))) {
		s.Errorf("%s: %d tokens in %d tensors, and %d in %d", what, a.Len, len(a.Tensors), b.Len, len(b.Tensors))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(a.Tensors)) {
		s.rows(what+", "+name, bound, a.Tensors[name].Data, b.Tensors[name].Data)
	}
}

// stateStep: a prefill cut anywhere and one step from its state shows what one pass shows, in this engine and in
// another of its kind, and the state is not changed by it.
func (s *suite) stateStep() {
	ids := s.fx.Prompts[0]
	whole := s.score(s.want(), ids)[0]
	other := s.open(s.TB)
	defer other.Close()
	for _, cut := range []int{1, 2, 3, 4, 5, len(ids) - 1} {
		st := s.prefill(ids[:cut])
		before := cloneState(st)
		for _, e := range []engine.Engine{s.e, other} {
			p, err := e.(engine.Stater).Step(s.Context(), st, ids[cut], s.want().TopK)
			if err != nil {
				s.Fatalf("Step after %d tokens: %v", cut, err)
			}
			s.same("one pass and a step from a state", s.stateBound(), &whole[cut], p)
		}
		s.sameState(fmt.Sprintf("the state after %d tokens, before and after a step", cut), 0, before, st)
	}
}

// stateContinue: Score and Generate go on from a state as if it had been one pass, and leave it unchanged; the
// states they give at the end are those of one pass.
func (s *suite) stateContinue() {
	ids := s.fx.Prompts[0]
	cut := len(ids) / 2
	st := s.prefill(ids[:cut])
	before := cloneState(st)

	w := s.want()
	var end engine.State
	w.FinalState = &end
	whole := s.score(w, ids)[0]
	s.sameState("FinalState of Score and Prefill", s.bound(), &end, s.prefill(ids))

	var end2 engine.State
	w.State, w.FinalState = st, &end2
	s.sequence("one pass and two", s.stateBound(), whole[cut:], s.score(w, ids[cut:])[0])
	s.sameState("the states after one pass and two", s.stateBound(), &end, &end2)

	o := s.options()
	o.MaxTokens = 3
	one := s.generate(o, ids)
	var end3 engine.State
	o.State, o.FinalState, o.Force = st, &end3, tokenIDs(one)
	s.sequence("a rollout after one pass and two", s.stateBound(), positionsOf(one), positionsOf(s.generate(o, ids[cut:])))
	s.sameState("a state that was continued from, before and after", 0, before, st)
	// The last token is emitted and not consumed.
	s.sameState("the state after a rollout and after its tokens", s.stateBound(), &end3, s.prefill(slices.Concat(ids, tokenIDs(one)[:2])))
}

// stateShapes: a state has every cache tensor of the model under its name, in its shape, and nothing else.
func (s *suite) stateShapes() {
	for _, n := range []int{1, 3, 6} {
		st := s.prefill(s.fx.Prompts[0][:n])
		if st.Len != n {
			s.Errorf("after %d tokens Len is %d", n, st.Len)
		}
		found := 0
		for _, e := range trace.All(s.fx.Config) {
			if !e.Tap.Cache() {
				continue
			}
			found++
			t, ok := st.Tensors[e.Name]
			want := e.Shape(s.fx.Config, n)
			if !ok || !slices.Equal(t.Shape, want) || len(t.Data) != volume(want) {
				s.Errorf("after %d tokens %s is %v with %d values, want %v", n, e.Name, t.Shape, len(t.Data), want)
			}
		}
		if found != len(st.Tensors) {
			s.Errorf("after %d tokens there are %d tensors, want %d", n, len(st.Tensors), found)
		}
	}
}

func volume(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// stateRefused: a state that is not of this model is an input error, never a panic.
func (s *suite) stateRefused() {
	good := s.prefill(s.fx.Prompts[0][:4])
	name := slices.Sorted(maps.Keys(good.Tensors))[0]
	for what, spoil := range map[string]func(*engine.State){
		"a tensor is missing":             func(st *engine.State) { delete(st.Tensors, name) },
		"no tensor at all":                func(st *engine.State) { st.Tensors = nil },
		"a tensor is cut":                 func(st *engine.State) { t := st.Tensors[name]; t.Data = t.Data[1:]; st.Tensors[name] = t },
		"a shape disagrees with its data": func(st *engine.State) { t := st.Tensors[name]; t.Shape = []int{1, 2, 3}; st.Tensors[name] = t },
		"Len disagrees with the caches":   func(st *engine.State) { st.Len = 3 },
		"Len is negative":                 func(st *engine.State) { st.Len = -1 },
		"Len is beyond the model":         func(st *engine.State) { st.Len = 1 << 60 },
	} {
		st := cloneState(good)
		spoil(st)
		s.refuses(what, func() error {
			_, err := s.stater().Step(s.Context(), st, 1, 0)
			return err
		})
		s.refuses(what+", in Score", func() error {
			return s.e.Score(s.Context(), asPrompts([]int32{1}), engine.Want{State: st}, func(*engine.Position) error { return nil })
		})
	}
	s.refuses("one state for two prompts", func() error {
		return s.e.Score(s.Context(), asPrompts([]int32{1}, []int32{2}), engine.Want{State: good}, func(*engine.Position) error { return nil })
	})
}

// refuses demands an input error and no panic.
func (s *suite) refuses(what string, f func() error) {
	s.Helper()
	err := calm(s.TB, what, f)
	if _, ok := errors.AsType[*inputerr.Error](err); !ok {
		s.Errorf("%s: %v, want an input error", what, err)
	}
}

// calm turns a panic of f into a failure.
func calm(t testing.TB, what string, f func() error) (err error) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%s: panic: %v", what, r)
		}
	}()
	return f()
}
