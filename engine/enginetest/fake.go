// Package enginetest holds an engine for tests: its logits are a function of the tokens consumed, so a test says
// exactly what is seen where, and everything else about it is as engine.Engine demands.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
)

// Call says by which door a token reached the engine, so that a script can make its decode path differ.
type Call string

// The doors.
const (
	Score    Call = "score"
	Generate Call = "generate" // prompt and steps of Generate
	Step     Call = "step"     // Stater.Step
)

// At is a position: the tokens consumed so far, the current one last.
type At struct {
	Call   Call
	Seq    int
	Prefix []int32 // including what an incoming state had consumed
}

// Fake is a scripted engine. Row gives the logits, [VocabSize], at a position; Fail, if not nil, an error to
// break off with before the position is shown. It implements Stater and shows what Describes.Shows lists.
type Fake struct {
	Describes engine.Info
	Config    *config.Config // shapes of taps and states
	Row       func(at At) []float64
	Fail      func(at At) error
	Layer     func(l int) // told, if not nil, of each layer that is read while Describes.Streams, and last of the head

	closed bool
}

var _ engine.Stater = (*Fake)(nil)

// All is everything an engine can show.
const All = engine.IDs | engine.TopK | engine.Logits | engine.Taps | engine.ReadState | engine.TakeState

// New is a Fake of TinyConfig that shows everything and is exact; nil for row means Hashed(0).
func New(row func(at At) []float64) *Fake {
	c := TinyConfig()
	if row == nil {
		row = Hashed(0)
	}
	return &Fake{Config: c, Row: row, Describes: engine.Info{
		Engine: "fake", Subject: "tiny@fake", Contract: "hf-fp32", Scheme: "stored", Mode: "exact", Shows: All,
		VocabSize: c.VocabSize, MaxPositions: c.MaxPositions, LogitsDType: "F32", Threads: 1,
		StateDTypes: engine.StateDTypes{Recurrent: "F32", Conv: "F32", KV: "F32"},
	}}
}

// TinyConfig is a dense model of two layers, one of each kind, whose axes all differ.
func TinyConfig() *config.Config {
	return &config.Config{
		File: "tiny/config.json", ModelType: "qwen3_5", HiddenSize: 10, NumLayers: 2, VocabSize: 41, MaxPositions: 96,
		Layers:   []config.LayerKind{config.GatedDeltaNet, config.FullAttention},
		NumHeads: 6, NumKVHeads: 3, HeadDim: 8, RotaryDim: 4, RopeTheta: 1e4, MRopeSection: [3]int{1, 1, 0},
		KeyHeads: 2, ValueHeads: 4, KeyDim: 5, ValueDim: 7, ConvKernel: 4, IntermediateSize: 13, RMSNormEps: 1e-6,
	}
}

// Info implements engine.Engine.
func (f *Fake) Info() engine.Info { return f.Describes }

// Close implements engine.Engine; what is asked afterwards fails.
func (f *Fake) Close() error {
	f.closed = true
	return nil
}

// Score implements engine.Engine.
func (f *Fake) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	if err := f.may(want.TopK, want.Logits, want.Taps, want.State, want.FinalState); err != nil {
		return err
	}
	if len(prompts) != 1 && (want.State != nil || want.FinalState != nil) {
		return f.bad("prompts", fmt.Sprintf("%d with a state", len(prompts)), "one")
	}
	for i, p := range prompts {
		if err := f.check(fmt.Sprintf("prompt %d", i), p, want.Path, want.State, 0); err != nil {
			return err
		}
	}
	f.stream(want.Layer)
	for i, p := range prompts {
		before, err := f.tokens(want.State)
		if err != nil {
			return err
		}
		r := &run{f: f, ctx: ctx, call: Score, seq: i, topK: want.TopK, logits: want.Logits, sink: want.Taps, prefix: before}
		for _, id := range p.IDs {
			pos, err := r.consume(id)
			if err != nil {
				return err
			}
			if pos.Pos < want.From {
				continue
			}
			if err := each(pos); err != nil {
				return err
			}
		}
		if err := r.finish(want.FinalState); err != nil {
			return err
		}
	}
	return nil
}

