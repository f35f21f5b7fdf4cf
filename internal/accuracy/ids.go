package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sibyl/engine"
	"sibyl/internal/goldens"
)

// nearMargin: two float32 runs of the same model may choose either of two logits closer than this.
const nearMargin = 1e-4

// tally counts the positions of one kind in one mode.
type tally struct {
	n, same int
	near    []string // positions whose margin is below nearMargin, with what was chosen
	wrong   []string // positions that differ at a larger margin
}

func (t *tally) see(got, want int32, margin float64, where string) {
	t.n++
	if got == want {
		t.same++
	}
	switch {
	case margin < nearMargin:
		t.near = append(t.near, fmt.Sprintf("%s: margin %s, chosen %d, on record %d", where, num(margin), got, want))
	case got != want:
		t.wrong = append(t.wrong, fmt.Sprintf("%s: margin %s, chosen %d, on record %d", where, num(margin), got, want))
	}
}

// ids compares every recorded choice: greedy rollouts, and the argmax of passages and long texts.
func ids(ctx context.Context, r *report) error {
	var rows [][]string
	var near []string
	n, same, wrong := 0, 0, 0
	for _, mode := range append(slices.Clone(modes), "fp64") {
		for _, set := range slices.Concat(goldens.Tiny, goldens.Edge, []string{"opticks-2m"}, goldens.Long) {
			var rolls, passages tally
			err := with(ctx, set, mode, func(g *goldens.Set, e engine.Engine) error {
				if err := rollouts(ctx, g, e, &rolls); err != nil {
					return err
				}
				return argmaxes(ctx, g, e, mode, &passages)
			})
			if err != nil {
				return err
			}
			for _, t := range []struct {
				what string
				tally
			}{{"greedy", rolls}, {"argmax", passages}} {
				if t.n == 0 {
					continue
				}
				rows = append(rows, []string{set, mode, t.what, fmt.Sprintf("%d of %d", t.same, t.n), fmt.Sprint(len(t.near)), strings.Join(t.wrong, "; ")})
				n, same, wrong = n+t.n, same+t.same, wrong+len(t.wrong)
				for _, s := range t.near {
					near = append(near, fmt.Sprintf("%s, %s", mode, s))
				}
			}
		}
	}
	r.promise("greedy ids, opticks passages, argmax of long-*", "identical; below a margin of 1e-4 the tie rule",
		fmt.Sprintf("%d of %d identical, %d positions below the margin", same, n, len(near)), wrong == 0 && n > 0)
	r.section("Ids", "Greedy rollouts (each token from the engine's own choice before) and the argmax of every position of the passages, against\n"+
		"the original's float32 (fp64: its float64 where that was recorded).")
	r.table([]string{"set", "mode", "kind", ">identical", ">margin < 1e-4", "differs above it"}, rows)
	if len(near) == 0 {
		r.note("No position on record has a margin below 1e-4 but the ties of edge-ties.")
	} else {
		r.note("Positions whose margin on record is below 1e-4:\n\n- %s", strings.Join(near, "\n- "))
	}
	return nil
}

// rollouts generates what was recorded. edge-ties' rollouts are ties at every step: there the lowest id is on record.
func rollouts(ctx context.Context, g *goldens.Set, e engine.Engine, t *tally) error {
	for _, name := range prompts(g) {
		want, ok := g.Tensors[name+".greedy.ids"]
		if !ok {
			continue
		}
		margins := g.Tensors[name+".greedy.top2_margin"].Data
		if margins == nil {
			margins = g.Tensors[name+".greedy.margin"].Data
		}
		ids := want.IDs()
		err := e.Generate(ctx, engine.Prompt{IDs: g.Prompts()[name]}, engine.Options{MaxTokens: len(ids)}, func(tok *engine.Token) error {
			margin := float64(margins[tok.Index])
			if g.Name == "edge-ties" {
				margin = 1 // its ties have a table row of their own; here they must be identical
			}
			t.see(tok.ID, ids[tok.Index], margin, fmt.Sprintf("%s %s token %d", g.Name, name, tok.Index))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// argmaxes compares the choice at every position of opticks-2m's passage and of the long texts.
func argmaxes(ctx context.Context, g *goldens.Set, e engine.Engine, mode string, t *tally) error {
	prefix, prompt := "", ""
	switch {
	case g.Name == "opticks-2m":
		prefix, prompt = "passage.", "passage"
	case !slices.Contains(goldens.Long, g.Name):
		return nil
	}
	want, margin := g.Tensors[prefix+"argmax"].IDs(), g.Tensors[prefix+"margin"].Data
	if x, ok := g.Tensors["f64.argmax"]; ok && mode == "fp64" {
		want, margin = x.IDs(), g.Tensors["f64.margin"].Data
	}
	return e.Score(ctx, []engine.Prompt{{IDs: g.Prompts()[prompt]}}, engine.Want{}, func(p *engine.Position) error {
		t.see(p.ID, want[p.Pos], float64(margin[p.Pos]), fmt.Sprintf("%s position %d", strings.TrimSpace(g.Name+" "+prompt), p.Pos))
		return nil
	})
}
