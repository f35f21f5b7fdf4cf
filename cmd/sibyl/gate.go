package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/oracle"
)

// Gate judges TEST by REF.
type Gate struct {
	Ref  string `arg:"" optional:"" name:"REF" help:"The reference SUBJECT."`
	Test string `arg:"" optional:"" name:"TEST" help:"What is judged. Without a MODEL: the reference's."`

	Prompt       []string `sep:"none" placeholder:"TEXT" help:"A prompt; may be given again."`
	Prompts      string   `placeholder:"FILE" help:"Prompts: one text a line, or JSONL with \"text\" or \"ids\"."`
	IDs          []string `name:"ids" sep:"none" placeholder:"IDS" help:"A prompt as token ids: 1,2,3 or @FILE; may be given again."`
	Text         string   `placeholder:"FILE" help:"Score this text too, teacher forced: top-1, KL, perplexity. It decides nothing."`
	TextWindow   int      `default:"512" placeholder:"N" help:"Tokens of the text at a time, each window from an empty state (512 if left out)."`
	MaxTokens    int      `default:"32" placeholder:"N" help:"Tokens the reference generates after each prompt."`
	Margin       float64  `default:"0.1" placeholder:"X" help:"Positions where the reference's margin is below X are reported, not judged."`
	MarginUnit   string   `default:"logit_gap" enum:"logit_gap,prob_gap" help:"What the margin is: logit_gap or prob_gap."`
	MinQualified float64  `default:"0.5" placeholder:"X" help:"Share of positions that must be judged, or the result is inconclusive."`
	StrictPrompt bool     `help:"Every margin must qualify."`
	Accept       []string `placeholder:"CAUSE,..." help:"Flips with this cause become notes: quant, rounding."`
	Path         string   `default:"prefill" placeholder:"PATH" help:"How texts reach the models: prefill, step, or chunk=N tokens a call; with +1 the last token in a call of its own."`
	Controls     string   `default:"all" placeholder:"Q,C,E" help:"What explains a flip: all, none, or some of Q (REF's contract, TEST's weights), C (TEST's contract, REF's weights), E (both)."`
	ControlsAt   string   `default:"flips" enum:"flips,all" help:"Where the controls are run: at the flips, or at all positions."`
	Noise        *bool    `negatable:"" help:"Measure the reference's own fp32-to-fp64 noise beside it (on by default for small models)."`
	RefCache     string   `placeholder:"DIR" help:"Keep what the reference shows in DIR, and do not run it again for what is there."`
	Replay       string   `placeholder:"FILE" help:"Check a transcript instead: its evidence, and REF and TEST where their models are at hand."`
	Streaming
	JSON
	Output
}

// Help is the part of the help below the flags.
func (*Gate) Help() string {
	return `Without subjects, and with one checkpoint: TEST is @coreai-fp16,int8hu-sym, what a published bundle should
compute (@coreai-fp16 of a checkpoint that is quantized already); REF is @hf-fp32 on the same model. A lone subject
that starts with @ is TEST of the demo model. Prompts left out: the built-in set.

At every flip the controls are asked: the weights' quantization alone (Q), the contract's rounding alone (C), or both
(E, in each of the contract's realisations). The first that gives the same token names the cause. What REF was sure of
fails whatever the cause, unless --accept quant,rounding makes such flips notes.

Exit code 0: SHIP. 1: DO NOT SHIP. 3: inconclusive, or an engine is not available. -o writes a transcript in
the schema coreai-gate-transcript/1, with the whole result under "sibyl". --replay reads one, ours or the
field's, and exits with 1 unless all it says holds, else with the code of its decision. A transcript can
also be REF or TEST: MODEL@replay:FILE.

Examples:

  sibyl gate
  sibyl gate @coreai-fp16,int4lin --accept quant --max-tokens 8
  sibyl gate @hf-fp32 @hf-bf16 --max-tokens 8
  sibyl gate --prompt "The rays of light" --margin 0.05 --json`
}

// The sides that are left out: what is true, and what the ship config should say.
const gateRef, gateTest = "@hf-fp32", "@coreai-fp16,int8hu-sym"

