package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"sibyl/coreai"
	"sibyl/internal/inputerr"
)

// Doctor says whether this machine can run an engine, and a bundle in it.
type Doctor struct {
	What string `arg:"" optional:"" name:"WHAT" help:"coreai (if left out), metal, or a bundle: its first tokens are run."`
	Output
	JSON
}

// Help is the part of the help below the flags.
func (*Doctor) Help() string {
	return `What is there, what is missing, and the one command that installs it. Of a bundle, BUNDLE or
BUNDLE@coreai: whether the runtime loads it, its first tokens by the shipped path and forced, and
its states read and set again. The failures that the runtime is known for are listed with --json.

Of metal: every kernel of sibyl's own against float64 on the GPU (elsewhere than on a Mac: on the CPU
device), its error in units in the last place, the speed of those that decoding waits for. -o writes
one file to attach to an issue.

Exit code 0: it runs. 1: something is missing or fails.

Examples:

  sibyl doctor coreai || echo "not here: exit $?"
  sibyl doctor metal -o doctor.json || true
  sibyl doctor opticks_int8hu@coreai --json || true`
}

// Run is the verb.
func (v *Doctor) Run(ctx context.Context, a *App) error {
	if err := v.Output.check(); err != nil {
		return err
	}
	if v.What == "metal" {
		return v.metal(ctx, a)
	}
	model := ""
	if v.What != "" && v.What != "coreai" {
		s, err := a.subject(v.What)
		if err != nil {
			return err
		}
		if s.Engine != "" && s.Engine != "coreai" || s.Model == "" {
			return &inputerr.Error{File: "doctor", Found: inputerr.Clip(v.What, 80), Want: "coreai, metal, or a bundle: BUNDLE@coreai", Do: "engines without a runtime of somebody else need no doctor"}
		}
		model = s.Model
	}
	r, err := coreai.Doctor(ctx, model)
	if err != nil {
		return err
	}
	if err := v.Output.write(r); err != nil {
		return err
	}
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return printReport(w, r) }); err != nil {
		return err
	}
	if !r.Well() {
		return statusError(exitMismatch)
	}
	return nil
}

func printReport(w io.Writer, r *coreai.Report) error {
	var b strings.Builder
	subject := "coreai"
	if r.Model != "" {
		subject = r.Model + "@coreai"
	}
	verdict := "runs here"
	if !r.Well() {
		verdict = "does not run here"
	}
	fmt.Fprintf(&b, "%s %s\n", subject, verdict)
	if r.Runtime != "" {
		fmt.Fprintf(&b, "%s: %s\n", r.Runtime, r.Note)
	}
	for _, c := range r.Checks {
		mark := "ok"
		if !c.OK {
			mark = "no"
		}
		fmt.Fprintf(&b, "  %s  %s: %s\n", mark, c.Name, c.Found)
		if c.Do != "" {
			fmt.Fprintf(&b, "      %s\n", c.Do)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
