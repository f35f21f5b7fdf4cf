package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/precision"
	"sibyl/tokenizer"
)

// subject reads and resolves one subject; "" is the demo model.
func (a *App) subject(text string) (Subject, error) {
	s, err := ParseSubject(text, pathExists)
	if err != nil {
		return s, err
	}
	ref, err := bundle.Resolve(s.Model)
	if err != nil {
		return s, err
	}
	switch ref.Kind {
	case bundle.TraceFile:
		s.Trace = ref.Path
		if s.Engine+s.Contract+s.Scheme+s.Mode != "" {
			return s, &inputerr.Error{File: s.Model, Found: "parts behind a trace file", Want: "the file alone",
				Do: "a trace says itself how it was made"}
		}
	case bundle.LanguageBundle, bundle.AIModel:
		s.Bundle = true
	}
	return s, nil
}

// source opens the model of s: a checkpoint or a bundle. Of a bundle that its own graph runs, weights that cannot be
// read by role are no error here.
func (a *App) source(ctx context.Context, s Subject) (bundle.Source, error) {
	graph := s.Engine != "" && s.Engine != "cpu" && s.Engine != "replay"
	src, err := bundle.OpenSource(ctx, s.Model, bundle.BundleOptions{NoVerify: a.noVerify, Graph: graph, Progress: a.Progress("comparing main.hash")})
	if err != nil {
		return nil, err
	}
	if b, ok := src.(*bundle.Shipped); ok && !a.warned[b.Path()] {
		if a.warned == nil {
			a.warned = map[string]bool{}
		}
		a.warned[b.Path()] = true
		for _, w := range b.Warnings() {
			a.Stderr.line("warning: " + w) // also with --quiet: it concerns the result
		}
	}
	return src, nil
}

// pair reads the subjects of a verb that takes REF and TEST. refParts and testParts ("@fp64") are what a side
// that was left out is; a second subject without a MODEL means the first one's.
func (a *App) pair(refText, testText, refParts, testParts string) (ref, test Subject, err error) {
	alone := testText == ""
	switch {
	case !alone:
		// As given.
	case strings.HasPrefix(refText, "@") && !pathExists(refText):
		refText, testText = refParts, refText // a lone subject that starts with @ is TEST of the demo model
	default:
		testText = testParts
	}
	if ref, err = a.subject(refText); err != nil {
		return ref, test, err
	}
	if alone && ref.Bundle {
		return ref, test, &inputerr.Error{File: refText, Found: "a bundle alone", Want: "REF before it: what it is judged by",
			Do: "name the checkpoint it was converted from first: CHECKPOINT " + refText}
	}
	if alone && ref.Trace == "" && ref.String() == ref.Model {
		if ref, err = ParseSubject(ref.Model+refParts, pathExists); err != nil {
			return ref, test, err
		}
	}
	if strings.HasPrefix(testText, "@") && !pathExists(testText) {
		if test, err = ParseSubject(testText, pathExists); err == nil {
			test.Model, test.Bundle = ref.Model, ref.Bundle
		}
		return ref, test, err
	}
	test, err = a.subject(testText)
	return ref, test, err
}

// namesModel says whether text is a subject rather than a prompt: it starts with @, or it (or what stands before
// its last @) is an existing path or an id in the local hub cache.
func namesModel(text string) bool {
	if strings.HasPrefix(text, "@") || pathExists(text) {
		return true
	}
	s, err := ParseSubject(text, pathExists)
	if err != nil || s.Model == "" {
		return false
	}
	_, err = bundle.Resolve(s.Model)
	return err == nil
}

// open opens the engine of s. defaultMode is the arithmetic of the CPU engine if the subject names none.
func (a *App) open(ctx context.Context, s Subject, defaultMode, delta string) (engine.Engine, error) {
	if s.Trace != "" {
		return nil, &inputerr.Error{File: s.Trace, Found: "a trace file", Want: "something that can be run",
			Do: "two trace files are compared by diff"}
	}
	if s.Engine == "" {
		s.Engine = "cpu"
	}
	if err := s.missing(); err != nil {
		return nil, err
	}
	if s.Engine == "cpu" && s.Mode == "" {
		contract, err := precision.Choose(s.Contract)
		if err != nil {
			return nil, err
		}
		if contract.Contract.Arithmetic == "" { // else the engine takes the contract's own
			s.Mode = defaultMode
		}
	}
	e, err := engine.Open(ctx, s.Engine, engine.Spec{
		Model: s.Model, Contract: s.Contract, Scheme: s.Scheme, Mode: s.Mode, Delta: delta, Threads: a.Threads,
		Stream: a.stream && s.Engine == "cpu", NoVerify: a.noVerify,
		File: s.File, Side: s.Side,
	})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", s.display(), err)
	}
	return e, nil
}

