package faults

import (
	"context"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/model"
)

// Score implements engine.Engine.
func (r *restated) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	want.State = r.inner(want.State)
	return r.outer(want.FinalState, r.Engine.Score(ctx, prompts, want, each))
}

// Generate implements engine.Engine.
func (r *restated) Generate(ctx context.Context, p engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	opt.State = r.inner(opt.State)
	return r.outer(opt.FinalState, r.Engine.Generate(ctx, p, opt, each))
}

// Prefill implements engine.Stater.
func (r *restated) Prefill(ctx context.Context, p engine.Prompt, path engine.Path) (*engine.State, error) {
	st, err := r.Engine.Prefill(ctx, p, path)
	return st, r.outer(st, err)
}

// Step implements engine.Stater.
func (r *restated) Step(ctx context.Context, st *engine.State, id int32, topK int) (*engine.Position, error) {
	return r.Engine.Step(ctx, r.inner(st), id, topK)
}

// call is one call of a sequence, as the after hook of a caller sees it.
type call struct {
	index  int                  // 0 for the first of its sequence
	before *engine.State        // what it started from, nil for the empty state
	state  *engine.State        // what it left, to be changed
	taps   map[string][]float32 // the rows of the call
}

// caller drives an engine call by call, with the state in its own hands between them: where drivers make mistakes. It
// runs the sequences of a batch one after the other. With no hook it gives the engine's own bits.
type caller struct {
	*model.Engine
	taps  []string             // wanted by after
	start func() *engine.State // of a new sequence; nil is the empty state
	after func(*call)          // changes the state that a call left
	feed  func(all []int32, from int) []int32
}

// sequence is one sequence being driven.
type sequence struct {
	c     *caller
	seq   int // among the prompts
	index int
	state *engine.State
	ids   []int32 // all ids meant for it so far
	sink  engine.Sink
}

func (c *caller) begin(seq int, state *engine.State, sink engine.Sink) *sequence {
	if state == nil && c.start != nil {
		state = c.start()
	}
	return &sequence{c: c, seq: seq, state: cloneState(state), sink: sink}
}

// run feeds ids as one call; positions below from are not shown.
func (s *sequence) run(ctx context.Context, ids []int32, at [][3]int32, want engine.Want, each func(*engine.Position) error) error {
	had := len(s.ids)
	s.ids = append(s.ids, ids...)
	if s.c.feed != nil {
		ids = s.c.feed(s.ids, had)
	}
	left := &engine.State{}
	tee := &tee{to: s.sink, seq: s.seq, want: s.c.taps, got: map[string][]float32{}}
	want.Path, want.State, want.FinalState, want.Taps = engine.Path{}, s.state, left, tee
	err := s.c.Engine.Score(ctx, []engine.Prompt{{IDs: ids, PositionIDs: at}}, want, func(p *engine.Position) error {
		p.Seq = s.seq
		return each(p)
	})
	if err == nil && s.c.after != nil {
		s.c.after(&call{index: s.index, before: s.state, state: left, taps: tee.got})
	}
	s.state = left
	s.index++
	return err
}

// prompt feeds a prompt in the path's calls.
func (s *sequence) prompt(ctx context.Context, p engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	for lo, hi := 0, 0; lo < len(p.IDs); lo = hi {
		hi = want.Path.End(lo, len(p.IDs))
		var at [][3]int32
		if p.PositionIDs != nil {
			at = p.PositionIDs[lo:hi]
		}
		if err := s.run(ctx, p.IDs[lo:hi], at, want, each); err != nil {
			return err
		}
	}
	return nil
}

// Score implements engine.Engine.
func (c *caller) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	for i, p := range prompts {
		s := c.begin(i, want.State, want.Taps)
		if err := s.prompt(ctx, p, want, each); err != nil {
			return err
		}
		if want.FinalState != nil {
			*want.FinalState = *s.state
		}
	}
	return nil
}

// Generate implements engine.Engine, without position ids.
func (c *caller) Generate(ctx context.Context, p engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	n := opt.Tokens()
	s := c.begin(0, opt.State, opt.Taps)
	var last engine.Position
	keep := func(q *engine.Position) error {
		last = *q
		last.Ties, last.Top, last.Logits = slices.Clone(q.Ties), slices.Clone(q.Top), slices.Clone(q.Logits)
		return nil
	}
	have := 0
	if opt.State != nil {
		have = opt.State.Len
	}
	want := engine.Want{From: have + len(p.IDs) - 1, TopK: opt.TopK, Logits: opt.Logits || opt.Choose != nil, Path: opt.Path}
	if err := s.prompt(ctx, p, want, keep); err != nil {
		return err
	}
	want.From = 0
	for i := range n {
		tok := engine.Token{Index: i, ID: last.ID, Position: last}
		if opt.Force != nil {
			tok.ID = opt.Force[i]
		} else if opt.Choose != nil {
			tok.ID = opt.Choose(last.Logits)
		}
		if err := each(&tok); err != nil {
			return err
		}
		if i == n-1 || opt.Force == nil && slices.Contains(opt.Stop, tok.ID) {
			break
		}
		if err := s.run(ctx, []int32{tok.ID}, nil, want, keep); err != nil {
			return err
		}
	}
	if opt.FinalState != nil {
		*opt.FinalState = *s.state
	}
	return nil
}

// Prefill implements engine.Stater.
func (c *caller) Prefill(ctx context.Context, p engine.Prompt, path engine.Path) (*engine.State, error) {
	st := new(engine.State)
	return st, c.Score(ctx, []engine.Prompt{p}, engine.Want{From: math.MaxInt, Path: path, FinalState: st}, nil)
}

// tee keeps what the hook wants of a call and hands everything on under the sequence's number.
type tee struct {
	to   engine.Sink
	seq  int
	want []string
	got  map[string][]float32
}

// Wants implements engine.Sink.
func (t *tee) Wants(name string) bool {
	return slices.Contains(t.want, name) || t.to != nil && t.to.Wants(name)
}

// Put implements engine.Sink.
func (t *tee) Put(name string, _, pos, rows int, x []float32) error {
	if slices.Contains(t.want, name) {
		t.got[name] = append(t.got[name], x...)
	}
	if t.to != nil && t.to.Wants(name) {
		return t.to.Put(name, t.seq, pos, rows, x)
	}
	return nil
}
