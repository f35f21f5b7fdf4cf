package oracletest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sibyl/engine"
)

// cancel: a context that has ended runs nothing; one that ends on the way ends the run at the next call.
func (s *suite) cancel() {
	ended, cancel := context.WithCancel(s.Context())
	cancel()
	calls := 0
	count := func(*engine.Position) error { calls++; return nil }
	countTokens := func(*engine.Token) error { calls++; return nil }
	if err := s.e.Score(ended, asPrompts(s.fx.Prompts...), engine.Want{}, count); !errors.Is(err, context.Canceled) || calls > 0 {
		s.Errorf("Score under a context that has ended = %v after %d positions", err, calls)
	}
	if err := s.e.Generate(ended, engine.Prompt{IDs: s.fx.Prompts[0]}, engine.Options{MaxTokens: 3}, countTokens); !errors.Is(err, context.Canceled) || calls > 0 {
		s.Errorf("Generate under a context that has ended = %v after %d tokens", err, calls)
	}

	ctx, stop := context.WithCancel(s.Context())
	defer stop()
	w := engine.Want{Path: engine.Path{Chunk: 1}} // each token is a call
	if err := s.e.Score(ctx, asPrompts(s.fx.Prompts[0]), w, func(*engine.Position) error { calls++; stop(); return nil }); !errors.Is(err, context.Canceled) || calls > 1 {
		s.Errorf("Score, stepping, cancelled at its first position = %v after %d positions", err, calls)
	}
	ctx, stop = context.WithCancel(s.Context())
	defer stop()
	calls = 0
	if err := s.e.Generate(ctx, engine.Prompt{IDs: s.fx.Prompts[0]}, engine.Options{MaxTokens: 5}, func(*engine.Token) error { calls++; stop(); return nil }); !errors.Is(err, context.Canceled) || calls > 1 {
		s.Errorf("Generate cancelled at its first token = %v after %d tokens", err, calls)
	}
}

// callbackError: the callback's first error ends the run and is returned.
func (s *suite) callbackError() {
	enough := errors.New("enough")
	calls := 0
	fail := func() error {
		if calls++; calls == 2 {
			return enough
		}
		return nil
	}
	if err := s.e.Score(s.Context(), asPrompts(s.fx.Prompts...), engine.Want{}, func(*engine.Position) error { return fail() }); !errors.Is(err, enough) || calls != 2 {
		s.Errorf("Score with a callback that fails at its second position = %v after %d", err, calls)
	}
	calls = 0
	if err := s.e.Generate(s.Context(), engine.Prompt{IDs: s.fx.Prompts[0]}, engine.Options{MaxTokens: 5}, func(*engine.Token) error { return fail() }); !errors.Is(err, enough) || calls != 2 {
		s.Errorf("Generate with a callback that fails at its second token = %v after %d", err, calls)
	}
}

// refused: bad input is an input error before anything is run, never a panic. The callback breaks off whatever
// is run all the same.
func (s *suite) refused() {
	ran := errors.New("it was run")
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	defer cancel()
	score := func(w engine.Want, p ...engine.Prompt) func() error {
		return func() error {
			return s.e.Score(ctx, p, w, func(*engine.Position) error { return ran })
		}
	}
	generate := func(p engine.Prompt, o engine.Options) func() error {
		return func() error {
			return s.e.Generate(ctx, p, o, func(*engine.Token) error { return ran })
		}
	}
	v := int32(s.info.VocabSize)
	good := engine.Prompt{IDs: []int32{1, 2, 3}}
	long := engine.Prompt{IDs: make([]int32, s.info.MaxPositions+1)}
	for _, c := range []struct {
		what string
		f    func() error
	}{
		{"an empty prompt", score(engine.Want{}, engine.Prompt{})},
		{"an empty prompt after a good one", score(engine.Want{}, good, engine.Prompt{})},
		{"an id of the vocabulary's size", score(engine.Want{}, engine.Prompt{IDs: []int32{1, v}})},
		{"a negative id", score(engine.Want{}, engine.Prompt{IDs: []int32{-1}})},
		{"the least id", score(engine.Want{}, good, engine.Prompt{IDs: []int32{math.MinInt32}})},
		{"more tokens than positions", score(engine.Want{}, long)},
		{"a negative chunk", score(engine.Want{Path: engine.Path{Chunk: -1}}, good)},
		{"fewer position ids than tokens", score(engine.Want{}, engine.Prompt{IDs: good.IDs, PositionIDs: [][3]int32{{0, 0, 0}}})},
		{"an empty prompt to generate from", generate(engine.Prompt{}, engine.Options{MaxTokens: 1})},
		{"an id outside to generate from", generate(engine.Prompt{IDs: []int32{v}}, engine.Options{MaxTokens: 1})},
		{"a forced id outside", generate(good, engine.Options{Force: []int32{1, v}})},
		{"more tokens to make than positions", generate(good, engine.Options{MaxTokens: s.info.MaxPositions})},
		{"no end of tokens to make", generate(good, engine.Options{MaxTokens: math.MaxInt})},
	} {
		s.refuses(c.what, c.f)
	}
}