// display is the subject for messages; the demo model has a name there.
func (s Subject) display() string {
	if text := s.String(); text != "" {
		return text
	}
	return "the demo model"
}

// texts is what turns a model's ids into text and back.
type texts struct {
	*tokenizer.Tokenizer
	chat *tokenizer.ChatInfo
	stop []int32 // ids that end a generation
}

// tokenizer loads the tokenizer of a model, and which ids end a generation: those of
// generation_config.json, else of config.json, else eos_token, as transformers' generate does.
func (a *App) tokenizer(c bundle.Source) (*texts, error) {
	fsys, dir, err := c.Tokenizer()
	if err != nil {
		return nil, err
	}
	tok, chat, err := tokenizer.LoadFS(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name(), err)
	}
	if err := sameVocab(c, tok); err != nil {
		return nil, err
	}
	t := &texts{Tokenizer: tok, chat: chat}
	if t.stop, err = stopIDs(c); err != nil {
		return nil, err
	}
	if t.stop == nil && chat.EOSID >= 0 {
		t.stop = []int32{chat.EOSID}
	}
	return t, nil
}

// sameVocab refuses a bundle whose tokenizer is another model's: one with more ids than there are logits, or with so many
// fewer that no padding explains them (published models pad by 0.1 %).
func sameVocab(c bundle.Source, tok *tokenizer.Tokenizer) error {
	b, ok := c.(*bundle.Shipped)
	if !ok {
		return nil
	}
	n, logits := tok.VocabSize(), c.Config().VocabSize
	if n <= logits && n >= logits-max(512, logits/16) {
		return nil
	}
	return &inputerr.Error{File: filepath.Join(b.Path(), "tokenizer"), Found: fmt.Sprintf("a vocabulary of %d ids", n), Want: fmt.Sprintf("%d, as the graph's logits, less some padding", logits),
		Do: "tokenizer and .aimodel belong to different models: export the bundle again"}
}

// stopIDs reads eos_token_id, one id or a list.
func stopIDs(c bundle.Source) ([]int32, error) {
	const file = "generation_config.json"
	data, ok, err := c.Read(file)
	if err != nil || !ok {
		return c.Config().EOS, err
	}
	var generation struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	bad := func(err error) error {
		return &inputerr.Error{File: file, Field: "eos_token_id", Want: "an id or a list of ids", Err: err}
	}
	if err := json.Unmarshal(data, &generation); err != nil {
		return nil, bad(err)
	}
	if len(generation.EOS) == 0 || string(generation.EOS) == "null" {
		return c.Config().EOS, nil
	}
	var one int32
	var list []int32
	if json.Unmarshal(generation.EOS, &one) == nil {
		return []int32{one}, nil
	}
	if err := json.Unmarshal(generation.EOS, &list); err != nil {
		return nil, bad(err)
	}
	return list, nil
}

// parsePath reads --path.
func parsePath(text string) (engine.Path, error) {
	p, err := engine.ParsePath(text)
	if err != nil {
		return p, &inputerr.Error{File: "--path", Found: inputerr.Clip(text, 40), Want: engine.PathSyntax,
			Do: didYouMean(text, []string{"prefill", "step", "chunk=16", "prefill+1", "chunk=16+1"})}
	}
	return p, nil
}

// closing closes c and keeps the first error.
func closing(c interface{ Close() error }, err *error) {
	if closeErr := c.Close(); *err == nil && closeErr != nil {
		*err = closeErr
	}
}

// asMissing tells an absent engine, which makes a gate inconclusive, from bad input.
func asMissing(err error) bool {
	var m *missingError
	return errors.As(err, &m) && m.kind == partEngine
}
