package plain64

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

const (
	// callLimit is the most tokens that go through the layers at once. A prefill of any length is cut into such
	// calls on the growing state, which bounds its memory and changes results by float64's rounding alone.
	callLimit = 512
	// logitsLimit bounds the logits held at once (128 MiB).
	logitsLimit = 1 << 24
)

func init() { engine.Register("fp64", driver{}) }

type driver struct{}

// Describe implements engine.Driver.
func (driver) Describe() string {
	return "the model once more in plain float64, sharing no arithmetic with cpu: the oracle's error bar; needs nothing, takes time"
}

// Open implements engine.Driver. The engine has one arithmetic: a contract, scheme, mode or chunk form is refused.
func (driver) Open(_ context.Context, spec engine.Spec) (engine.Engine, error) {
	for _, part := range []struct{ name, found, only string }{
		{"contract", spec.Contract, ""}, {"scheme", spec.Scheme, ""}, {"mode", spec.Mode, ""}, {"delta", spec.Delta, "recurrent"},
	} {
		if part.found != "" && part.found != part.only {
			return nil, &inputerr.Error{File: spec.Model + "@fp64", Field: part.name, Found: inputerr.Clip(part.found, 80),
				Want: "none: fp64 is float64 throughout, recurrent, with weights as stored", Do: "leave it out, or use engine cpu"}
		}
	}
	ck, err := bundle.Open(spec.Model)
	if err != nil {
		return nil, err
	}
	e, err := New(ck, spec.Model)
	if err != nil {
		ck.Close()
		return nil, err
	}
	return e, nil
}

// Engine runs a checkpoint in float64. It shows everything and reads and takes states; a state outside it
// (engine.State) is float32, so a step from one carries that rounding. Logits in a Position are rounded to
// float32, while ids, ties, candidates and LSE are taken from the float64 row. gonum uses GOMAXPROCS threads
// whatever Spec.Threads says; their number does not change results.
type Engine struct {
	d    *decoder
	ck   *bundle.Checkpoint
	info engine.Info
}

var _ engine.Stater = (*Engine)(nil)

// New binds the weights of ck, which the engine owns from then on; model is how the user named it. Errors are of
// type inputerr.Error: a tensor that is missing or of an unknown type.
func New(ck *bundle.Checkpoint, model string) (*Engine, error) {
	d, err := load(ck)
	if err != nil {
		return nil, err
	}
	return &Engine{d: d, ck: ck, info: engine.Info{
		Engine: "fp64", Subject: model + "@fp64", Contract: "float64", Scheme: "stored",
		Shows:     engine.IDs | engine.TopK | engine.Logits | engine.Taps | engine.ReadState | engine.TakeState,
		VocabSize: d.cfg.VocabSize, MaxPositions: d.cfg.MaxPositions, LogitsDType: "F64",
		StateDTypes:  engine.StateDTypes{Recurrent: "F64", Conv: "F64", KV: "F64"},
		ConfigSHA256: ck.ConfigSHA256(), Threads: runtime.GOMAXPROCS(0),
	}}, nil
}

// Info implements engine.Engine.
func (e *Engine) Info() engine.Info { return e.info }

// Close unmaps the checkpoint. Every later call fails.
func (e *Engine) Close() error {
	if e.d == nil {
		return nil
	}
	e.d = nil
	return e.ck.Close()
}

// Score implements engine.Engine, one prompt after the other. Positions are counted from the start of the sequence:
// after a State of length n the first is n.
func (e *Engine) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) (err error) {
	defer bundle.Unchanged(&err, e.ck.Check)
	defer bundle.Catch(&err)()
	if len(prompts) != 1 && (want.State != nil || want.FinalState != nil) {
		return &inputerr.Error{File: "prompts", Found: fmt.Sprintf("%d of them", len(prompts)), Want: "one, since a state goes in or out",
			Do: "score the prompts one at a time"}
	}
	for i, p := range prompts { // all of them before the first is run
		if err := e.check(fmt.Sprintf("prompt %d", i), p, want.Path, want.State, 0); err != nil {
			return err
		}
	}
	for i, p := range prompts {
		s, err := newState(e.d.cfg, want.State)
		if err != nil {
			return err
		}
		t := &taps{sink: want.Taps, seq: i}
		err = e.feed(ctx, p, want.Path, s, t, want.From, func(pos int, logits []float64) error {
			return each(position(i, pos, logits, want.TopK, want.Logits))
		})
		if err != nil {
			return err
		}
		if err := e.finish(s, t, want.FinalState); err != nil {
			return err
		}
	}
	return nil
}