// notShown: what Shows does not list is ErrNotShown when asked for.
func (s *suite) notShown() {
	shows, one := s.info.Shows, asPrompts([]int32{1})
	var state engine.State
	for _, c := range []struct {
		what  engine.Shows
		score engine.Want
		gen   engine.Options
	}{
		{engine.TopK, engine.Want{TopK: 2}, engine.Options{TopK: 2}},
		{engine.Logits, engine.Want{Logits: true}, engine.Options{Logits: true}},
		{engine.Taps, engine.Want{Taps: &picky{}}, engine.Options{Taps: &picky{}}},
		{engine.ReadState, engine.Want{FinalState: &state}, engine.Options{FinalState: &state}},
		{engine.TakeState, engine.Want{State: &state}, engine.Options{State: &state}},
	} {
		if shows.Has(c.what) {
			continue
		}
		c.gen.MaxTokens = 1
		for name, f := range map[string]func() error{
			"Score": func() error { return s.e.Score(s.Context(), one, c.score, func(*engine.Position) error { return nil }) },
			"Generate": func() error {
				return s.e.Generate(s.Context(), one[0], c.gen, func(*engine.Token) error { return nil })
			},
		} {
			if err := calm(s.TB, name, f); !errors.Is(err, engine.ErrNotShown) {
				s.Errorf("%s asked for %s = %v, want ErrNotShown", name, c.what, err)
			}
		}
	}
	st, ok := s.e.(engine.Stater)
	if !ok {
		return
	}
	if !shows.Has(engine.ReadState) {
		if _, err := st.Prefill(s.Context(), one[0], engine.Path{}); !errors.Is(err, engine.ErrNotShown) {
			s.Errorf("Prefill = %v, want ErrNotShown", err)
		}
	}
	if !shows.Has(engine.TakeState) {
		if _, err := st.Step(s.Context(), &state, 1, 0); !errors.Is(err, engine.ErrNotShown) {
			s.Errorf("Step = %v, want ErrNotShown", err)
		}
	}
}

// leastMargin is the margin below which a golden's id may differ by the tie rule.
const leastMargin = 1e-4

// golden: logits within their bound; greedy ids those of the original, re-anchored on them so that every step is judged.
func (s *suite) golden() {
	if len(s.fx.Golden) == 0 {
		s.Log("the fixture has no goldens")
		return
	}
	for _, g := range s.fx.Golden {
		if g.Logits != nil && s.info.Shows.Has(engine.Logits) {
			worst := 0.0
			for i, p := range s.score(s.want(), g.IDs)[0] {
				for id, l := range g.Logits[i*s.info.VocabSize:][:s.info.VocabSize] {
					if d := math.Abs(float64(l) - float64(p.Logits[id])); !(d <= worst) {
						worst = d
					}
				}
			}
			s.Logf("%s: largest difference of a logit %.3g, bound %.3g", g.Name, worst, g.Bound)
			if !(worst <= g.Bound) {
				s.Errorf("%s: largest difference of a logit %.3g, want at most %.3g", g.Name, worst, g.Bound)
			}
		}
		if g.Greedy == nil {
			continue
		}
		o := s.options()
		o.Force = g.Greedy
		sure := true
		for i, t := range s.generate(o, g.IDs) {
			margin := math.Inf(1)
			if g.Margins != nil {
				margin = float64(g.Margins[i])
			}
			sure = sure && margin >= leastMargin
			switch {
			case t.Position.ID == g.Greedy[i]:
			case margin < leastMargin:
				s.Logf("%s: token %d is %d, the golden's %d at a margin of %.2g: ties %v", g.Name, i, t.Position.ID, g.Greedy[i], margin, t.Ties)
			default:
				s.Errorf("%s: token %d is %d, want %d (margin %.3g)", g.Name, i, t.Position.ID, g.Greedy[i], margin)
			}
		}
		o.Force, o.MaxTokens = nil, len(g.Greedy)
		if got := tokenIDs(s.generate(o, g.IDs)); sure && !slices.Equal(got, g.Greedy) {
			s.Errorf("%s: greedy %v, want %v", g.Name, got, g.Greedy)
		}
	}
}

// close: closing twice is harmless; what is asked afterwards is an error, not a panic.
func (s *suite) close() {
	for i := range 2 {
		if err := s.e.Close(); err != nil {
			s.Errorf("Close number %d = %v", i+1, err)
		}
	}
	for name, f := range map[string]func() error{
		"Score": func() error {
			return s.e.Score(s.Context(), asPrompts([]int32{1}), engine.Want{}, func(*engine.Position) error { return nil })
		},
		"Generate": func() error {
			return s.e.Generate(s.Context(), engine.Prompt{IDs: []int32{1}}, engine.Options{MaxTokens: 1}, func(*engine.Token) error { return nil })
		},
		"Info": func() error { return fmt.Errorf("%s", s.e.Info().Engine) },
	} {
		if calm(s.TB, name, f) == nil {
			s.Errorf("%s after Close gives no error", name)
		}
	}
}
