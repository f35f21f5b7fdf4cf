package main

import (
	"context"
	"fmt"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/internal/goldens"
)

// long teacher-forces 1,025 tokens: logits at 40 positions, the log-likelihood of every token, the states at the end.
func long(ctx context.Context, r *report) error {
	var rows [][]string
	var total, f64 worst
	for _, set := range goldens.Long {
		for _, mode := range append(slices.Clone(modes), "fp64") {
			for _, path := range paths {
				if mode == "fp64" && path.Chunk != 0 {
					continue // its paths share one loop; plain64's tests compare them
				}
				err := with(ctx, set, mode, func(g *goldens.Set, e engine.Engine) error {
					l, err := longRun(ctx, g, e, mode, path)
					if err != nil {
						return err
					}
					rows = append(rows, []string{set, mode, path.String(), num(l.logits), num(l.nll), num(l.states.share), num(l.all.share)})
					l.all.at = fmt.Sprintf("%s, %s, %s", set, path, l.all.at)
					if mode == "fp64" {
						f64.join(l.all)
					} else {
						total.join(l.all)
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
		}
	}
	r.promise("long-*, 1,025 tokens, exact and fast, all paths", "logits and nll 2e-4, states 1e-4 x max(1, largest)",
		fmt.Sprintf("%s of the bound (%s)", num(total.share), total.at), total.ok())
	r.promise("long-*, fp64, against HF fp64", "1e-6 x max(1, largest)", fmt.Sprintf("%s of the bound (%s)", num(f64.share), f64.at), f64.ok())
	r.section("Long texts", "1,025 teacher-forced tokens: logits at 40 positions, negative log-likelihood at all, states at the end. exact and fast are\n"+
		"held to the original's float32 (one prefill, whatever our path), fp64 to its float64.")
	r.table([]string{"set", "mode", "path", ">logits, max abs", ">nll, max abs", ">states, share", ">worst share"}, rows)
	return nil
}

// longFigures are the findings of one run.
type longFigures struct {
	all, states worst
	logits, nll float64
}

// longRun holds one run to "" (float32) or, for the float64 engine, to "f64.".
func longRun(ctx context.Context, g *goldens.Set, e engine.Engine, mode string, path engine.Path) (*longFigures, error) {
	ref, bound := "", func(tap string, w goldens.Tensor) float64 {
		if tap == "states" {
			return goldens.TapBound * max(1, w.MaxAbs())
		}
		return goldens.LogitBound
	}
	if mode == "fp64" {
		ref, bound = "f64.", func(_ string, w goldens.Tensor) float64 { return goldens.F64Bound * max(1, w.MaxAbs()) }
	}
	ids, nll, logits := g.Prompts()[""], g.Tensors[ref+"nll"], g.Tensors[ref+"logits"]
	at := map[int]int{}
	for row, p := range g.Tensors["positions"].IDs() {
		at[int(p)] = row
	}
	l, st := &longFigures{}, new(engine.State)
	err := e.Score(ctx, []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true, Path: path, FinalState: st}, func(p *engine.Position) error {
		if p.Pos+1 < len(ids) {
			d := math.Abs(p.LSE - float64(p.Logits[ids[p.Pos+1]]) - float64(nll.Data[p.Pos]))
			l.nll = max(l.nll, d)
			l.all.see(d, bound("nll", nll), fmt.Sprintf("nll at %d", p.Pos))
		}
		if row, ok := at[p.Pos]; ok {
			d := goldens.MaxDiff(p.Logits, logits.Row(row))
			l.logits = max(l.logits, d)
			l.all.see(d, bound("logits", logits), fmt.Sprintf("logits at %d", p.Pos))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for name, x := range st.Tensors {
		want, ok := g.Tensors[ref+name]
		if !ok && ref != "" {
			continue // of float64 only some states are on record
		}
		l.states.see(goldens.MaxDiff(lastTokens(x, st.Len, want.Shape), want.Data), bound("states", want), name)
	}
	l.all.join(l.states)
	return l, nil
}

// lastTokens cuts [kv heads, T, hd] to the tokens the golden holds; other states pass.
func lastTokens(x engine.StateTensor, tokens int, want []int) []float32 {
	if len(x.Shape) != 3 || x.Shape[1] != tokens || len(want) != 3 {
		return x.Data
	}
	var out []float32
	for h := range x.Shape[0] {
		end := (h + 1) * tokens * x.Shape[2]
		out = append(out, x.Data[end-want[1]*x.Shape[2]:end]...)
	}
	return out
}