// Generate implements engine.Engine. The last token is emitted and not consumed: the state at the end is the one that
// chose it. After a prompt with PositionIDs, generated tokens count on from the largest position seen, as
// transformers' rope deltas do.
func (e *Engine) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) (err error) {
	defer bundle.Unchanged(&err, e.ck.Check)
	defer bundle.Catch(&err)()
	n := opt.Tokens()
	if err := e.check("prompt", prompt, opt.Path, opt.State, n); err != nil {
		return err
	}
	if err := e.limits().CheckIDs("forced ids", opt.Force); err != nil {
		return err
	}
	s, err := newState(e.d.cfg, opt.State)
	if err != nil {
		return err
	}
	t := &taps{sink: opt.Taps}
	var logits []float64 // of the last position
	keep := func(_ int, row []float64) error { logits = row; return nil }
	err = e.feed(ctx, prompt, opt.Path, s, t, s.n+len(prompt.IDs)-1, keep)
	for i := 0; i < n && err == nil; i++ {
		tok := engine.Token{Index: i, Position: *position(0, s.n-1, logits, opt.TopK, opt.Logits)}
		if err = opt.CheckChoice(e.info.Subject, &tok.Position); err != nil {
			break
		}
		if tok.ID, err = e.choose(&tok, logits, opt); err != nil {
			break
		}
		if err = each(&tok); err != nil || i == n-1 || opt.Force == nil && slices.Contains(opt.Stop, tok.ID) {
			break
		}
		err = e.feed(ctx, engine.Prompt{IDs: []int32{tok.ID}}, opt.Path, s, t, s.n, keep)
	}
	if err != nil {
		return err
	}
	return e.finish(s, t, opt.FinalState)
}

// choose gives the id that is consumed next.
func (e *Engine) choose(tok *engine.Token, logits []float64, opt engine.Options) (int32, error) {
	if opt.Force != nil {
		return opt.Force[tok.Index], nil
	}
	if opt.Choose == nil {
		return tok.Position.ID, nil
	}
	id := opt.Choose(narrow(logits))
	return id, e.limits().CheckIDs("chosen id", []int32{id})
}

// Prefill implements engine.Stater.
func (e *Engine) Prefill(ctx context.Context, prompt engine.Prompt, path engine.Path) (*engine.State, error) {
	st := new(engine.State)
	return st, e.Score(ctx, []engine.Prompt{prompt}, engine.Want{From: math.MaxInt, Path: path, FinalState: st}, nil)
}

// Step implements engine.Stater. The token's position is the state's length.
func (e *Engine) Step(ctx context.Context, st *engine.State, id int32, topK int) (p *engine.Position, err error) {
	err = e.Score(ctx, []engine.Prompt{{IDs: []int32{id}}}, engine.Want{TopK: topK, Logits: true, State: st},
		func(shown *engine.Position) error { p = shown; return nil })
	return p, err
}

// feed runs the prompt on s in calls of path's size and shows the logits of every position from from on.
func (e *Engine) feed(ctx context.Context, p engine.Prompt, path engine.Path, s *state, t *taps, from int, show func(pos int, logits []float64) error) error {
	d, V, H := e.d, e.d.cfg.VocabSize, e.d.cfg.HiddenSize
	positions := p.PositionIDs
	for i := 0; positions == nil || len(positions) < len(p.IDs); i++ {
		positions = append(positions, [3]int32{s.next + int32(i), s.next + int32(i), s.next + int32(i)})
	}
	for at, n := 0, 0; at < len(p.IDs); at += n {
		n = min(callLimit, path.End(at, len(p.IDs))-at)
		first := s.n
		hidden, err := d.forward(ctx, p.IDs[at:at+n], positions[at:at+n], s, t)
		if err != nil {
			return err
		}
		lo := max(0, min(n, from-first))
		t.layer = -1
		if t.wants(trace.Logits) {
			lo = 0
		}
		for rows := max(1, logitsLimit/V); lo < n; lo += rows {
			m := min(rows, n-lo)
			logits := d.head.mul(hidden[lo*H : (lo+m)*H])
			if err := d.stopped(ctx, len(d.layers), s); err != nil {
				return err
			}
			t.begin(first+lo, m)
			t.put(trace.Logits, logits)
			for r := 0; r < m && t.err == nil; r++ {
				if pos := first + lo + r; pos >= from {
					if err := show(pos, logits[r*V:(r+1)*V]); err != nil {
						return err
					}
				}
			}
		}
		if t.err != nil {
			return t.err
		}
	}
	return nil
}

// finish hands over the state at the end, to the taps and to the caller.
func (e *Engine) finish(s *state, t *taps, final *engine.State) error {
	if final != nil {
		*final = *s.export(e.d.cfg)
	}
	return t.states(e.d.cfg, s)
}

// position describes one row of logits. A NaN counts as the maximum; it ties with nothing.
func position(seq, pos int, logits []float64, topK int, rows bool) *engine.Position {
	p := &engine.Position{Seq: seq, Pos: pos, LSE: logSumExp(logits)}
	for _, i := range largest(logits, min(len(logits), max(2, topK))) {
		p.Top = append(p.Top, engine.Candidate{ID: int32(i), Logit: logits[i]})
	}
	p.ID, p.Ties = p.Top[0].ID, []int32{p.Top[0].ID}
	for i := int(p.ID) + 1; i < len(logits); i++ {
		if logits[i] == logits[p.ID] {
			p.Ties = append(p.Ties, int32(i))
		}
	}
	if rows {
		p.Logits = narrow(logits)
	}
	return p
}

func (e *Engine) limits() engine.Limits {
	return engine.Limits{ConfigFile: e.d.cfg.File, VocabSize: e.d.cfg.VocabSize, MaxPositions: e.d.cfg.MaxPositions}
}

// check refuses what cannot be run: generate more tokens are asked for after the prompt, on top of the state st.
func (e *Engine) check(what string, p engine.Prompt, path engine.Path, st *engine.State, generate int) error {
	if e.d == nil {
		return errors.New("fp64: the engine is closed")
	}
	have := 0
	if st != nil {
		have = st.Len
	}
	return e.limits().Check(what, p, path, have, generate)
}
