package main

import (
	"context"
	"fmt"
	"io"

	"sibyl/internal/inputerr"
)

// Trace writes a trace file.
type Trace struct {
	Subject     string   `arg:"" optional:"" name:"SUBJECT" help:"What to run; left out, the demo model."`
	IDs         string   `name:"ids" required:"" placeholder:"IDS" help:"Token ids: 1,2,3 or @FILE."`
	Out         string   `name:"out" short:"o" required:"" placeholder:"FILE" help:"The trace file."`
	Force       bool     `help:"Overwrite an existing file."`
	Taps        []string `placeholder:"GLOB,..." help:"Which tensors, as names with * and ? (default: all; see sibyl taps)."`
	Path        string   `default:"prefill" placeholder:"PATH" help:"How the ids reach the model: prefill, step, or chunk=N tokens a call; with +1 the last token in a call of its own."`
	Delta       string   `default:"recurrent" enum:"recurrent,chunk" help:"The delta rule's form in prefill: recurrent (the definition) or chunk."`
	PositionIDs string   `name:"position-ids" placeholder:"@FILE" help:"Positions for mRoPE: a JSON list [3][T], the T, H and W position of each id."`
	Greedy      int      `default:"0" placeholder:"N" help:"Add the N ids that greedy decoding chooses after the ids, with their margins."`
	State       string   `placeholder:"FILE" help:"Continue from the states at the end of this trace file."`
	Streaming
	JSON
}

// Help is the part of the help below the flags.
func (*Trace) Help() string {
	return `The data_sha256 it prints is that of the tensors' bytes: in exact mode the same for any number of
threads, path and machine. Default parts: @cpu,exact.

With --state the ids continue at the position after that trace's last id. That holds for text; after a
trace with --position-ids the next position is the largest of them plus one, which no state keeps: give
--position-ids for these ids too.

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
	ckpt, err := a.source(ctx, s)
	if err != nil {
		return err
	}
	defer closing(ckpt, &err)
	if v.State != "" {
		if r.state, err = readState(v.State, ckpt.Config()); err != nil {
			return err
		}
	}
	if r.entries, err = a.selectTaps(ctx, s, ckpt.Config(), v.Taps); err != nil {
		return err
	}
	if err := v.Streaming.choose(a, ckpt); err != nil {
		return err
	}
	j := job{tokens: len(r.prompt.IDs), generated: v.Greedy, path: r.path, position: r.prompt.PositionIDs}
	if r.state != nil {
		j.have = r.state.Len
	}
	if err := a.checkJob(ckpt, s, r.prompt.IDs, j); err != nil {
		return err
	}
	if s.onCPU() {
		a.announce(ckpt, "", tracePasses(a, s, len(r.prompt.IDs), v.Greedy)...)
	}
	out, err := v.write(ctx, a, ckpt, s, r)
	if err != nil {
		return err
	}
	return a.Emit(v.JSON.JSON, out, func(w io.Writer) error {
		return table(w, "", [][]string{
			{"file", out.File}, {"subject", out.Subject},
			{"tensors", fmt.Sprintf("%d of %s, %s", out.Tensors, plural(out.Tokens, "token", "tokens"), bytesText(out.Bytes))},
			{"data_sha256", out.DataSHA256},
		})
	})
}
