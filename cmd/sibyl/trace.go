package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// Trace writes a trace file.
type Trace struct {
	Subject     string   `arg:"" optional:"" name:"SUBJECT" help:"What to run; left out, the demo model."`
	IDs         string   `name:"ids" required:"" placeholder:"IDS" help:"Token ids: 1,2,3 or @FILE."`
	Out         string   `name:"out" short:"o" required:"" placeholder:"FILE" help:"The trace file."`
	Force       bool     `help:"Overwrite an existing file."`
	Taps        []string `placeholder:"GLOB,..." help:"Which tensors, as names with * and ? (default: all; see sibyl taps)."`
	Path        string   `default:"prefill" placeholder:"PATH" help:"How the ids reach the model: prefill, step, or chunk=N tokens a call."`
	Delta       string   `default:"recurrent" enum:"recurrent,chunk" help:"The delta rule's form in prefill: recurrent (the definition) or chunk."`
	PositionIDs string   `name:"position-ids" placeholder:"@FILE" help:"Positions for mRoPE: a JSON list [3][T], the T, H and W position of each id."`
	Greedy      int      `default:"0" placeholder:"N" help:"Add the N ids that greedy decoding chooses after the ids, with their margins."`
	State       string   `placeholder:"FILE" help:"Continue from the states at the end of this trace file."`
	JSON
}

// Help is the part of the help below the flags.
func (*Trace) Help() string {
	return `The data_sha256 it prints is that of the tensors' bytes: in exact mode the same for any number of
threads, path and machine. Default parts: @cpu,exact.

Examples:

  sibyl trace --ids 1,2,3 -o all.trace
  sibyl trace @fp64 --ids 1,2,3 --taps logits,'layer*.out' -o fp64.trace
  sibyl trace --ids 1,2,3 --path step -o step.trace
  sibyl tokenize --json "The rays of light" > ids.json
  sibyl trace --ids @ids.json --greedy 16 -o long.trace`
}

// traceResult is what --json prints.
type traceResult struct {
	File       string `json:"file"`
	Subject    string `json:"subject"`
	Tokens     int    `json:"tokens"`
	Tensors    int    `json:"tensors"`
	Bytes      int64  `json:"bytes"`
	DataSHA256 string `json:"data_sha256"`
}

// Run is the verb.
func (v *Trace) Run(ctx context.Context, a *App) (err error) {
	s, err := a.subject(v.Subject)
	if err != nil {
		return err
	}
	r := runOf{delta: v.Delta}
	if r.prompt.IDs, err = a.ParseIDs(ctx, "--ids", v.IDs); err != nil {
		return err
	}
	if v.PositionIDs != "" {
		if r.prompt.PositionIDs, err = a.positionIDs(ctx, v.PositionIDs, len(r.prompt.IDs)); err != nil {
			return err
		}
	}
	if r.path, err = parsePath(v.Path); err != nil {
		return err
	}
	if v.Greedy < 0 {
		return &inputerr.Error{File: "--greedy", Found: fmt.Sprint(v.Greedy), Want: "a count of tokens"}
	}
	if err := checkOutput(v.Out, v.Force); err != nil {
		return err
	}
	ckpt, err := bundle.Open(s.Model)
	if err != nil {
		return err
	}
	defer closing(ckpt, &err)
	if v.State != "" {
		if r.state, err = readState(v.State, ckpt.Config()); err != nil {
			return err
		}
	}
	if r.entries, err = trace.Select(ckpt.Config(), v.Taps); err != nil {
		return err
	}
	j := job{tokens: len(r.prompt.IDs), generated: v.Greedy, path: r.path, position: r.prompt.PositionIDs}
	if r.state != nil {
		j.have = r.state.Len
	}
	if err := a.checkJob(ckpt, s, r.prompt.IDs, j); err != nil {
		return err
	}
	out, err := v.write(ctx, a, ckpt, s, r)
	if err != nil {
		return err
	}
	return a.Emit(v.JSON.JSON, out, func(w io.Writer) error {
		return table(w, "", [][]string{
			{"file", out.File}, {"subject", out.Subject},
			{"tensors", fmt.Sprintf("%d of %d tokens, %s", out.Tensors, out.Tokens, bytesText(out.Bytes))},
			{"data_sha256", out.DataSHA256},
		})
	})
}

// runOf is what is run for a trace.
type runOf struct {
	prompt  engine.Prompt
	path    engine.Path
	delta   string
	state   *engine.State
	entries []trace.Entry
}

// write runs the engine into the file.
func (v *Trace) write(ctx context.Context, a *App, ckpt *bundle.Checkpoint, s Subject, r runOf) (out *traceResult, err error) {
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
