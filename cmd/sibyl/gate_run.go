package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/oracle"
	"sibyl/oracle/refcache"
)

// engines opens REF and TEST, and says which controls there are.
func (v *Gate) engines(ctx context.Context, a *App, ref, test Subject, ckpt bundle.Source, s *oracle.Setup, keep *gateCache) (opened []engine.Engine, err error) {
	for _, side := range []struct {
		s    Subject
		slot *engine.Engine
	}{{ref, &s.Ref}, {test, &s.Test}} {
		e, err := keep.open(ctx, a, side.s, side.slot == &s.Ref)
		if err != nil {
			return opened, err
		}
		*side.slot = e
		opened = append(opened, e)
	}
	if test.Model == ref.Model {
		notes, err := schemeNotes(test, ckpt)
		if err != nil {
			return opened, err
		}
		s.Warnings = append(s.Warnings, notes...)
	}
	s.Controls, err = v.controls(ctx, a, ref, test, s.Ref.Info(), s.Test.Info())
	s.Controls = append(v.noise(a, ref, ckpt), s.Controls...)
	keep.controls(a, s.Controls, ref, test)
	return opened, err
}

// finish writes the transcript, prints the result, and makes its decision the exit code.
func (v *Gate) finish(a *App, r *oracle.GateResult, arch string, text *texts) error {
	var spell func([]int32) string
	if text != nil {
		spell = func(ids []int32) string { return text.Decode(ids, false) }
	}
	if err := v.transcript(a, r, arch, spell); err != nil {
		return err
	}
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return r.Render(w, spell) }); err != nil {
		return err
	}
	if code := r.ExitCode(); code != exitOK {
		return statusError(code)
	}
	return nil
}

// transcript writes -o: the field's schema, whose own fields are about one prompt, the first, and the whole result
// under "sibyl". A gate that was not run has no prompt and leaves its result alone.
func (v *Gate) transcript(a *App, r *oracle.GateResult, arch string, spell func([]int32) string) error {
	if v.Out == "" || len(r.Prompts) == 0 {
		return v.Output.write(r)
	}
	if len(r.Prompts) > 1 {
		a.Note("%s: the schema's own fields hold the first of %d prompts; all are under \"sibyl\"", v.Out, len(r.Prompts))
	}
	env := map[string]any{"sibyl": version, "commit": buildCommit(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
		"numerics": refcache.Numerics}
	t, err := oracle.NewTranscript(r, oracle.TranscriptOptions{Arch: arch, Revision: revision(r.Ref.Subject), At: time.Now(),
		Environment: env, Text: spell, File: filepath.Base(v.Out)})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Write(&b); err != nil {
		return err
	}
	return v.Output.writeBytes(b.Bytes())
}

// revision is the one a hub's id stands for in the local cache, "" for other models.
func revision(subject string) string {
	model, _, _ := strings.Cut(subject, "@")
	ref, err := bundle.Resolve(model)
	if err != nil || ref.Kind != bundle.HubID {
		return ""
	}
	return filepath.Base(ref.Path)
}

// checkGate refuses prompts a side cannot run, and a need of memory the machine cannot meet.
func (a *App) checkGate(ckpt bundle.Source, s Subject, setup *oracle.Setup, p oracle.Protocol) error {
	longest := job{seqs: len(setup.Prompts), generated: p.MaxTokens, path: p.Path, stream: a.stream}
	for i, q := range setup.Prompts {
		if err := a.checkLength(ckpt, fmt.Sprintf("prompt %d (%s)", i+1, q.Name), q.IDs, longest); err != nil {
			return err
		}
		longest.tokens = max(longest.tokens, len(q.IDs))
		longest.extra += int64(len(q.IDs)+p.MaxTokens) * int64(p.TopK+16) * 64 // the evidence of each position
	}
	if t := setup.Text; t != nil {
		text := job{seqs: callSeqs, path: p.Path}
		first := t.IDs[:max(0, min(len(t.IDs), t.Window))]
		if err := a.checkLength(ckpt, "--text-window", first, text); err != nil {
			return err
		}
		if len(first) > longest.tokens+p.MaxTokens {
			longest.tokens, longest.seqs = len(first), callSeqs
		}
	}
	longest.extra += 2 * oracle.MaxHeld // rows of logits of one side that wait for the other's
	longest.narrowKV = s.narrowKV()
	n := need(ckpt.Config(), ckpt.Sizes().Total(), s.Engine, a.Threads, longest)
	if longest.stream { // REF and TEST go through the layers together
		n += n - longest.extra - runtimeBytes(ckpt.Config())
	}
	return a.checkMemory(n, s.display())
}

// sameVocabulary refuses two models whose ids cannot mean the same, before either is run.
func (a *App) sameVocabulary(ctx context.Context, ref, test Subject, ckpt bundle.Source) (err error) {
	if test.Model == ref.Model {
		return nil
	}
	other, err := a.source(ctx, test)
	if err != nil {
		return err
	}
	defer closing(other, &err)
	if a, b := ckpt.Config().VocabSize, other.Config().VocabSize; a != b {
		return &inputerr.Error{File: "gate", Field: "vocab_size", Found: fmt.Sprintf("%d ids in %s and %d in %s", a, ref.display(), b, test.display()),
			Want: "one vocabulary", Do: "compare a model with what was made of it"}
	}
	return nil
}

// weightWarnings names weights that hold NaN or Inf, of each model once.
func (a *App) weightWarnings(ctx context.Context, ref, test Subject, ckpt bundle.Source, keep *gateCache) (out []string, err error) {
	found, err := keep.nonFinite(ctx, a, ckpt)
	if err != nil {
		return nil, err
	}
	if test.Model != ref.Model {
		other, err := a.source(ctx, test)
		if err != nil {
			return nil, err
		}
		defer closing(other, &err)
		more, err := keep.nonFinite(ctx, a, other)
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
