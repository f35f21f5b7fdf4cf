// Package replay is the engine "replay": it answers from the evidence in a transcript, so that a run made on another
// machine can stand in a gate as REF or as TEST. It computes nothing. What the transcript does not hold is
// engine.ErrNotShown, with a text that says what it does hold.
package replay

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/oracle"
)

func init() { engine.Register("replay", driver{}) }

type driver struct{}

// Describe implements engine.Driver.
func (driver) Describe() string {
	return "what a transcript holds: ids and the largest logits of a gate made before, anywhere; needs the model's config"
}

// Open implements engine.Driver. spec.File is the transcript; spec.Side says whose view of it to give, and spec.Model
// the model it must have been made of: another one's config is refused.
func (driver) Open(ctx context.Context, spec engine.Spec) (engine.Engine, error) {
	subject := spec.Model + "@replay:" + spec.File
	for _, part := range []struct{ name, found, only string }{
		{"contract", spec.Contract, ""}, {"scheme", spec.Scheme, ""}, {"mode", spec.Mode, ""}, {"delta", spec.Delta, "recurrent"},
	} {
		if part.found != "" && part.found != part.only {
			return nil, &inputerr.Error{File: subject, Field: part.name, Found: inputerr.Clip(part.found, 80),
				Want: "none: it is the one that was recorded", Do: "leave it out"}
		}
	}
	side := oracle.RoleTest
	switch spec.Side {
	case "ref":
		side = oracle.RoleRef
	case "", "test":
	default:
		return nil, &inputerr.Error{File: subject, Field: "side", Found: inputerr.Clip(spec.Side, 40), Want: "ref or test"}
	}
	t, err := oracle.OpenTranscript(spec.File)
	if err != nil {
		return nil, err
	}
	ck, err := bundle.OpenSource(ctx, spec.Model, bundle.BundleOptions{NoVerify: spec.NoVerify, Graph: true})
	if err != nil {
		return nil, err
	}
	defer ck.Close()
	cfg := ck.Config()
	if err := t.CheckEither(ck.Name(), ck.ConfigSHA256(), "", cfg.VocabSize); err != nil {
		return nil, err
	}
	limits := engine.Limits{ConfigFile: cfg.File, VocabSize: cfg.VocabSize, MaxPositions: cfg.MaxPositions}
	return New(t, side, subject, limits)
}

// Engine answers from what one side of a transcript showed.
type Engine struct {
	name   string // the transcript's file, for messages
	info   engine.Info
	limits engine.Limits
	path   *engine.Path // nil: not recorded
	held   []text
	lacks  string // what the whole transcript does not hold, if that is known
	closed bool
}

// text is a sequence of tokens and what was shown after those from number from on.
type text struct {
	decode bool // the tokens after the prompt were consumed one by one; else all along the path
	prompt int  // how many tokens the prompt has
	ids    []int32
	from   int
	seen   []oracle.Seen
}

// New is the engine of one side of t, which was read from a file. limits are the model's.
func New(t *oracle.Transcript, side oracle.Role, subject string, limits engine.Limits) (*Engine, error) {
	e := &Engine{name: t.File(), limits: limits}
	if t.Sibyl != nil {
		e.path = &t.Sibyl.Result.Protocol.Path
	}
	views, ids := t.Views(side)
	for i, v := range views {
		x := text{decode: v.Part == oracle.Rollout, from: v.From, ids: ids[i], seen: v.Seen}
		if v.Part == oracle.StateStep {
			continue // it began from a state, which no caller of replay can give
		}
		x.prompt = len(x.ids)
		if x.decode {
			x.prompt = v.From + 1
		}
		e.held = append(e.held, x)
	}
	e.info = t.Info(side)
	e.info.Engine, e.info.Subject, e.info.Threads, e.info.Fallbacks = "replay", subject, 0, nil
	e.info.VocabSize, e.info.MaxPositions = limits.VocabSize, limits.MaxPositions
	e.info.StateDTypes = engine.StateDTypes{}
	e.info.Shows &= engine.IDs | engine.TopK
	if t.Sibyl == nil {
		e.lacks = "; it is not sibyl's and holds the greedy ids after one prompt alone"
		if side == oracle.RoleTest && len(e.held) == 0 {
			return nil, &inputerr.Error{File: e.name, Field: "engine", Found: "the text the engine wrote and no gen_ids", Want: "its ids: texts are never compared",
				Do: "run the engine again under sibyl gate -o, or use the transcript as REF"}
		}
	}
	for i, x := range e.held {
		if err := limits.CheckIDs(fmt.Sprintf("%s, text %d", e.name, i), x.ids); err != nil {
			return nil, err
		}
		for _, s := range x.seen {
			if err := limits.CheckIDs(fmt.Sprintf("%s, text %d", e.name, i), idsOf(&s)); err != nil {
				return nil, err
			}
		}
	}
	return e, nil
}

