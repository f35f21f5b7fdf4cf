package main

import (
	"context"
	"fmt"
	"io"

	"sibyl/internal/inputerr"
	"sibyl/oracle"
	"sibyl/trace"
)

// Diff shows where two runs of the same ids part. Exit 1 only when a tap exceeds --tol.
type Diff struct {
	A string `arg:"" name:"A" help:"The reference: a trace file, or a SUBJECT that is run."`
	B string `arg:"" optional:"" name:"B" help:"The test, likewise; without a MODEL: the reference's. Left out: the same model @fast."`

	IDs         string   `name:"ids" placeholder:"IDS" help:"Token ids for subjects: 1,2,3 or @FILE (default: the built-in prompt, or the trace file's ids)."`
	PositionIDs string   `name:"position-ids" placeholder:"@FILE" help:"Positions for mRoPE: a JSON list [3][T], the T, H and W position of each id."`
	Taps        []string `placeholder:"GLOB,..." help:"Which tensors, as names with * and ? (default: all that both have)."`
	Path        string   `default:"prefill" placeholder:"PATH" help:"How the ids reach subjects: prefill, step, or chunk=N tokens a call; with +1 the last token in a call of its own."`
	Tol         string   `placeholder:"FILE" help:"Tolerances per tap (YAML); a tap that exceeds them is exit code 1."`
	TopK        int      `default:"5" placeholder:"N" help:"How many of the largest logits are compared as sets."`
	All         bool     `help:"List every tensor and layer, not only the worst of each kind."`
	Golden      string   `placeholder:"NAME" help:"The prompt in a golden file, which holds several: p9, or a reference of it: p9.f64."`
	Streaming
	JSON
	Output
}

// Help is the part of the help below the flags.
func (*Diff) Help() string {
	return `Per tap: largest and rms difference, cosine, SNR, ULPs, and the least tolerance that would pass; for
logits KL and top-k; and the first layer and token where the two part by more than they inherited.

Examples:

  sibyl diff @fp64
  sibyl diff @exact @fast --ids 1,2,3 --taps 'layer*.out',logits
  sibyl trace --ids 1,2,3 -o all.trace
  sibyl trace --ids 1,2,3 --path step -o step.trace
  sibyl diff all.trace step.trace`
}

// side is one side of a diff: a trace file, or a subject and its engine.
type side struct {
	Subject
	file *trace.File
}

// Run is the verb.
func (v *Diff) Run(ctx context.Context, a *App) (err error) {
	opt := oracle.DiffOptions{TopK: v.TopK, Progress: a.Progress("comparing")}
	if v.TopK < 1 {
		return &inputerr.Error{File: "--top-k", Found: fmt.Sprint(v.TopK), Want: "1 or more"}
	}
	if v.Tol != "" {
		if opt.Tol, err = oracle.ReadTolerances(v.Tol); err != nil {
			return err
		}
	}
	if err := v.Output.check(); err != nil {
		return err
	}
	ref, test, err := v.sides(a)
	for _, s := range []side{ref, test} {
		if s.file != nil {
			defer closing(s.file, &err)
		}
	}
	if err != nil {
		return err
	}
	var r *oracle.DiffResult
	switch {
	case ref.file != nil && test.file != nil:
		if v.IDs+v.PositionIDs != "" || len(v.Taps) > 0 {
			return &inputerr.Error{File: "diff", Found: "--ids, --position-ids or --taps with two trace files", Want: "the files alone",
				Do: "what a trace holds was chosen when it was made"}
		}
		r, err = oracle.Diff(ctx, ref.file, test.file, opt)
	default:
		r, err = v.live(ctx, a, ref, test, opt)
	}
	if err != nil {
		return err
	}
	for _, s := range []side{ref, test} {
		if s.file == nil {
			continue
		}
		if err := s.file.Verify(); err != nil { // a damaged file is compared all the same: where it differs is of use
			r.Notes = append(r.Notes, "damaged: "+err.Error())
			a.Stderr.line("warning: damaged: " + err.Error()) // also with --quiet: it concerns the result
		}
	}
	return v.finish(a, r)
}

// sides resolves A and B.
func (v *Diff) sides(a *App) (ref, test side, err error) {
	goldens := v.Golden != "" && regularFile(v.A)
	switch {
	case goldens && v.B == "":
		return ref, test, &inputerr.Error{File: "diff", Found: "one golden file", Want: "something to compare it with"}
	case goldens:
		ref.Trace = v.A
		if regularFile(v.B) {
			test.Trace = v.B
		} else {
			test.Subject, err = a.subject(v.B)
		}
	case v.Golden != "" && regularFile(v.B):
		test.Trace = v.B
		ref.Subject, err = a.subject(v.A)
	default:
		ref.Subject, test.Subject, err = a.pair(v.A, v.B, "@exact", "@fast")
	}
	if err != nil {
		return ref, test, err
	}
	if ref.Trace != "" && v.B == "" {
		return ref, test, &inputerr.Error{File: "diff", Found: "one trace file", Want: "a second trace file, or a SUBJECT to run on its ids"}
	}
	for _, s := range []*side{&ref, &test} {
		if s.Trace == "" {
			continue
		}
		golden := v.Golden
		if trace.IsTrace(s.Trace) {
			golden = "" // our own hold one sequence
		}
		if s.file, err = trace.Open(s.Trace, golden); err != nil {
			return ref, test, err
		}
	}
	if ref.file != nil && test.file == nil && test.Model == ref.Model {
		test.Model, err = modelOfTrace(ref.file) // the second side named no MODEL
	}
	return ref, test, err
}

// finish writes and prints the result.
func (v *Diff) finish(a *App, r *oracle.DiffResult) error {
	if err := v.Output.write(r); err != nil {
		return err
	}
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error {
		return r.Render(w, oracle.DiffView{All: v.All, Unicode: unicodeOutput(a.Stdout.w), Width: terminalWidth(a.Stdout.w)})
	}); err != nil {
		return err
	}
	if code := r.ExitCode(); code != exitOK {
		return statusError(code)
	}
	return nil
}
