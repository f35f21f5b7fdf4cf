package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/oracle"
)

// Gate judges TEST by REF.
type Gate struct {
	Ref  string `arg:"" optional:"" name:"REF" help:"The reference SUBJECT."`
	Test string `arg:"" optional:"" name:"TEST" help:"What is judged. Without a MODEL: the reference's."`

	Prompt       []string `sep:"none" placeholder:"TEXT" help:"A prompt; may be given again."`
	Prompts      string   `placeholder:"FILE" help:"Prompts: one text a line, or JSONL with \"text\" or \"ids\"."`
	IDs          []string `name:"ids" sep:"none" placeholder:"IDS" help:"A prompt as token ids: 1,2,3 or @FILE; may be given again."`
	MaxTokens    int      `default:"32" placeholder:"N" help:"Tokens the reference generates after each prompt."`
	Margin       float64  `default:"0.1" placeholder:"X" help:"Positions where the reference's margin is below X are reported, not judged."`
	MarginUnit   string   `default:"logit_gap" enum:"logit_gap,prob_gap" help:"What the margin is: logit_gap or prob_gap."`
	MinQualified float64  `default:"0.5" placeholder:"X" help:"Share of positions that must be judged, or the result is inconclusive."`
	StrictPrompt bool     `help:"Every margin must qualify."`
	Accept       []string `placeholder:"CAUSE,..." help:"Flips with this cause become notes: quant, rounding."`
	Path         string   `default:"prefill" placeholder:"PATH" help:"How texts reach the models: prefill, step, or chunk=N tokens a call."`
	Noise        bool     `default:"true" negatable:"" help:"Measure the reference's own fp32-to-fp64 noise beside it (on by default)."`
	JSON
	Output
}

// Help is the part of the help below the flags.
func (*Gate) Help() string {
	return `Without subjects: REF @fp64, TEST @fast, on the demo model. One checkpoint: the same two on it. A lone
subject that starts with @ is TEST of the demo model. Prompts left out: the built-in set.

Exit code 0: SHIP. 1: DO NOT SHIP. 3: inconclusive, or an engine is not available.

Examples:

  sibyl gate
  sibyl gate @exact --max-tokens 8
  sibyl gate --prompt "The rays of light" --margin 0.05 --json`
}

// The sides that are left out, until contracts and schemes are there: the plain float64 engine judges the fast one.
const gateRef, gateTest = "@fp64", "@fast"

// Run is the verb.
func (v *Gate) Run(ctx context.Context, a *App) (err error) {
	p, err := v.protocol()
	if err != nil {
		return err
	}
	if err := v.Output.check(); err != nil {
		return err
	}
	ref, test, err := a.pair(v.Ref, v.Test, gateRef, gateTest)
	if err != nil {
		return err
	}
	for _, s := range []Subject{ref, test} {
		if missing := s.missing(); asMissing(missing) {
			reason := fmt.Errorf("the engines of this build are %s", strings.Join(engine.Names(), ", "))
			return v.finish(a, oracle.Unavailable(s.display(), reason, p), nil)
		} else if missing != nil {
			return missing
		}
	}
	if s := ref.String(); s == test.String() {
		a.Note("REF and TEST are the same subject, %s", ref.display())
	}
	ckpt, err := bundle.Open(ref.Model)
	if err != nil {
		return err
	}
	defer closing(ckpt, &err)
	text, tokErr := a.tokenizer(ckpt)
	setup := oracle.Setup{Progress: a.stages()}
	if setup.Prompts, err = v.prompts(ctx, a, text, tokErr); err != nil {
		return err
	}
	if text != nil {
		p.Stop = text.stop
	}
	if setup.Warnings, err = a.weightWarnings(ctx, ref, test, ckpt); err != nil {
		return err
	}
	for _, s := range []Subject{ref, test} {
		if err := a.checkGate(ckpt, s, setup.Prompts, p); err != nil {
			return err
		}
	}
	engines, err := v.engines(ctx, a, ref, test, &setup)
	for _, e := range engines {
		defer closing(e, &err)
	}
	if err != nil {
		return err
	}
	r, err := oracle.Gate(ctx, setup, p)
	if err != nil {
		return err
	}
	return v.finish(a, r, text)
}