func idsOf(s *oracle.Seen) []int32 {
	ids := append([]int32{s.ID}, s.Ties...)
	for _, c := range s.Top {
		ids = append(ids, c.ID)
	}
	return ids
}

// Info implements engine.Engine: contract, scheme, mode, logits and hashes are the recorded engine's.
func (e *Engine) Info() engine.Info { return e.info }

// Close implements engine.Engine. Every later call fails.
func (e *Engine) Close() error {
	e.closed = true
	return nil
}

var errClosed = errors.New("replay: the engine is closed")

// Score implements engine.Engine for texts that are recorded, or begin one that is.
func (e *Engine) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	if e.closed {
		return errClosed
	}
	if err := e.may(want.Logits, want.Taps, want.State, want.FinalState); err != nil {
		return err
	}
	for i, p := range prompts {
		if err := e.limits.Check(fmt.Sprintf("prompt %d", i), p, want.Path, 0, 0); err != nil {
			return err
		}
	}
	found := make([]*text, len(prompts))
	for i, p := range prompts {
		var err error
		if found[i], err = e.find(p, want.Path, false, len(p.IDs), p.IDs, min(want.From, len(p.IDs)-1)); err != nil {
			return err
		}
		if err := e.deep(found[i], want.TopK); err != nil {
			return err
		}
	}
	for i, p := range prompts {
		for pos := max(0, want.From); pos < len(p.IDs); pos++ {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("replay stopped at position %d of prompt %d: %w", pos, i, err)
			}
			q := position(&found[i].seen[pos-found[i].from], want.TopK, e.info.Shows)
			q.Seq, q.Pos = i, pos
			if err := each(q); err != nil {
				return err
			}
		}
	}
	return nil
}

// Generate implements engine.Engine for prompts that are recorded: greedily as far as the record goes, or along the
// ids that were consumed then.
func (e *Engine) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	if e.closed {
		return errClosed
	}
	if err := e.may(opt.Logits || opt.Choose != nil, opt.Taps, opt.State, opt.FinalState); err != nil {
		return err
	}
	n := opt.Tokens()
	if err := e.limits.Check("prompt", prompt, opt.Path, 0, n); err != nil {
		return err
	}
	if err := e.limits.CheckIDs("forced ids", opt.Force); err != nil {
		return err
	}
	ids := slices.Clone(prompt.IDs)
	for i := range n {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("replay stopped after %d tokens: %w", i, err)
		}
		x, err := e.find(prompt, opt.Path, true, len(prompt.IDs), ids, len(ids)-1)
		if err != nil {
			return err
		}
		if err := e.deep(x, opt.TopK); err != nil {
			return err
		}
		p := position(&x.seen[len(ids)-1-x.from], opt.TopK, e.info.Shows)
		p.Pos = len(ids) - 1
		if err := opt.CheckChoice(e.info.Subject, p); err != nil {
			return err
		}
		t := engine.Token{Index: i, ID: p.ID, Position: *p}
		if opt.Force != nil {
			t.ID = opt.Force[i]
		}
		if err := each(&t); err != nil {
			return err
		}
		if opt.Force == nil && slices.Contains(opt.Stop, t.ID) {
			break
		}
		ids = append(ids, t.ID)
	}
	return nil
}

