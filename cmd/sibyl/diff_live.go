package main

import (
	"context"
	"fmt"
	"slices"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/oracle"
	"sibyl/tokenizer"
	"sibyl/trace"
)

// live runs the sides that are subjects and compares.
func (v *Diff) live(ctx context.Context, a *App, ref, test side, opt oracle.DiffOptions) (r *oracle.DiffResult, err error) {
	model := ref.Subject
	if ref.file != nil {
		model = test.Subject
	}
	ckpt, err := a.source(ctx, model)
	if err != nil {
		return nil, err
	}
	defer closing(ckpt, &err)
	if err := v.Streaming.choose(a, ckpt); err != nil {
		return nil, err
	}
	run := oracle.RunOptions{DiffOptions: opt, Config: ckpt.Config()}
	if run.Path, err = parsePath(v.Path); err != nil {
		return nil, err
	}
	prompt, err := v.prompt(ctx, a, ckpt, ref.file, test.file)
	if err != nil {
		return nil, err
	}
	if len(v.Taps) > 0 {
		if run.Entries, err = a.selectTaps(ctx, test.Subject, ckpt.Config(), v.Taps); err != nil {
			return nil, err
		}
	}
	entries := run.Entries
	if entries == nil {
		entries = trace.All(ckpt.Config())
	}
	j := job{tokens: len(prompt.IDs), path: run.Path, position: prompt.PositionIDs}
	kept := slices.DeleteFunc(slices.Clone(entries), func(e trace.Entry) bool { return e.Tap == trace.Logits }) // whose rows are compared as they come
	if n := 2 * trace.Bytes(ckpt.Config(), kept, len(prompt.IDs)); n > spoolBytes && ref.file == nil && test.file == nil {
		run.Spool = tempDir()
		if inMemory(run.Spool) {
			j.extra = n
		}
	} else {
		j.extra = n
	}
	j.extra += min(oracle.MaxHeld, trace.Bytes(ckpt.Config(), entries, len(prompt.IDs))) // rows of logits of one side that wait for the other's
	var subjects []Subject
	for _, s := range []side{ref, test} {
		if s.file == nil {
			subjects = append(subjects, s.Subject)
		}
	}
	if err := a.checkTogether(ckpt, subjects, prompt.IDs, j); err != nil {
		return nil, err
	}
	var passes []pass
	for _, s := range subjects {
		if s.onCPU() {
			p := pass{mode: s.modeOr("exact"), tokens: len(prompt.IDs), heads: len(prompt.IDs), readings: 1}
			if a.stream && len(passes) > 0 {
				p.readings = 0 // they go through the layers together
			}
			passes = append(passes, p)
		}
	}
	a.announce(ckpt, "", passes...)
	var engines [2]engine.Engine
	for i, s := range []side{ref, test} {
		if s.file != nil {
			continue
		}
		if engines[i], err = a.open(ctx, s.Subject, "exact", ""); err != nil {
			return nil, err
		}
		defer closing(engines[i], &err)
	}
	switch {
	case ref.file != nil:
		run.Entries = entries
		return oracle.DiffTrace(ctx, engines[1], ref.file, false, prompt, run)
	case test.file != nil:
		run.Entries = entries
		return oracle.DiffTrace(ctx, engines[0], test.file, true, prompt, run)
	}
	return oracle.DiffEngines(ctx, engines[0], engines[1], prompt, run)
}

// spoolBytes is how much of two runs is kept in memory; more goes through temporary files.
const spoolBytes = 256 << 20

// prompt is what subjects are run on: --ids, else a trace's ids, else the built-in prompt.
func (v *Diff) prompt(ctx context.Context, a *App, ckpt bundle.Source, files ...*trace.File) (p engine.Prompt, err error) {
	for _, f := range files {
		if f == nil {
			continue
		}
		if v.IDs+v.PositionIDs != "" {
			return p, &inputerr.Error{File: "diff", Found: "--ids or --position-ids beside a trace file", Want: "the trace's own"}
		}
		p.IDs = f.IDs()
		if m := f.Meta(); m != nil {
			if p.PositionIDs = m.PositionIDs; m.Past > 0 {
				return p, &inputerr.Error{File: f.Label(), Field: "past", Found: fmt.Sprintf("%d tokens before it", m.Past),
					Want: "a trace from the start", Do: "make a trace of the other side with the same --state, and compare the files"}
			}
		}
		return p, nil
	}
	if v.IDs == "" {
		builtIn := oracle.DemoPrompts()[0]
		a.Note("no --ids: running the built-in prompt %q", builtIn.Text)
		return encodePrompt(a, ckpt, builtIn.Text)
	}
	if p.IDs, err = a.ParseIDs(ctx, "--ids", v.IDs); err == nil && v.PositionIDs != "" {
		p.PositionIDs, err = a.positionIDs(ctx, v.PositionIDs, len(p.IDs))
	}
	return p, err
}

// modelOfTrace is the MODEL a trace was made of, as it was named then.
func modelOfTrace(f *trace.File) (string, error) {
	if f.Meta() == nil {
		return "", &inputerr.Error{File: f.Label(), Found: "a golden, which names no model", Want: "a MODEL in the other subject",
			Do: "write MODEL@part"}
	}
	s, err := ParseSubject(f.Meta().Subject, pathExists)
	return s.Model, err
}

// encodePrompt turns text into ids with the model's own tokenizer.
func encodePrompt(a *App, ckpt bundle.Source, text string) (p engine.Prompt, err error) {
	t, err := a.tokenizer(ckpt)
	if err != nil {
		return p, fmt.Errorf("%w (--ids needs no tokenizer)", err)
	}
	enc, err := t.Encode(text, tokenizer.EncodeOptions{IDsOnly: true})
	return engine.Prompt{IDs: enc.IDs}, err
}
