package coreai

import (
	"context"
	"fmt"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/internal/shown"
)

// Engine is a bundle open in a worker.
type Engine struct {
	w      *worker
	hello  Hello
	opened Opened
	info   engine.Info
	config string  // whose limits: the file that says them
	layout *layout // nil: states are not shown
}

var _ engine.Stater = (*Engine)(nil)

// Info implements engine.Engine.
func (e *Engine) Info() engine.Info { return e.info }

// Close ends the worker. Every later call fails.
func (e *Engine) Close() error { return e.w.close() }

func (e *Engine) rowSize() int { return e.info.VocabSize * dtypeBytes[e.info.LogitsDType] }

func (e *Engine) limits() engine.Limits {
	return engine.Limits{ConfigFile: e.config, VocabSize: e.info.VocabSize, MaxPositions: e.info.MaxPositions}
}

// may gives engine.ErrNotShown for what this worker does not show.
func (e *Engine) may(logits bool, topK int, taps engine.Sink, give *engine.State, take *engine.State) error {
	for _, c := range []struct {
		wanted bool
		shows  engine.Shows
		name   string
	}{
		{logits, engine.Logits, "logits"}, {topK > 0, engine.TopK, "the largest logits"}, {taps != nil, engine.Taps, "tensors of the layers"},
		{give != nil, engine.ReadState, "states"}, {take != nil, engine.TakeState, "a decode from a given state"},
	} {
		if c.wanted && !e.info.Shows.Has(c.shows) {
			return fmt.Errorf("%s on %s shows no %s: %w", e.info.Subject, e.hello.Engine, c.name, engine.ErrNotShown)
		}
	}
	return nil
}

// ready checks a prompt before anything is run.
func (e *Engine) ready(what string, p engine.Prompt, path engine.Path, st *engine.State, generate int) error {
	if e.w.dead != nil {
		return e.w.dead
	}
	have := 0
	if st != nil {
		have = st.Len
	}
	if err := e.limits().Check(what, p, path, have, generate); err != nil {
		return err
	}
	for i, t := range p.PositionIDs {
		if at := int32(have + i); t != [3]int32{at, at, at} {
			return fmt.Errorf("%s: position ids %v of token %d: a bundle's graph counts its positions itself: %w", what, t, i, engine.ErrNotShown)
		}
	}
	return nil
}

// calls cuts n tokens as the path says. A graph that takes one token a call has one path.
func (e *Engine) calls(n int, path engine.Path) []int {
	if e.opened.Call == 1 {
		path = engine.Path{Chunk: 1}
	}
	var out []int
	for i := 0; i < n; {
		end := path.End(i, n)
		out = append(out, end-i)
		i = end
	}
	return out
}

// Score implements engine.Engine, one prompt after the other.
func (e *Engine) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	if err := e.may(want.Logits, want.TopK, want.Taps, want.FinalState, want.State); err != nil {
		return err
	}
	if len(prompts) != 1 && (want.State != nil || want.FinalState != nil) {
		return &inputerr.Error{File: "prompts", Found: fmt.Sprintf("%d of them", len(prompts)), Want: "one, since a state goes in or out", Do: "score the prompts one at a time"}
	}
	for i, p := range prompts {
		if err := e.ready(fmt.Sprintf("prompt %d", i), p, want.Path, want.State, 0); err != nil {
			return err
		}
	}
	for i, p := range prompts {
		give := func(q *engine.Position) error {
			q.Seq = i
			return each(q)
		}
		one := e.score
		if e.opened.Forcing == GrowingPrefix {
			one = e.scorePrefixes
		}
		if err := one(ctx, p, want, give); err != nil {
			return err
		}
	}
	return nil
}

// score forces one prompt through the function, on the growing state.
func (e *Engine) score(ctx context.Context, p engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	s, err := e.begin(ctx, want.State)
	if err != nil {
		return err
	}
	err = s.feed(ctx, p.IDs, e.calls(len(p.IDs), want.Path), want.From, func(pos int, row []float32) error {
		return each(shown.Position(0, pos, row, want.TopK, want.Logits))
	})
	if err == nil && want.FinalState != nil {
		var st *engine.State
		if st, err = s.state(ctx); err == nil {
			*want.FinalState = *st
		}
	}
	return err
}

