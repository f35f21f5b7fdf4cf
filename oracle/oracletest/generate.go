package oracletest

import (
	"errors"
	"fmt"
	"slices"

	"sibyl/engine"
)

// steps is how many tokens the rollouts of the suite make.
const steps = 6

// tokenIDs are the ids that were consumed.
func tokenIDs(tokens []engine.Token) []int32 {
	out := make([]int32, len(tokens))
	for i, t := range tokens {
		out[i] = t.ID
	}
	return out
}

func positionsOf(tokens []engine.Token) []engine.Position {
	out := make([]engine.Position, len(tokens))
	for i, t := range tokens {
		out[i] = t.Position
	}
	return out
}

// ordered demands tokens 0..n-1 at the positions after the prompt.
func (s *suite) ordered(what string, tokens []engine.Token, prompt []int32, n int) {
	s.Helper()
	if len(tokens) != n {
		s.Fatalf("%s: %d tokens, want %d", what, len(tokens), n)
	}
	for i, t := range tokens {
		if t.Index != i || t.Pos != len(prompt)-1+i {
			s.Errorf("%s: token %d came as index %d, position %d, want position %d", what, i, t.Index, t.Pos, len(prompt)-1+i)
		}
	}
}

// scored is teacher forcing over what a rollout consumed, from the position that chose its first token.
func (s *suite) scored(prompt, ids []int32) []engine.Position {
	w := s.want()
	w.From = len(prompt) - 1
	return s.score(w, slices.Concat(prompt, ids[:len(ids)-1]))[0]
}

// greedy: the rollout chooses its argmax, makes MaxTokens tokens, and teacher forcing over its ids shows the same.
func (s *suite) greedy() {
	for _, prompt := range s.fx.Prompts {
		o := s.options()
		o.MaxTokens = steps
		tokens := s.generate(o, prompt)
		s.ordered("greedy", tokens, prompt, steps)
		for i, t := range tokens {
			if t.ID != t.Position.ID {
				s.Errorf("token %d is %d, the argmax %d", i, t.ID, t.Position.ID)
			}
		}
		s.sequence("rollout and teacher forcing", s.bound(), positionsOf(tokens), s.scored(prompt, tokenIDs(tokens)))
	}
	o := s.options()
	if got := s.generate(o, s.fx.Prompts[1]); len(got) != 0 {
		s.Errorf("MaxTokens 0 made %d tokens", len(got))
	}
}

// force: the ids given are consumed, whatever is chosen, and MaxTokens is ignored.
func (s *suite) force() {
	prompt := s.fx.Prompts[1]
	forced := make([]int32, steps)
	for i := range forced {
		forced[i] = int32((7*i + 3) % s.info.VocabSize)
	}
	o := s.options()
	o.Force, o.MaxTokens = forced, 1
	tokens := s.generate(o, prompt)
	s.ordered("forced", tokens, prompt, steps)
	if !slices.Equal(tokenIDs(tokens), forced) {
		s.Errorf("consumed %v, want %v", tokenIDs(tokens), forced)
	}
	s.sequence("forced rollout and teacher forcing", s.bound(), positionsOf(tokens), s.scored(prompt, forced))
}

// stop: the stop id is emitted, and is the last.
func (s *suite) stop() {
	prompt := s.fx.Prompts[0]
	o := s.options()
	o.MaxTokens = steps
	ids := tokenIDs(s.generate(o, prompt))
	want := ids[:slices.Index(ids, ids[2])+1]
	o.Stop = []int32{ids[2]}
	if got := tokenIDs(s.generate(o, prompt)); !slices.Equal(got, want) {
		s.Errorf("stopping at %d gave %v, want %v", ids[2], got, want)
	}
}

