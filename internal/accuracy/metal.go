package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/internal/goldens"
	_ "sibyl/metal" // the kernels on the CPU device
)

// metalKernels holds sibyl's Metal kernels, run by the CPU device under hf-fp32, to every golden as the CPU engine is held; and once
// more with nothing but 1e-4 of each tensor's own largest value as the bound.
func metalKernels(ctx context.Context, r *report) error {
	const engineName = "metal-cpu"
	r.section("Metal kernels", "Engine metal-cpu: sibyl's own kernels, compiled for this CPU, under hf-fp32. As above; edge-* against float64 and the original's float32\n"+
		"steps. The column \"of the largest\" is a share of 1e-4 of the tensor's own largest value, however small that is. No kernel has run on a GPU yet.")
	var rows [][]string
	var total, strict worst
	var chosen tally
	for _, set := range slices.Concat(goldens.Tiny, goldens.Edge, []string{"opticks-2m"}) {
		err := with(ctx, set, engineName, func(g *goldens.Set, e engine.Engine) error {
			refs := []string{""}
			if slices.Contains(goldens.Edge, set) {
				refs = []string{"f64", "step"}
			}
			row, all, err := pathShares(ctx, g, e, refs)
			if err != nil {
				return err
			}
			total.join(all)
			own, err := ownLargest(ctx, g, e, refs)
			if err != nil {
				return err
			}
			strict.join(own)
			rows = append(rows, append(append([]string{set}, row[:len(row)-1]...), num(own.share), row[len(row)-1]))
			return metalIDs(ctx, g, e, &chosen)
		})
		if errors.Is(err, engine.ErrUnavailable) {
			r.note("not measured: %v", err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	for _, set := range goldens.Long {
		err := with(ctx, set, engineName, func(g *goldens.Set, e engine.Engine) error {
			l, err := longRun(ctx, g, e, engineName, engine.Path{})
			if err != nil {
				return err
			}
			l.all.at = set + " " + l.all.at
			total.join(l.all)
			rows = append(rows, []string{set, fmt.Sprint(l.all.n), num(l.all.share), "", "", num(l.logits), "", "", "", l.all.at})
			return argmaxes(ctx, g, e, engineName, &chosen)
		})
		if err != nil {
			return err
		}
	}
	r.promise("metal-cpu, hf-fp32: every golden, taps and states, prefill, step, chunk=7", "1e-4 x max(1, largest); logits 2e-4",
		fmt.Sprintf("%s of the bound over %d comparisons (%s)", num(total.share), total.n, total.at), total.ok())
	r.promise("metal-cpu, hf-fp32: the same taps, prefill", "1e-4 of the tensor's own largest value",
		fmt.Sprintf("%s of the bound over %d tensors (%s)", num(strict.share), strict.n, strict.at), strict.ok())
	r.promise("metal-cpu, hf-fp32: greedy ids, opticks passages, argmax of long-*", "identical; below a margin of 1e-4 the tie rule",
		fmt.Sprintf("%d of %d identical, %d positions below the margin", chosen.same, chosen.n, len(chosen.near)), len(chosen.wrong) == 0 && chosen.n > 0)
	r.table([]string{"set", ">tensors", ">prefill", ">step", ">chunk=7", ">logits to HF fp32", ">logits to HF fp64", ">HF fp32 to HF fp64", ">of the largest", "worst tensor"}, rows)
	for _, s := range append(chosen.near, chosen.wrong...) {
		r.note("- %s", s)
	}
	return nil
}

// ownLargest holds every tap of a prefill to 1e-4 of its own largest value. Of one-token prompts whose logits the original itself does
// not know so well the bound is goldens'.
func ownLargest(ctx context.Context, g *goldens.Set, e engine.Engine, refs []string) (w worst, err error) {
	for _, name := range prompts(g) {
		rec, err := record(ctx, e, engine.Prompt{IDs: g.Prompts()[name]}, engine.Path{})
		if err != nil {
			return w, err
		}
		for _, ref := range refs {
			all, _ := compare(g, name, ref, rec, func(c goldens.Case) float64 {
				own := max(goldens.TapBound*c.Want.MaxAbs(), math.SmallestNonzeroFloat32)
				if c.Tap == "logits" && c.Bound > goldens.LogitBound {
					return max(own, c.Bound)
				}
				return own
			})
			w.join(all)
		}
	}
	w.at = g.Name + " " + w.at
	return w, nil
}

// metalIDs compares the recorded greedy rollouts and the passage's argmax.
func metalIDs(ctx context.Context, g *goldens.Set, e engine.Engine, t *tally) error {
	if err := rollouts(ctx, g, e, t); err != nil {
		return err
	}
	return argmaxes(ctx, g, e, "metal-cpu", t)
}
