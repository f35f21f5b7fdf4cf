package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"sibyl/engine"
	"sibyl/internal/faults"
	"sibyl/oracle"
)

// sound is one way to be a right engine without sharing the bits of any control.
type sound struct {
	name string
	open func(ctx context.Context, b *bench) (engine.Engine, error)
	// without is the control that is this very engine: it is left out, or the gate would explain TEST by itself.
	without func(b *bench) *engine.Spec
}

func specOf(b *bench, contract, mode string) engine.Spec {
	return engine.Spec{Model: b.path, Contract: contract, Scheme: b.scheme, Mode: mode, Threads: 1}
}

// variant is an engine of the repository under a contract and mode, on some threads.
func variant(name, contract, mode string, threads int) sound {
	return sound{
		name: name,
		open: func(ctx context.Context, b *bench) (engine.Engine, error) {
			s := specOf(b, contract, mode)
			s.Threads = threads
			return engine.Open(ctx, "cpu", s)
		},
		without: func(b *bench) *engine.Spec { s := specOf(b, contract, mode); return &s },
	}
}

func noise(n uint64) sound {
	return sound{
		name: "+-1 ulp of noise at every operation",
		open: func(ctx context.Context, b *bench) (engine.Engine, error) {
			return faults.OpenNoisy(ctx, specOf(b, contract, "fast"), 4*b.seed+n)
		},
		without: func(*bench) *engine.Spec { return nil },
	}
}

// soundEngines are run on every bench of the clean half.
var soundEngines = []sound{
	variant("fast, 1 thread", contract, "fast", 1),
	variant("fast, 2 threads", contract, "fast", 2),
	variant("fast, 3 threads", contract, "fast", 3),
	variant("coreai-eager", "coreai-eager", "exact", 1),
	variant("coreai-eager-sdpa16", "coreai-eager-sdpa16", "exact", 1),
	variant("coreai-eager-s32", "coreai-eager-s32", "exact", 1),
	variant("coreai-eager-s32o32", "coreai-eager-s32o32", "exact", 1),
	noise(0),
	noise(1),
	noise(2),
}

// appleCPU is a sound engine of another contract: it rounds inside of its sums. It is run beside the others and counted
// apart, to show what a gate says of an engine that names the wrong contract.
var appleCPU = variant("coreai-cpu", "coreai-cpu", "", 1)

// appleEvery: on one set of prompts in so many, because its arithmetic is slow.
const appleEvery = 10

// cleaned is one clean run.
type cleaned struct {
	bench     *bench
	engine    string
	positions int // judged, with REF sure
	flips     int // of those
	verdicts  map[oracle.Verdict]int
	counts    []int             // DEFECTs by the gate with each of extras
	shares    bool              // all that TEST showed is, bit for bit, what one of the controls left in showed
	defects   []oracle.Evidence // false ones, by the gate as it is
}

func clean(ctx context.Context, b *bench, s sound) (*cleaned, error) {
	test, own, err := b.test(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", b, s.name, err)
	}
	if own {
		defer test.Close()
	}
	r, counts, err := b.gates(ctx, test, s.without(b))
	if err != nil {
		return nil, err
	}
	out := &cleaned{bench: b, engine: s.name, verdicts: map[oracle.Verdict]int{}, counts: counts}
	for _, p := range r.Positions {
		if p.Qualified {
			out.positions++
			if p.Verdict.Flip() {
				out.flips++
				out.verdicts[p.Verdict]++
			}
		}
		if p.Verdict == oracle.Defect {
			out.defects = append(out.defects, p)
		}
	}
	out.shares, err = b.shares(ctx, test, s.without(b))
	return out, err
}

// test opens s, or takes the control that is that very engine and is going to be left out: its texts may have been run.
func (b *bench) test(ctx context.Context, s sound) (test *remembered, own bool, err error) {
	if spec := s.without(b); spec != nil {
		for i, c := range b.controls {
			if c.Expected && b.specs[i] == *spec && !strings.HasSuffix(s.name, "threads") {
				return c.Engine.(*remembered), false, nil
			}
		}
	}
	e, err := s.open(ctx, b)
	if err != nil {
		return nil, false, err
	}
	return remember(e, b.known), true, nil
}

// shares says whether test showed one of the expected conversions' own bits over all texts; the noisy ones are not run for
// it, since their noise is nobody else's.
func (b *bench) shares(ctx context.Context, test *remembered, without *engine.Spec) (bool, error) {
	var prompts []engine.Prompt
	for _, t := range b.known.texts {
		prompts = append(prompts, engine.Prompt{IDs: t})
	}
	show := func(e engine.Engine) (bits []uint64, err error) {
		err = e.Score(ctx, prompts, engine.Want{TopK: keptTopK}, func(p *engine.Position) error {
			for _, c := range p.Top {
				bits = append(bits, uint64(c.ID), math.Float64bits(c.Logit))
			}
			return nil
		})
		return bits, err
	}
	own, err := show(test)
	if err != nil {
		return false, err
	}
	for i, c := range b.controls {
		if !c.Expected || c.Noisy || without != nil && b.specs[i] == *without {
			continue
		}
		theirs, err := show(c.Engine)
		if err != nil {
			return false, err
		}
		if slices.Equal(own, theirs) {
			return true, nil
		}
	}
	return false, nil
}
