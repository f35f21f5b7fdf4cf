package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/model"
	"sibyl/oracle"
	"sibyl/precision"
	"sibyl/quant"
	"sibyl/tokenizer"
)

// controls gives the gate's controls: CPU engines on the reference's checkpoint, opened when a flip needs them.
func (v *Gate) controls(ctx context.Context, a *App, ref, test Subject, refInfo, testInfo engine.Info) ([]oracle.Control, error) {
	if test.Bundle && test.Scheme == "" { // its bytes say the scheme, whatever engine runs them
		src, err := a.source(ctx, test)
		if err != nil {
			return nil, err
		}
		testInfo.Scheme = model.SchemeOf(src)
		if err := src.Close(); err != nil {
			return nil, err
		}
	}
	specs, err := oracle.Controls(sideOf(ref, refInfo), testSide(ref, test, testInfo))
	if err != nil {
		// An engine that says no contract sibyl knows cannot be explained by one; a file that cannot be read was refused before.
		a.Note("no controls are run: TEST's contract %q is not one that sibyl can compute", testInfo.Contract)
		return nil, nil
	}
	if specs, err = oracle.Kinds(specs, v.Controls); err != nil {
		return nil, &inputerr.Error{File: "gate", Field: "--controls", Found: inputerr.Clip(v.Controls, 40), Want: "all, none, or some of Q,C,E"}
	}
	var out []oracle.Control
	for _, s := range specs {
		c := s.Control
		if c.Same == "" {
			spec := s.Spec
			spec.Threads, spec.Stream, spec.NoVerify = a.Threads, a.stream, a.noVerify
			c.Open = func(ctx context.Context) (engine.Engine, error) { return engine.Open(ctx, "cpu", spec) }
		}
		out = append(out, c)
	}
	return out, nil
}

// sideOf is a subject as the controls see it.
func sideOf(s Subject, info engine.Info) oracle.Side {
	out := oracle.Side{Engine: s.Engine, Model: cleanModel(s.Model), Scheme: s.Scheme, Contract: s.Contract, Mode: s.Mode}
	if out.Engine == "" {
		out.Engine = "cpu"
	}
	if out.Engine != "cpu" {
		// A control is always a CPU engine: of the contract and the weights that this engine says it has.
		out.Contract, out.Scheme, out.Mode = info.Contract, info.Scheme, ""
	}
	if s.Bundle { // it holds its scheme in its bytes, and its contract unless one was named
		if out.Scheme = s.Scheme; out.Contract == "" || out.Contract == precision.RuntimeName {
			out.Contract = info.Contract
		}
	}
	if len(info.Realises) > 0 { // an engine of somebody else's, whose arithmetic is known by these names
		out.Contract, out.Also = info.Realises[0], strings.Join(info.Realises[1:], ",")
	}
	return out
}

// testSide is TEST, whose weights are made from REF's checkpoint wherever that is known to give them: a control that
// read them from TEST's own files would repeat a mistake in those.
func testSide(ref, test Subject, info engine.Info) oracle.Side {
	out := sideOf(test, info)
	if out.Model == cleanModel(ref.Model) || ref.Bundle {
		return out
	}
	switch _, named := quant.Lookup(info.Scheme); {
	case named:
		out.Model, out.Scheme, out.Engine = cleanModel(ref.Model), info.Scheme, "another checkpoint"
	case info.Scheme == "stored":
		// Weights that nothing says are quantized should be REF's own.
		out.Model, out.Scheme, out.Engine = cleanModel(ref.Model), ref.Scheme, "another checkpoint"
	}
	return out
}

// cleanModel makes two spellings of one folder the same.
func cleanModel(path string) string {
	if path == "" {
		return ""
	}
	return filepath.Clean(path)
}

// noiseBytes: up to this much of weights, REF's own noise is measured unasked; float64 takes its time.
const noiseBytes = 64 << 20

// noise gives the control that measures REF's noise, REF in the other of fp32 and fp64, if REF is one of them.
func (v *Gate) noise(a *App, ref Subject, ckpt bundle.Source) []oracle.Control {
	exact := ref.Engine == "" || ref.Engine == "cpu"
	plain := (ref.Contract == "" || ref.Contract == "hf-fp32") && ref.Scheme == ""
	switch {
	case ref.Bundle: // float64 reads checkpoints
		return nil
	case v.Noise != nil && !*v.Noise, ref.Engine != "fp64" && !(exact && plain):
		return nil
	case v.Noise == nil && ckpt.Sizes().Total() > noiseBytes:
		a.Note("the reference's own fp32-to-fp64 noise is not measured on a model of this size; --noise does it")
		return nil
	}
	twin := Subject{Model: ref.Model, Engine: "fp64"}
	if ref.Engine == "fp64" {
		twin = Subject{Model: ref.Model, Engine: "cpu", Mode: "exact"}
	}
	return []oracle.Control{{Kind: oracle.ControlNoise, Label: "noise: " + twin.display(),
		Open: func(ctx context.Context) (engine.Engine, error) { return a.open(ctx, twin, "exact", "") }}}
}

// schemeNotes says where a scheme cannot be followed: a tensor that stays as it is would else look like the scheme's.
func schemeNotes(s Subject, ckpt bundle.Source) ([]string, error) {
	if s.Scheme == "" {
		return nil, nil
	}
	scheme, err := model.LookupScheme(s.Scheme)
	if err != nil {
		return nil, err
	}
	a, err := scheme.AssignTo(ckpt)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range a.Notes {
		out = append(out, fmt.Sprintf("scheme %s: %s", scheme.Name, n))
	}
	const shown = 8
	if len(out) > shown {
		out = append(out[:shown], fmt.Sprintf("scheme %s: %d more tensors like these", scheme.Name, len(out)-shown))
	}
	return out, nil
}

// text reads --text and gives its tokens.
func (v *Gate) text(ctx context.Context, a *App, t *texts, tokErr error) (*oracle.Text, error) {
	if v.Text == "" {
		return nil, nil
	}
	if tokErr != nil {
		return nil, fmt.Errorf("--text needs a tokenizer: %w", tokErr)
	}
	data, err := a.readInput(ctx, "--text", v.Text)
	if err != nil {
		return nil, err
	}
	enc, err := t.Encode(string(data), tokenizer.EncodeOptions{IDsOnly: true})
	if err != nil {
		return nil, err
	}
	text := &oracle.Text{Name: filepath.Base(v.Text), IDs: enc.IDs, Window: v.TextWindow}
	return text, text.Check()
}