// stream goes through the layers, each when reach lets it.
func (f *Fake) stream(reach func(l int)) {
	for l := 0; f.Describes.Streams && l <= f.Config.NumLayers; l++ {
		if reach != nil {
			reach(l)
		}
		if f.Layer != nil {
			f.Layer(l)
		}
	}
}

// Generate implements engine.Engine. The last token is shown and not consumed.
func (f *Fake) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	if err := f.may(opt.TopK, opt.Logits || opt.Choose != nil, opt.Taps, opt.State, opt.FinalState); err != nil {
		return err
	}
	n := opt.Tokens()
	if err := f.check("prompt", prompt, opt.Path, opt.State, n); err != nil {
		return err
	}
	if err := f.limits().CheckIDs("forced ids", opt.Force); err != nil {
		return err
	}
	before, err := f.tokens(opt.State)
	if err != nil {
		return err
	}
	r := &run{f: f, ctx: ctx, call: Generate, topK: opt.TopK, logits: opt.Logits || opt.Choose != nil, sink: opt.Taps, prefix: before}
	var pos *engine.Position
	for _, id := range prompt.IDs {
		if pos, err = r.consume(id); err != nil {
			return err
		}
	}
	for i := range n {
		if err := opt.CheckChoice(f.Describes.Subject, pos); err != nil {
			return err
		}
		t := engine.Token{Index: i, ID: pos.ID, Position: *pos}
		switch {
		case opt.Force != nil:
			t.ID = opt.Force[i]
		case opt.Choose != nil:
			t.ID = opt.Choose(pos.Logits)
		}
		if err := each(&t); err != nil {
			return err
		}
		if i == n-1 || opt.Force == nil && slices.Contains(opt.Stop, t.ID) {
			break
		}
		if pos, err = r.consume(t.ID); err != nil {
			return err
		}
	}
	return r.finish(opt.FinalState)
}

// Prefill implements engine.Stater.
func (f *Fake) Prefill(ctx context.Context, prompt engine.Prompt, path engine.Path) (*engine.State, error) {
	s := new(engine.State)
	err := f.Score(ctx, []engine.Prompt{prompt}, engine.Want{Path: path, FinalState: s}, func(*engine.Position) error { return nil })
	return s, err
}

// Step implements engine.Stater.
func (f *Fake) Step(ctx context.Context, state *engine.State, id int32, topK int) (*engine.Position, error) {
	if state == nil {
		return nil, f.bad("state", "none", "one")
	}
	if err := f.may(topK, false, nil, state, nil); err != nil {
		return nil, err
	}
	if err := f.check("token", engine.Prompt{IDs: []int32{id}}, engine.Path{}, state, 0); err != nil {
		return nil, err
	}
	before, err := f.tokens(state)
	if err != nil {
		return nil, err
	}
	return (&run{f: f, ctx: ctx, call: Step, topK: topK, prefix: before}).consume(id)
}

// may gives ErrNotShown for what Shows does not list.
func (f *Fake) may(topK int, logits bool, taps engine.Sink, take, read *engine.State) error {
	if f.closed {
		return errors.New("fake: the engine is closed")
	}
	for _, a := range []struct {
		asked bool
		what  engine.Shows
	}{{topK > 0, engine.TopK}, {logits, engine.Logits}, {taps != nil, engine.Taps}, {take != nil, engine.TakeState}, {read != nil, engine.ReadState}} {
		if a.asked && !f.Describes.Shows.Has(a.what) {
			return fmt.Errorf("fake: %s: %w", a.what, engine.ErrNotShown)
		}
	}
	return nil
}

func (f *Fake) bad(field, found, want string) error {
	return &inputerr.Error{File: "fake", Field: field, Found: found, Want: want, Do: "correct the call"}
}

// check refuses what cannot be run: n tokens are to be generated after the prompt, on top of st.
func (f *Fake) check(what string, p engine.Prompt, path engine.Path, st *engine.State, n int) error {
	have := 0
	if st != nil {
		have = st.Len
	}
	return f.limits().Check(what, p, path, have, n)
}

func (f *Fake) limits() engine.Limits {
	return engine.Limits{ConfigFile: f.Config.File, VocabSize: f.Config.VocabSize, MaxPositions: f.Config.MaxPositions}
}