// Run is the verb.
func (v *Gate) Run(ctx context.Context, a *App) (err error) {
	p, err := v.protocol()
	if err != nil {
		return err
	}
	if err := v.Output.check(); err != nil {
		return err
	}
	if v.Replay != "" {
		return v.replay(ctx, a)
	}
	ref, test, err := a.pair(v.Ref, v.Test, gateRef, gateTest)
	if err != nil {
		return err
	}
	for _, s := range []Subject{ref, test} {
		if missing := s.missing(); asMissing(missing) {
			reason := fmt.Errorf("the engines of this build are %s", strings.Join(engine.Names(), ", "))
			return v.finish(a, oracle.Unavailable(s.display(), reason, p), "", nil)
		} else if missing != nil {
			return missing
		}
	}
	if s := ref.String(); s == test.String() {
		a.Note("REF and TEST are the same subject, %s", ref.display())
	}
	ckpt, err := a.source(ctx, ref)
	if err != nil {
		return err
	}
	defer closing(ckpt, &err)
	if q := ckpt.Quantization(); q != nil && v.Test == "" && test.Text == gateTest {
		test.Scheme = "" // of the TEST that nobody typed: no scheme can be asked of weights that have one
		a.Note("%s is quantized already (%s), so TEST is @coreai-fp16 on the same weights; what quantizing them changed, a gate against the checkpoint they were made from tells", ref.display(), q.Scheme)
	}
	if err := v.Streaming.choose(a, ckpt); err != nil {
		return err
	}
	if err := a.sameVocabulary(ctx, ref, test, ckpt); err != nil {
		return err
	}
	keep, err := v.openCache(a)
	if err != nil {
		return err
	}
	defer keep.report(a)
	for _, s := range []Subject{ref, test} {
		if err := a.checkReplay(ctx, s, keep); err != nil {
			return err
		}
	}
	text, tokErr := a.tokenizer(ckpt)
	setup := oracle.Setup{Progress: a.stages()}
	if setup.Prompts, err = v.prompts(ctx, a, text, tokErr); err != nil {
		return err
	}
	if setup.Text, err = v.text(ctx, a, text, tokErr); err != nil {
		return err
	}
	if text != nil {
		p.Stop = text.stop
	}
	for _, s := range []Subject{ref, test} {
		if err := a.checkGate(ckpt, s, &setup, p); err != nil {
			return err
		}
	}
	a.announce(ckpt, "; controls of flips add to it", gatePasses(a, ref, test, &setup, p, v.Out != "")...)
	if setup.Warnings, err = a.weightWarnings(ctx, ref, test, ckpt, keep); err != nil {
		return err
	}
	engines, err := v.engines(ctx, a, ref, test, ckpt, &setup, keep)
	for _, e := range engines {
		defer closing(e, &err)
	}
	if errors.Is(err, engine.ErrUnavailable) {
		return v.finish(a, oracle.Unavailable([]Subject{ref, test}[len(engines)].display(), err, p), "", nil)
	}
	if err != nil {
		return err
	}
	r, err := oracle.Gate(ctx, setup, p)
	if err != nil {
		return err
	}
	if err := v.hashes(ctx, a, r, ref, test, keep); err != nil {
		return err
	}
	return v.finish(a, r, ckpt.Config().ModelType, text)
}

// protocol is what the flags say.
func (v *Gate) protocol() (p oracle.Protocol, err error) {
	p = oracle.DefaultProtocol()
	p.Margin, p.Unit, p.MinQualified, p.StrictPrompt = v.Margin, oracle.Unit(v.MarginUnit), v.MinQualified, v.StrictPrompt
	p.MaxTokens = v.MaxTokens
	if v.ControlsAt == "all" {
		p.Controls = oracle.ControlsEverywhere
	}
	for _, name := range v.Accept {
		if !slices.Contains([]string{"quant", "rounding"}, strings.ToLower(name)) {
			return p, &inputerr.Error{File: "gate", Field: "--accept", Found: inputerr.Clip(name, 40), Want: "quant, rounding or both: other flips have no cause to accept"}
		}
		p.Accept = append(p.Accept, oracle.Verdict(strings.ToUpper(name)))
	}
	p.Path, err = parsePath(v.Path)
	return p, err
}
