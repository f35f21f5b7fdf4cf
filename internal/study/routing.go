package main

import (
	"context"
	"slices"

	"sibyl/engine"
	"sibyl/trace"
)

// routed counts, of one engine on one bench, the tokens in a layer whose set of experts is not that of the exact engine.
type routed struct {
	engine    string
	of, other int
}

// routing compares experts: the one place where a rounding is not a small change.
func routing(ctx context.Context, b *bench) ([]routed, error) {
	exact, err := experts(ctx, b, variant("", contract, "exact", 1))
	if err != nil {
		return nil, err
	}
	var out []routed
	for _, s := range []sound{variant("fast", contract, "fast", 1), noise(0)} {
		sets, err := experts(ctx, b, s)
		if err != nil {
			return nil, err
		}
		r := routed{engine: s.name, of: len(sets)}
		for i := range sets {
			if !slices.Equal(sets[i], exact[i]) {
				r.other++
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// experts gives the set of each token in each layer, sorted.
func experts(ctx context.Context, b *bench, s sound) (sets [][]float32, err error) {
	e, err := s.open(ctx, b)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	var ids [][]int32
	var prompts []engine.Prompt
	for _, p := range b.prompts {
		ids, prompts = append(ids, p.IDs), append(prompts, engine.Prompt{IDs: p.IDs})
	}
	var entries []trace.Entry
	for _, entry := range trace.All(b.cfg) {
		if entry.Tap == trace.MoETopKIndex {
			entries = append(entries, entry)
		}
	}
	rec := trace.NewRecorder(b.model, b.cfg, entries, ids...)
	if err := e.Score(ctx, prompts, engine.Want{Taps: rec}, func(*engine.Position) error { return nil }); err != nil {
		return nil, err
	}
	for i := range ids {
		for _, entry := range entries {
			rows := rec.Rows(i, entry.Name)
			for k := b.cfg.MoE.TopK; len(rows) > 0; rows = rows[k:] {
				set := slices.Clone(rows[:k])
				slices.Sort(set)
				sets = append(sets, set)
			}
		}
	}
	return sets, nil
}