// scorePrefixes asks for one token after each prefix: the way to force an engine that only generates. It is quadratic
// in the prompt's length.
func (e *Engine) scorePrefixes(ctx context.Context, p engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	for pos := max(0, want.From); pos < len(p.IDs); pos++ {
		s, err := e.begin(ctx, nil)
		if err == nil {
			err = s.generate(ctx, p.IDs[:pos+1], e.calls(pos+1, want.Path), 1, func(t *engine.Token) error { return each(&t.Position) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Generate implements engine.Engine. Greedy decoding of which nothing but ids is wanted takes the shipped path, the
// worker's own loop; everything else is forced a token at a time. Both give the same tokens (the doctor and a test see
// to it). The last token is emitted and not consumed.
func (e *Engine) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	if err := e.may(opt.Logits || opt.Choose != nil, opt.TopK, opt.Taps, opt.FinalState, opt.State); err != nil {
		return err
	}
	n := opt.Tokens()
	if err := e.ready("prompt", prompt, opt.Path, opt.State, n); err != nil {
		return err
	}
	if err := e.limits().CheckIDs("forced ids", opt.Force); err != nil {
		return err
	}
	if opt.Force != nil && e.opened.Forcing == GrowingPrefix {
		return e.forcePrefixes(ctx, prompt, opt, each)
	}
	s, err := e.begin(ctx, opt.State)
	if err != nil {
		return err
	}
	calls := e.calls(len(prompt.IDs), opt.Path)
	if greedy := opt.Force == nil && opt.Choose == nil && !opt.Logits && opt.TopK == 0 && opt.FinalState == nil; greedy {
		return e.shipped(ctx, s, prompt.IDs, calls, n, opt, each)
	}
	return e.probed(ctx, s, prompt.IDs, calls, n, opt, each)
}

// shipped is the worker's own greedy loop.
func (e *Engine) shipped(ctx context.Context, s *session, ids []int32, calls []int, n int, opt engine.Options, each func(*engine.Token) error) error {
	if n == 0 {
		return nil
	}
	err := s.generate(ctx, ids, calls, n, func(t *engine.Token) error {
		if err := opt.CheckChoice(e.info.Subject, &t.Position); err != nil {
			return err
		}
		if err := each(t); err != nil {
			return err
		}
		if slices.Contains(opt.Stop, t.ID) {
			return errStop
		}
		return nil
	})
	if err == errStop {
		return nil
	}
	return err
}

// probed feeds the prompt and then one token a time, with the logits of each at hand.
func (e *Engine) probed(ctx context.Context, s *session, ids []int32, calls []int, n int, opt engine.Options, each func(*engine.Token) error) error {
	var last []float32
	keep := func(_ int, row []float32) error { last = row; return nil }
	if err := s.feed(ctx, ids, calls, s.pos+len(ids)-1, keep); err != nil {
		return err
	}
	for i := range n {
		t := engine.Token{Index: i, Position: *shown.Position(0, s.pos-1, last, opt.TopK, opt.Logits)}
		if err := opt.CheckChoice(e.info.Subject, &t.Position); err != nil {
			return err
		}
		switch t.ID = t.Position.ID; {
		case opt.Force != nil:
			t.ID = opt.Force[i]
		case opt.Choose != nil:
			t.ID = opt.Choose(last)
			if err := e.limits().CheckIDs("chosen id", []int32{t.ID}); err != nil {
				return err
			}
		}
		if err := each(&t); err != nil {
			return err
		}
		if i == n-1 || opt.Force == nil && slices.Contains(opt.Stop, t.ID) {
			break
		}
		if err := s.feed(ctx, []int32{t.ID}, []int{1}, s.pos, keep); err != nil {
			return err
		}
	}
	if opt.FinalState == nil {
		return nil
	}
	st, err := s.state(ctx)
	if err == nil {
		*opt.FinalState = *st
	}
	return err
}

// forcePrefixes is teacher forcing along the decode path for an engine that only generates.
func (e *Engine) forcePrefixes(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	ids := slices.Concat(prompt.IDs, opt.Force[:max(0, len(opt.Force)-1)])
	i := 0
	return e.scorePrefixes(ctx, engine.Prompt{IDs: ids}, engine.Want{From: len(prompt.IDs) - 1, Path: opt.Path}, func(p *engine.Position) error {
		if i == len(opt.Force) {
			return nil // nothing was to be made
		}
		t := engine.Token{Index: i, ID: opt.Force[i], Position: *p}
		i++
		return each(&t)
	})
}

// Prefill implements engine.Stater.
func (e *Engine) Prefill(ctx context.Context, prompt engine.Prompt, path engine.Path) (*engine.State, error) {
	st := new(engine.State)
	return st, e.Score(ctx, []engine.Prompt{prompt}, engine.Want{From: math.MaxInt, Path: path, FinalState: st}, nil)
}

// Step implements engine.Stater. The state is rounded to the bundle's dtypes on its way.
func (e *Engine) Step(ctx context.Context, st *engine.State, id int32, topK int) (p *engine.Position, err error) {
	err = e.Score(ctx, []engine.Prompt{{IDs: []int32{id}}}, engine.Want{TopK: topK, Logits: true, State: st},
		func(q *engine.Position) error { p = q; return nil })
	return p, err
}
