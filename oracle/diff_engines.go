package oracle

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// RunOptions steer DiffEngines.
type RunOptions struct {
	DiffOptions
	// Path says in which calls the tokens reach both engines.
	Path engine.Path
	// Config is the model's, for tensors' full shapes; nil shows them flat. Spool needs it.
	Config *config.Config
	// Entries are the taps to compare; nil means all that both engines show. See trace.Select.
	Entries []trace.Entry
	// Spool is a folder for two temporary trace files, which are removed at the end; "" keeps both runs in memory
	// (trace.Bytes says how much that is, for each).
	Spool string
}

// DiffEngines runs the same prompt on two engines and compares what both can show: taps, else logits, else the ids
// of the argmax. What is not shown is said in the result's notes.
func DiffEngines(ctx context.Context, ref, test engine.Engine, prompt engine.Prompt, opt RunOptions) (*DiffResult, error) {
	shows := ref.Info().Shows & test.Info().Shows
	if !shows.Has(engine.Taps) && !shows.Has(engine.Logits) {
		return diffIDs(ctx, ref, test, prompt, opt)
	}
	taps := shows.Has(engine.Taps)
	a, err := record(ctx, ref, prompt, taps, opt, "ref")
	if err != nil {
		return nil, fmt.Errorf("REF %s: %w", ref.Info().Subject, err)
	}
	defer a.Close()
	b, err := record(ctx, test, prompt, taps, opt, "test")
	if err != nil {
		return nil, fmt.Errorf("TEST %s: %w", test.Info().Subject, err)
	}
	defer b.Close()
	r, err := Diff(ctx, a, b, opt.DiffOptions)
	if err != nil {
		return nil, err
	}
	r.name(ref.Info(), test.Info(), opt.Path)
	r.locate(test)
	if !taps {
		r.Notes = append(r.Notes, notShown(ref.Info(), test.Info(), engine.Taps)+": only logits are compared")
	}
	return r, nil
}

// locate adds to the places where the runs part which operations of TEST make them.
func (r *DiffResult) locate(test engine.Engine) {
	l, ok := test.(engine.Locator)
	for _, p := range []*Place{r.First.Bit, r.First.Unexplained} {
		if ok && p != nil {
			p.MadeBy = l.Locate(p.Name)
		}
	}
}

// name puts the engines' own words into a result.
func (r *DiffResult) name(ref, test engine.Info, path engine.Path) {
	for _, s := range []struct {
		to *DiffSide
		i  engine.Info
	}{{&r.Ref, ref}, {&r.Test, test}} {
		*s.to = DiffSide{Label: s.i.Subject, Contract: s.i.Contract, Scheme: s.i.Scheme, Mode: s.i.Mode, Path: path.String(), Weights: s.i.WeightsSHA256}
	}
}

// notShown names the engines that do not show what.
func notShown(ref, test engine.Info, what engine.Shows) string {
	var who string
	for _, i := range []engine.Info{ref, test} {
		if !i.Shows.Has(what) {
			if who != "" && who != i.Engine {
				who += " and "
			}
			if who != i.Engine {
				who += i.Engine
			}
		}
	}
	return fmt.Sprintf("engine %s does not show %s", who, what)
}

// recording is a Source that may hold a temporary file.
type recording struct {
	trace.Source
	close func()
}

// Close gives the recording's memory or file back.
func (r *recording) Close() { r.close() }

// record runs one engine into memory, or into a temporary trace file.
func record(ctx context.Context, e engine.Engine, prompt engine.Prompt, taps bool, opt RunOptions, role string) (*recording, error) {
	entries := opt.Entries
	if !taps {
		entries = []trace.Entry{{Tap: trace.Logits, Layer: -1, Name: trace.Logits.Name(-1)}}
	}
	if opt.Spool != "" && opt.Config != nil {
		return spool(ctx, e, prompt, taps, entries, opt, role)
	}
	rec := trace.NewRecorder(e.Info().Subject, opt.Config, entries, prompt.IDs)
	if err := runInto(ctx, e, prompt, taps, opt.Path, rec); err != nil {
		return nil, err
	}
	s, err := rec.Sequence(0)
	if err != nil {
		return nil, err
	}
	return &recording{s, func() {}}, nil
}