// choose: the id picked from the row is consumed.
func (s *suite) choose() {
	prompt := s.fx.Prompts[1]
	o := s.options()
	o.MaxTokens = steps
	var picked []int32
	o.Choose = func(logits []float32) int32 {
		if len(logits) != s.info.VocabSize {
			s.Errorf("%d logits to choose from, want %d", len(logits), s.info.VocabSize)
		}
		least := 0
		for i, l := range logits {
			if l < logits[least] {
				least = i
			}
		}
		picked = append(picked, int32(least))
		return int32(least)
	}
	tokens := s.generate(o, prompt)
	s.ordered("chosen", tokens, prompt, steps)
	if !slices.Equal(tokenIDs(tokens), picked) {
		s.Fatalf("consumed %v, chosen were %v", tokenIDs(tokens), picked)
	}
	s.sequence("chosen rollout and teacher forcing", s.bound(), positionsOf(tokens), s.scored(prompt, picked))
}

// generatePaths: how the prompt is consumed does not change the rollout, unless calls matter and are other ones.
func (s *suite) generatePaths() {
	prompt := s.fx.Prompts[0]
	o := s.options()
	o.MaxTokens, o.Path = steps, engine.Path{}
	whole := s.generate(o, prompt)
	o.Force = tokenIDs(whole) // a near tie must not lead two paths apart
	for _, path := range pathsOf[1:] {
		if !s.sameCalls(path, engine.Path{}, len(prompt)) {
			continue
		}
		o.Path = path
		s.sequence(fmt.Sprintf("rollout after prefill and after %s", path), s.bound(), positionsOf(whole), positionsOf(s.generate(o, prompt)))
	}
}

// together: prompts that go on in the same steps show what each shows alone, bit by bit, each in its order; what is wrong with one
// of them is said of it.
func (s *suite) together() {
	b, ok := s.e.(engine.Batcher)
	if !ok {
		return
	}
	o := s.options()
	var all []engine.Continuation
	for k := range 2 {
		for i, prompt := range s.fx.Prompts {
			c := engine.Continuation{Prompt: engine.Prompt{IDs: prompt}, MaxTokens: 1 + (i+2*k)%steps}
			if (i+k)%2 == 1 {
				c.Force = []int32{int32(i), int32(7 % s.info.VocabSize), 3}
			}
			all = append(all, c)
		}
	}
	alone := make([][]engine.Token, len(all))
	for i, c := range all {
		p := o
		p.MaxTokens, p.Force = c.MaxTokens, c.Force
		if alone[i] = s.generate(p, c.Prompt.IDs); c.Force == nil && len(alone[i]) > 2 && o.Stop == nil {
			o.Stop = []int32{alone[i][1].ID} // this one ends sooner; those before it are of one token or forced
			p.Stop = o.Stop
			alone[i] = s.generate(p, c.Prompt.IDs)
		}
	}
	got := make([][]engine.Token, len(all))
	err := b.GenerateAll(s.Context(), all, o, func(t *engine.Token) error {
		if t.Seq < 0 || t.Seq >= len(all) {
			return fmt.Errorf("a token of prompt %d of %d", t.Seq, len(all))
		}
		u := *t
		u.Position = kept(&t.Position)
		got[t.Seq] = append(got[t.Seq], u)
		return nil
	})
	if err != nil {
		s.Fatalf("GenerateAll(%d prompts): %v", len(all), err)
	}
	for i, c := range all {
		s.ordered(fmt.Sprintf("prompt %d of %d together", i, len(all)), got[i], c.Prompt.IDs, len(alone[i]))
		for k := range alone[i] {
			alone[i][k].Seq = i
		}
		if !slices.Equal(tokenIDs(got[i]), tokenIDs(alone[i])) {
			s.Errorf("prompt %d together consumed %v, alone %v", i, tokenIDs(got[i]), tokenIDs(alone[i]))
			continue
		}
		s.sequence("together and alone", 0, positionsOf(got[i]), positionsOf(alone[i]))
	}
	all[1].Prompt.IDs = []int32{int32(s.info.VocabSize)}
	err = b.GenerateAll(s.Context(), all, o, func(*engine.Token) error { return nil })
	if one, ok := errors.AsType[*engine.PromptError](err); !ok || one.Seq != 1 {
		s.Errorf("an id outside of the vocabulary: %v, want an error of prompt 1", err)
	}
}
