package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/oracle"
)

// contract is what every TEST of the study says it computes.
const contract = "coreai-fp16"

// The texts: short, because errors do not need length to flip a token and the exact arithmetic is slow.
const (
	promptsEach  = 3
	shortest     = 24
	longest      = 32
	generated    = 8
	demo         = "opticks-2m"
	passageModel = "long-opticks" // 1,025 ids of the book that the demo model was trained on
)

// extras are with how many of its noisy realisations the gate is tried; 8, the first, is all: the gate as it is.
var extras = []int{8, 0, 2, 4}

// models of the study: the demo and every tiny one.
var models = append([]string{demo}, goldens.Tiny...)

// bench is one reference with its controls, and the prompts that TESTs are gated on.
type bench struct {
	model, scheme string
	seed          uint64
	path          string // of the checkpoint, "" for the embedded demo
	cfg           *config.Config
	prompts       []oracle.Prompt
	ref           *remembered
	known         *book
	controls      []oracle.Control
	specs         []engine.Spec // of controls
}

func (b *bench) String() string {
	return fmt.Sprintf("%s, %s, prompts %d", b.model, schemeName(b.scheme), b.seed)
}

func schemeName(s string) string {
	if s == "" {
		return "weights as stored"
	}
	return s
}

// newBench opens nothing yet but the reference.
func newBench(ctx context.Context, model, scheme string, seed uint64) (_ *bench, err error) {
	b := &bench{model: model, scheme: scheme, seed: seed}
	set, err := goldens.Read(model, "golden")
	if err != nil {
		return nil, err
	}
	b.path = set.Model
	ck, err := bundle.Open(b.path)
	if err != nil {
		return nil, err
	}
	b.cfg = ck.Config()
	if err := ck.Close(); err != nil {
		return nil, err
	}
	if b.prompts, err = texts(model, b.cfg.VocabSize, seed); err != nil {
		return nil, err
	}
	b.known = &book{}
	ref, err := engine.Open(ctx, "cpu", engine.Spec{Model: b.path, Contract: "hf-fp32", Mode: "exact", Threads: 1})
	if err != nil {
		return nil, err
	}
	b.ref = remember(ref, b.known)
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	// TEST is no CPU engine of ours as far as the gate is told: then none of the controls is TEST itself.
	specs, err := oracle.Controls(oracle.Side{Engine: "cpu", Model: b.path, Contract: "hf-fp32"},
		oracle.Side{Engine: "under test", Model: b.path, Contract: contract, Scheme: scheme})
	if err != nil {
		return nil, err
	}
	for _, s := range specs {
		s.Spec.Threads = 1
		e, err := engine.Open(ctx, "cpu", s.Spec)
		if err != nil {
			return nil, err
		}
		s.Control.Engine = remember(e, b.known)
		b.controls, b.specs = append(b.controls, s.Control), append(b.specs, s.Spec)
	}
	return b, nil
}

func (b *bench) close() error {
	err := b.ref.Close()
	for _, c := range b.controls {
		if e := c.Engine.Close(); err == nil {
			err = e
		}
	}
	return err
}

// texts are the prompts of a seed: pieces of a book for the demo model, which was trained on it; random ids for the tiny
// models, whose weights are random.
func texts(model string, vocab int, seed uint64) ([]oracle.Prompt, error) {
	rng := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	var passage []int32
	if model == demo {
		set, err := goldens.Read(passageModel, "golden")
		if err != nil {
			return nil, err
		}
		passage = set.Prompts()[""]
	}
	out := make([]oracle.Prompt, promptsEach)
	for i := range out {
		ids := make([]int32, shortest+rng.IntN(longest-shortest+1))
		if passage != nil {
			copy(ids, passage[rng.IntN(len(passage)-len(ids)):])
		} else {
			for j := range ids {
				ids[j] = int32(rng.IntN(vocab))
			}
		}
		out[i] = oracle.Prompt{Name: fmt.Sprint(i + 1), IDs: ids}
	}
	return out, nil
}

// gates gates test with every control but those of spec without, with as many of the noisy ones as extras says: the first
// result is the gate's as it is, counts are the DEFECTs of each of the extras.
func (b *bench) gates(ctx context.Context, test *remembered, without *engine.Spec) (asIs *oracle.GateResult, counts []int, err error) {
	var left, noisy []oracle.Control
	for i, c := range b.controls {
		switch {
		case c.Noisy:
			noisy = append(noisy, c)
		case without == nil || !(c.Expected && b.specs[i] == *without):
			left = append(left, c)
		}
	}
	for _, n := range extras {
		r, err := b.gate(ctx, test, slices.Concat(left, noisy[:n]))
		if err != nil {
			return nil, nil, err
		}
		if asIs == nil {
			asIs = r
		}
		counts = append(counts, r.Verdicts[oracle.Defect])
	}
	return asIs, counts, nil
}

func (b *bench) gate(ctx context.Context, test *remembered, controls []oracle.Control) (*oracle.GateResult, error) {
	p := oracle.DefaultProtocol()
	p.MaxTokens = generated
	r, err := oracle.Gate(ctx, oracle.Setup{Ref: b.ref, Test: claims{test, b.scheme}, Prompts: b.prompts, Controls: controls}, p)
	if err != nil {
		return nil, err
	}
	for _, part := range r.Parts {
		if part.Status != oracle.PartRan {
			return nil, fmt.Errorf("%s: %s was %s: %s", b, part.Name, part.Status, part.Note)
		}
	}
	return r, nil
}

// claims is an engine that says it is TEST's scheme under the study's contract, whatever it is.
type claims struct {
	engine.Engine
	scheme string
}

// Info implements engine.Engine.
func (c claims) Info() engine.Info {
	info := c.Engine.Info()
	info.Contract, info.Engine, info.Subject = contract, "under test", "under test"
	info.Shows &^= engine.Logits // whole rows are for divergences, which no verdict depends on
	if c.scheme != "" {
		info.Scheme = c.scheme
	}
	return info
}

// Prefill implements engine.Stater.
func (c claims) Prefill(ctx context.Context, p engine.Prompt, path engine.Path) (*engine.State, error) {
	return c.Engine.(engine.Stater).Prefill(ctx, p, path)
}

// Step implements engine.Stater.
func (c claims) Step(ctx context.Context, s *engine.State, id int32, topK int) (*engine.Position, error) {
	return c.Engine.(engine.Stater).Step(ctx, s, id, topK)
}

// spot is one judged position of one part.
type spot struct {
	part        oracle.PartName
	prompt, pos int
}

// changed lists where TEST's id is not REF's although REF is sure: ties are no change.
func changed(r *oracle.GateResult) map[spot]bool {
	out := map[spot]bool{}
	for _, e := range r.Positions {
		if e.Qualified && e.RefID != e.TestID && !slices.Contains(e.TestTies, e.RefID) {
			out[spot{e.Part, e.Prompt, e.Pos}] = true
		}
	}
	return out
}
