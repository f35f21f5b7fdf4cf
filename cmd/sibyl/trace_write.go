package main

import (
	"context"
	"os"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/trace"
)

// runOf is what is run for a trace.
type runOf struct {
	prompt  engine.Prompt
	path    engine.Path
	delta   string
	state   *engine.State
	entries []trace.Entry
}

// write runs the engine into the file.
func (v *Trace) write(ctx context.Context, a *App, ckpt bundle.Source, s Subject, r runOf) (out *traceResult, err error) {
	e, err := a.open(ctx, s, "exact", r.delta)
	if err != nil {
		return nil, err
	}
	defer closing(e, &err)
	meta := trace.MetaOf(version, e.Info(), r.path, r.prompt.IDs)
	meta.Delta, meta.PositionIDs = r.delta, r.prompt.PositionIDs
	if r.state != nil {
		meta.Past = r.state.Len
	}
	if meta.WeightsSHA256 == "" {
		if meta.WeightsSHA256, err = ckpt.WeightsSHA256(ctx, a.Progress("hashing the weights")); err != nil {
			return nil, err
		}
	}
	w, err := trace.Create(v.Out, ckpt.Config(), r.entries, meta, v.Greedy)
	if err != nil {
		return nil, err
	}
	defer w.Abort() // after Commit it does nothing
	shown := a.Progress("tokens")
	want := engine.Want{Path: r.path, Taps: &shifted{w, meta.Past}, State: r.state}
	err = e.Score(ctx, []engine.Prompt{r.prompt}, want, func(p *engine.Position) error {
		shown(int64(p.Pos-meta.Past+1), int64(len(r.prompt.IDs)))
		return nil
	})
	if err == nil && v.Greedy > 0 {
		err = greedy(ctx, e, r, v.Greedy, w)
	}
	if err != nil {
		return nil, err
	}
	if err := checkOutput(v.Out, v.Force); err != nil { // it may have come meanwhile
		return nil, err
	}
	sum, err := w.Commit()
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(v.Out)
	if err != nil {
		return nil, err
	}
	return &traceResult{v.Out, meta.Subject, len(r.prompt.IDs), len(r.entries), info.Size(), sum}, nil
}

// greedy runs the ids once more and records what follows them.
func greedy(ctx context.Context, e engine.Engine, r runOf, n int, w *trace.Writer) error {
	var ids []int32
	var margins []float32
	opt := engine.Options{MaxTokens: n, TopK: 2, Path: r.path, State: r.state}
	err := e.Generate(ctx, r.prompt, opt, func(t *engine.Token) error {
		ids = append(ids, t.ID)
		margins = append(margins, float32(t.LogitGap()))
		return nil
	})
	if err != nil {
		return err
	}
	return w.PutGreedy(ids, margins)
}
