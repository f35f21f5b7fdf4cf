package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/internal/goldens"
	_ "sibyl/model"   // the CPU engine
	_ "sibyl/plain64" // the float64 engine
	"sibyl/trace"
)

// modes of the CPU engine, and the calls in which ids reach it.
var (
	modes = []string{"exact", "fast"}
	paths = []engine.Path{{Chunk: 0}, {Chunk: 1}, {Chunk: 7}}
)

// subject opens an engine for a set: modes "fp64" and "metal-cpu" are engines of their own, others are the CPU engine's.
func subject(ctx context.Context, g *goldens.Set, mode string) (engine.Engine, error) {
	if mode == "fp64" || mode == "metal-cpu" {
		return engine.Open(ctx, mode, engine.Spec{Model: g.Model})
	}
	return engine.Open(ctx, "cpu", engine.Spec{Model: g.Model, Mode: mode})
}

// with opens, calls and closes.
func with(ctx context.Context, set, mode string, f func(*goldens.Set, engine.Engine) error) (err error) {
	g, err := goldens.Read(set, "golden")
	if err != nil {
		return err
	}
	e, err := subject(ctx, g, mode)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := e.Close(); err == nil {
			err = cerr
		}
	}()
	if err := f(g, e); err != nil {
		return fmt.Errorf("%s@%s: %w", set, mode, err)
	}
	return nil
}

// record runs one prompt with every tap on.
func record(ctx context.Context, e engine.Engine, p engine.Prompt, path engine.Path) (*trace.Recorder, error) {
	rec := trace.NewRecorder("", nil, nil, p.IDs)
	want := engine.Want{From: math.MaxInt, Path: path, Taps: rec}
	return rec, e.Score(ctx, []engine.Prompt{p}, want, nil)
}

// compare holds what was recorded to reference ref of a prompt, every tensor and the logits by themselves.
func compare(g *goldens.Set, prompt, ref string, rec *trace.Recorder, bound func(goldens.Case) float64) (all, logits worst) {
	for _, c := range g.Cases(prompt, ref) {
		d := goldens.MaxDiff(rec.Rows(0, c.Tap), c.Want.Data)
		at := prompt + " " + c.Tap
		all.see(d, bound(c), at)
		if c.Tap == "logits" {
			logits.see(d, bound(c), at)
		}
	}
	return all, logits
}

func ownBound(c goldens.Case) float64 { return c.Bound }

func f64Bound(c goldens.Case) float64 { return goldens.F64Bound * max(1, c.Want.MaxAbs()) }

func prompts(g *goldens.Set) []string { return slices.Sorted(maps.Keys(g.Prompts())) }