// may gives ErrNotShown for what no transcript holds.
func (e *Engine) may(logits bool, taps engine.Sink, states ...*engine.State) error {
	what := ""
	switch {
	case logits:
		what = "whole rows of logits"
	case taps != nil:
		what = "tensors of the layers"
	case slices.ContainsFunc(states, func(s *engine.State) bool { return s != nil }):
		what = "states"
	default:
		return nil
	}
	return fmt.Errorf("%s holds no %s: %w", e.name, what, engine.ErrNotShown)
}

// find gives the recorded text that begins with ids, was consumed in the same calls, and shows position at.
func (e *Engine) find(p engine.Prompt, path engine.Path, decode bool, prompt int, ids []int32, at int) (*text, error) {
	if p.PositionIDs != nil {
		return nil, fmt.Errorf("%s holds no run with position ids: %w", e.name, engine.ErrNotShown)
	}
	if e.path != nil && path != *e.path {
		return nil, &inputerr.Error{File: e.name, Field: "path", Found: path.String() + ": a prompt split at other call boundaries than the transcript's",
			Want: e.path.String(), Do: "run along the path that was recorded: --path " + e.path.String()}
	}
	longest := -1
	for i := range e.held {
		x := &e.held[i]
		// A prefix of a text was seen in passing only where it was consumed in the same way: the whole prompt of a
		// decode path, and calls that begin at the same tokens.
		if x.decode != decode || decode && x.prompt != prompt || !decode && path.Last && len(x.ids) != len(ids) {
			continue
		}
		if decode && !slices.Equal(x.ids[:prompt], ids[:prompt]) {
			continue
		}
		n := common(x.ids, ids)
		if n == len(ids) && x.from <= at && len(ids)-1-x.from < len(x.seen) {
			return x, nil
		}
		longest = max(longest, min(n, x.from+len(x.seen)))
	}
	what := "teacher forcing over this text"
	if decode {
		what = "decode path after this prompt"
	}
	switch {
	case decode && longest >= prompt:
		what = fmt.Sprintf("more than %d tokens after this prompt along these ids", longest-prompt+1)
	case longest > 0:
		what += fmt.Sprintf(" beyond its first %d tokens", longest)
	}
	return nil, fmt.Errorf("%s holds no %s%s: %w", e.name, what, e.lacks, engine.ErrNotShown)
}

func common(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// deep refuses more candidates than were recorded.
func (e *Engine) deep(x *text, topK int) error {
	if topK == 0 {
		return nil
	}
	if !e.info.Shows.Has(engine.TopK) {
		return fmt.Errorf("%s holds no logits%s: %w", e.name, e.lacks, engine.ErrNotShown)
	}
	for i := range x.seen {
		if have := len(x.seen[i].Top); have < min(topK, e.info.VocabSize) {
			return fmt.Errorf("%s holds the %d largest logits of a position, not %d: %w", e.name, have, topK, engine.ErrNotShown)
		}
	}
	return nil
}

// position is what was shown, as an engine shows it. What was not finite in a row of which only the largest logits are
// kept comes back as an infinite log-sum-exp: a replay must not look better than the run.
func position(s *oracle.Seen, topK int, shows engine.Shows) *engine.Position {
	p := &engine.Position{ID: s.ID, Ties: slices.Clone(s.Ties), LSE: s.LSE}
	if shows.Has(engine.TopK) {
		p.Top = slices.Clone(s.Top[:min(len(s.Top), max(2, topK))])
	}
	if s.Fault != "" && !slices.ContainsFunc(p.Top, func(c engine.Candidate) bool { return math.IsNaN(c.Logit) || math.IsInf(c.Logit, 0) }) {
		p.LSE = math.Inf(1)
	}
	return p
}