// protocol is what the flags say.
func (v *Gate) protocol() (p oracle.Protocol, err error) {
	p = oracle.DefaultProtocol()
	p.Margin, p.Unit, p.MinQualified, p.StrictPrompt = v.Margin, oracle.Unit(v.MarginUnit), v.MinQualified, v.StrictPrompt
	p.MaxTokens = v.MaxTokens
	for _, name := range v.Accept {
		p.Accept = append(p.Accept, oracle.Verdict(strings.ToUpper(name)))
	}
	p.Path, err = parsePath(v.Path)
	return p, err
}

// engines opens REF, TEST and the control that measures REF's noise: REF in the other of fp32 and fp64.
func (v *Gate) engines(ctx context.Context, a *App, ref, test Subject, s *oracle.Setup) (opened []engine.Engine, err error) {
	open := func(s Subject) (e engine.Engine) {
		if err == nil {
			if e, err = a.open(ctx, s, "exact", ""); err == nil {
				opened = append(opened, e)
			}
		}
		return e
	}
	s.Ref, s.Test = open(ref), open(test)
	twin := Subject{Model: ref.Model, Engine: "fp64"}
	if ref.Engine == "fp64" {
		twin = Subject{Model: ref.Model, Engine: "cpu", Mode: "exact"}
	}
	if v.Noise && (ref.Engine == "fp64" || ref.Engine == "cpu" || ref.Engine == "") {
		s.Controls = append(s.Controls, oracle.Control{Kind: oracle.ControlNoise, Label: "noise: " + twin.display(), Engine: open(twin)})
	}
	return opened, err
}

// finish writes and prints the result; its decision is the exit code.
func (v *Gate) finish(a *App, r *oracle.GateResult, text *texts) error {
	if err := v.Output.write(r); err != nil {
		return err
	}
	var spell func([]int32) string
	if text != nil {
		spell = func(ids []int32) string { return text.Decode(ids, false) }
	}
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return r.Render(w, spell) }); err != nil {
		return err
	}
	if code := r.ExitCode(); code != exitOK {
		return statusError(code)
	}
	return nil
}

// checkGate refuses prompts a side cannot run, and a need of memory the machine cannot meet.
func (a *App) checkGate(ckpt *bundle.Checkpoint, s Subject, prompts []oracle.Prompt, p oracle.Protocol) error {
	longest := job{seqs: len(prompts), generated: p.MaxTokens, path: p.Path}
	for i, q := range prompts {
		if err := a.checkLength(ckpt, fmt.Sprintf("prompt %d (%s)", i+1, q.Name), q.IDs, longest); err != nil {
			return err
		}
		longest.tokens = max(longest.tokens, len(q.IDs))
		longest.extra += int64(len(q.IDs)+p.MaxTokens) * int64(p.TopK+16) * 64 // the evidence of each position
	}
	return a.checkMemory(need(ckpt.Config(), ckpt.Sizes().Total(), s.Engine, a.Threads, longest), s.display())
}

// weightWarnings names weights that hold NaN or Inf, of each model once.
func (a *App) weightWarnings(ctx context.Context, ref, test Subject, ckpt *bundle.Checkpoint) (out []string, err error) {
	found, err := ckpt.NonFinite(ctx, a.Progress("looking for NaN and Inf"))
	if err != nil {
		return nil, err
	}
	if test.Model != ref.Model {
		other, err := bundle.Open(test.Model)
		if err != nil {
			return nil, err
		}
		defer closing(other, &err)
		more, err := other.NonFinite(ctx, a.Progress("looking for NaN and Inf"))
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	for _, n := range found {
		out = append(out, "weights: "+n.String())
	}
	return out, nil
}