func spool(ctx context.Context, e engine.Engine, prompt engine.Prompt, taps bool, entries []trace.Entry, opt RunOptions, role string) (*recording, error) {
	dir, err := os.MkdirTemp(opt.Spool, "sibyl-diff-")
	if err != nil {
		return nil, err
	}
	remove := func() { _ = os.RemoveAll(dir) } // a leftover in the temporary folder is the system's to clear
	if entries == nil {
		entries = trace.All(opt.Config)
	}
	path := filepath.Join(dir, role+".trace")
	w, err := trace.Create(path, opt.Config, entries, trace.MetaOf("", e.Info(), opt.Path, prompt.IDs), 0)
	if err == nil {
		if err = runInto(ctx, e, prompt, taps, opt.Path, w); err == nil {
			_, err = w.Commit()
		} else {
			w.Abort()
		}
	}
	if err != nil {
		remove()
		return nil, err
	}
	f, err := trace.Open(path, "")
	if err != nil {
		remove()
		return nil, err
	}
	return &recording{f, func() { _ = f.Close(); remove() }}, nil
}

// runInto runs an engine into a sink: its taps, or the logit rows it calls back with.
func runInto(ctx context.Context, e engine.Engine, prompt engine.Prompt, taps bool, path engine.Path, sink engine.Sink) error {
	want := engine.Want{Path: path, Taps: sink, From: math.MaxInt} // no position is reported: the taps hold them
	each := func(*engine.Position) error { return nil }
	if !taps {
		want.Taps, want.Logits, want.From = nil, true, 0
		each = func(p *engine.Position) error { return sink.Put(trace.Logits.Name(-1), 0, p.Pos, 1, p.Logits) }
	}
	return e.Score(ctx, []engine.Prompt{prompt}, want, each)
}

// diffIDs compares argmax ids, all that one of the engines shows.
func diffIDs(ctx context.Context, ref, test engine.Engine, prompt engine.Prompt, opt RunOptions) (*DiffResult, error) {
	r := &DiffResult{Tokens: len(prompt.IDs), Notes: []string{notShown(ref.Info(), test.Info(), engine.Logits) + ": only ids are compared"},
		OnlyRef: []string{}, OnlyTest: []string{}, Tensors: []TensorStats{}, Layers: []LayerError{}}
	if opt.Tol != nil {
		return nil, &inputerr.Error{File: opt.Tol.File, Found: r.Notes[0], Want: "two engines that show logits or taps", Do: "leave out the tolerances, or compare other engines"}
	}
	r.name(ref.Info(), test.Info(), opt.Path)
	var ids []int32
	prompts, want := []engine.Prompt{prompt}, engine.Want{Path: opt.Path}
	if err := ref.Score(ctx, prompts, want, func(p *engine.Position) error { ids = append(ids, p.ID); return nil }); err != nil {
		return nil, fmt.Errorf("REF %s: %w", ref.Info().Subject, err)
	}
	s := newLogitStats(0)
	s.KLMean, s.TopKOverlap = Number(math.NaN()), Number(math.NaN())
	err := test.Score(ctx, prompts, want, func(p *engine.Position) error {
		if s.Positions >= len(ids) {
			return fmt.Errorf("position %d, REF showed %d", p.Pos, len(ids))
		}
		id := ids[s.Positions]
		tie := false
		for _, t := range p.Ties {
			tie = tie || t == id
		}
		s.top1(s.Positions, int(id), int(p.ID), tie)
		s.Positions++
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("TEST %s: %w", test.Info().Subject, err)
	}
	r.Logits, r.Identical = s, s.Top1Agree == len(ids)
	return r, nil
}
