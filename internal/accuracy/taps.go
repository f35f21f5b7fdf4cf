package main

import (
	"context"
	"fmt"
	"slices"

	"sibyl/engine"
	"sibyl/internal/goldens"
)

// taps holds every tap of every prompt of tiny-* and of the demo model to transformers in float32, on every path; mRoPE too.
func taps(ctx context.Context, r *report) error {
	var rows, single [][]string
	var total, axes worst
	for _, set := range append(slices.Clone(goldens.Tiny), "opticks-2m") {
		for _, mode := range modes {
			err := with(ctx, set, mode, func(g *goldens.Set, e engine.Engine) error {
				row, all, err := pathShares(ctx, g, e, []string{""})
				if err != nil {
					return err
				}
				rows = append(rows, append([]string{set, mode}, row...))
				total.join(all)
				s, err := singles(ctx, g, e, mode)
				if err != nil {
					return err
				}
				single = append(single, s...)
				m, err := mrope(ctx, g, e)
				axes.join(m)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	r.promise("every tap of tiny-* and opticks-2m, exact and fast, prefill, step, chunk=7", "1e-4 x max(1, largest); logits 2e-4",
		fmt.Sprintf("%s of the bound over %d comparisons (%s)", num(total.share), total.n, total.at), total.ok())
	r.promise("mRoPE, three different axes, logits", num(goldens.LogitBound), fmt.Sprintf("%s over %d runs", num(axes.abs), axes.n), axes.ok())
	r.section("Every tap", "Every prompt on record. Shares of the bound per path over all taps and states; then the logits\n"+
		"as the largest absolute difference over the paths, bound 2e-4, to the original in float32 and in float64, and between these\n"+
		"two: most of our distance to its float32 is its own (one-token prompts: see below). tiny-moe has experts and a shared\n"+
		"expert; tiny-asym has no two axes alike.")
	r.table([]string{"set", "mode", ">tensors", ">prefill", ">step", ">chunk=7", ">logits to HF fp32", ">logits to HF fp64", ">HF fp32 to HF fp64", "worst tensor"}, rows)
	r.note("Prompts of one token are ill-conditioned in the original itself where its own float32 is far from its own float64; the\n" +
		"bound of their logits is 2e-4, or ten times that distance if that is more.")
	r.table([]string{"prompt", "mode", ">HF fp32 to HF fp64", ">bound", ">sibyl to HF fp32", ">sibyl to HF fp64"}, single)
	return nil
}

// pathShares runs every prompt on every path against the references: the columns from "tensors" on.
func pathShares(ctx context.Context, g *goldens.Set, e engine.Engine, refs []string) (row []string, all worst, err error) {
	var shares []string
	n, logits, f64, own := 0, 0.0, 0.0, 0.0
	for _, path := range paths {
		var here worst
		for _, name := range prompts(g) {
			rec, err := record(ctx, e, engine.Prompt{IDs: g.Prompts()[name]}, path)
			if err != nil {
				return nil, all, err
			}
			for _, ref := range refs {
				w, l := compare(g, name, ref, rec, ownBound)
				here.join(w)
				if len(g.Prompts()[name]) > 1 {
					logits = max(logits, l.abs)
				}
			}
			if x := g.Tensors[name+".f64.logits"]; x.Data != nil && len(g.Prompts()[name]) > 1 {
				f64 = max(f64, goldens.MaxDiff(rec.Rows(0, "logits"), x.Data))
				own = max(own, goldens.MaxDiff(g.Tensors[name+".logits"].Data, x.Data))
			}
		}
		n = here.n
		all.join(here)
		shares = append(shares, num(here.share))
	}
	all.at = g.Name + " " + all.at
	row = append([]string{fmt.Sprint(n)}, shares...)
	return append(row, num(logits), num(f64), num(own), all.at[len(g.Name)+1:]), all, nil
}

// singles are the rows of the one-token prompts.
func singles(ctx context.Context, g *goldens.Set, e engine.Engine, mode string) (rows [][]string, err error) {
	for _, name := range prompts(g) {
		if len(g.Prompts()[name]) != 1 {
			continue
		}
		rec, err := record(ctx, e, engine.Prompt{IDs: g.Prompts()[name]}, engine.Path{})
		if err != nil {
			return nil, err
		}
		got, f32, f64 := rec.Rows(0, "logits"), g.Tensors[name+".logits"].Data, g.Tensors[name+".f64.logits"].Data
		i := slices.IndexFunc(g.Cases(name, ""), func(c goldens.Case) bool { return c.Tap == "logits" })
		rows = append(rows, []string{g.Name + " " + name, mode, num(goldens.MaxDiff(f32, f64)), num(g.Cases(name, "")[i].Bound),
			num(goldens.MaxDiff(got, f32)), num(goldens.MaxDiff(got, f64))})
	}
	return rows, nil
}

// mrope compares the logits under three different position axes, where a set has them.
func mrope(ctx context.Context, g *goldens.Set, e engine.Engine) (w worst, err error) {
	for _, name := range prompts(g) {
		pos, ok := g.Tensors[name+".mrope3.position_ids"]
		if !ok {
			continue
		}
		p := engine.Prompt{IDs: g.Prompts()[name], PositionIDs: make([][3]int32, pos.Shape[1])}
		for i, v := range pos.IDs() {
			p.PositionIDs[i%pos.Shape[1]][i/pos.Shape[1]] = v
		}
		for _, path := range paths {
			rec, err := record(ctx, e, p, path)
			if err != nil {
				return w, err
			}
			d := goldens.MaxDiff(rec.Rows(0, "logits"), g.Tensors[name+".mrope3.logits"].Data)
			w.see(d, goldens.LogitBound, g.Name+" "+name)
		}
	}
	return w, nil
}

// edge holds the adversarial sets to the original's steps and to its float64, never to its chunked float32 prefill.
func edge(ctx context.Context, r *report) error {
	var rows [][]string
	var total worst
	for _, set := range goldens.Edge {
		for _, mode := range modes {
			err := with(ctx, set, mode, func(g *goldens.Set, e engine.Engine) error {
				row, all, err := pathShares(ctx, g, e, []string{"f64", "step"})
				total.join(all)
				rows = append(rows, append([]string{set, mode}, row...))
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	r.promise("edge-*, against HF fp64 and HF's float32 steps", "1e-4 x max(1, largest); logits 2e-4",
		fmt.Sprintf("%s of the bound over %d comparisons (%s)", num(total.share), total.n, total.at), total.ok())
	r.section("Edge cases", "Decays that swing by orders of magnitude, keys of zero, equal head rows. References: what the original records token by\n"+
		"token (where it does) and in float64. Its float32 prefill, the chunked form, is no reference here: the column before the last\n"+
		"says how far that is from its own float64.")
	r.table([]string{"set", "mode", ">tensors", ">prefill", ">step", ">chunk=7", ">logits to both", ">logits to HF fp64", ">HF fp32 prefill to HF fp64", "worst tensor"}, rows)
	if err := ties(ctx, r); err != nil {
		return err
	}
	return chunkForm(ctx, r)
}
