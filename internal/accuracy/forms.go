package main

import (
	"context"
	"fmt"
	"slices"

	"sibyl/engine"
	"sibyl/internal/goldens"
)

// ties: in edge-ties every top-1 is shared by two or four ids. The set is that of the float64 logits.
func ties(ctx context.Context, r *report) error {
	for _, mode := range modes {
		n, member, lowest, seen := 0, 0, 0, 0
		err := with(ctx, "edge-ties", mode, func(g *goldens.Set, e engine.Engine) error {
			for _, name := range prompts(g) {
				low, count := g.Tensors[name+".argmax_lowest"].IDs(), g.Tensors[name+".tie_count"].IDs()
				f64 := g.Tensors[name+".f64.logits"]
				err := e.Score(ctx, []engine.Prompt{{IDs: g.Prompts()[name]}}, engine.Want{TopK: 8}, func(p *engine.Position) error {
					row := f64.Row(p.Pos)
					set := nearTop(row)
					n++
					if slices.Contains(set, p.ID) {
						member++
					}
					if p.ID == low[p.Pos] {
						lowest++
					}
					if len(p.Ties) == int(count[p.Pos]) {
						seen++
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		ok := member == n && (mode == "fast" || lowest == n && seen == n)
		want := "a member of the tie"
		if mode == "exact" {
			want = "the lowest id of the tie, all ids seen"
		}
		r.promise("edge-ties, "+mode, want, fmt.Sprintf("member %d of %d, lowest %d, whole tie seen %d", member, n, lowest, seen), ok)
	}
	return nil
}

// nearTop gives the ids within float32 noise of the row's maximum: the original's own float64, saved as float32, splits
// some ties of equal head rows in the last bit.
func nearTop(row []float32) (ids []int32) {
	top := slices.Max(row)
	for i, v := range row {
		if top-v <= 1e-6*max(1, top) {
			ids = append(ids, int32(i))
		}
	}
	return ids
}

// chunkForm judges the chunked delta rule against float64: the twin is never the reference.
func chunkForm(ctx context.Context, r *report) error {
	var rows [][]string
	var total worst
	for _, set := range slices.Concat(goldens.Tiny, goldens.Edge) {
		for _, mode := range modes {
			g, err := goldens.Read(set, "golden")
			if err != nil {
				return err
			}
			e, err := engine.Open(ctx, "cpu", engine.Spec{Model: g.Model, Mode: mode, Delta: "chunk"})
			if err != nil {
				return err
			}
			var w worst
			before := fallbacks(e)
			for _, name := range prompts(g) {
				want, ids := g.Tensors[name+".f64.logits"], g.Prompts()[name]
				if len(ids) < 2 || want.Data == nil {
					continue
				}
				rec, err := record(ctx, e, engine.Prompt{IDs: ids}, engine.Path{})
				if err != nil {
					return err
				}
				w.see(goldens.MaxDiff(rec.Rows(0, "logits"), want.Data), goldens.LogitBound, set+" "+name)
			}
			rows = append(rows, []string{set, mode, fmt.Sprint(w.n), num(w.abs), fmt.Sprint(fallbacks(e) - before)})
			total.join(w)
			if err := e.Close(); err != nil {
				return err
			}
		}
	}
	r.promise("--delta chunk, logits against HF fp64", num(goldens.LogitBound), fmt.Sprintf("%s (%s)", num(total.abs), total.at), total.ok())
	r.section("The chunk form", "Logits of prompts longer than one token under `--delta chunk`, against the original's float64. Chunks of a head whose decay\n"+
		"is too large for the form's error bound take the recurrent form and are counted.")
	r.table([]string{"set", "mode", ">prompts", ">max abs", ">recurrent instead"}, rows)
	return nil
}

func fallbacks(e engine.Engine) (n int64) {
	for _, v := range e.Info().Fallbacks {
		n += v
	}
	return n
}

// rmsToFloat64 is the distance that accumulates: how far float32 engines are from float64.
func rmsToFloat64(ctx context.Context, r *report) error {
	// Peers on p131, quoted: transformers 5.23 with torch 2.15, and llama.cpp with F32 weights.
	quoted := []struct {
		set       string
		hf, llama float64
	}{{"tiny-dense-tied", 6.2e-6, 2.7e-6}, {"tiny-dense-gva", 2.8e-6, 1.6e-6}, {"tiny-realdims", 2.9e-6, 1.6e-6}}
	var rows [][]string
	for _, q := range quoted {
		got := map[string]float64{}
		for _, mode := range append(slices.Clone(modes), "fp64") {
			err := with(ctx, q.set, mode, func(g *goldens.Set, e engine.Engine) error {
				rec, err := record(ctx, e, engine.Prompt{IDs: g.Prompts()["p131"]}, engine.Path{})
				if err != nil {
					return err
				}
				f64 := g.Tensors["p131.f64.logits"].Data
				got[mode] = goldens.RMS(rec.Rows(0, "logits"), f64)
				got["hf"] = goldens.RMS(g.Tensors["p131.logits"].Data, f64)
				return nil
			})
			if err != nil {
				return err
			}
		}
		rows = append(rows, []string{q.set, num(got["exact"]), num(got["fast"]), num(got["fp64"]), num(got["hf"]), num(q.hf), num(q.llama)})
		r.promise("rms to fp64, exact, "+q.set, "llama.cpp F32's "+num(q.llama), num(got["exact"]), got["exact"] <= q.llama)
		r.promise("rms to fp64, fast, "+q.set, "HF's "+num(q.hf), num(got["fast"]), got["fast"] <= q.hf)
	}
	r.section("Distance to float64", "Rms of the logits of p131 to the original in float64 (saved as float32, which floors the fp64 column). \"HF, recorded\" is\n"+
		"the float32 run in testdata/goldens, whose versions its golden.json names; the two columns marked * are quoted:\n"+
		"transformers 5.23 with torch 2.15, and llama.cpp with F32 weights.")
	r.table([]string{"set", ">sibyl exact", ">sibyl fast", ">sibyl fp64", ">HF, recorded", ">HF 5.23 *", ">llama.cpp F32 *"}, rows)
	return nil
}

// float64Row holds the float64 engine to the original in float64.
func float64Row(ctx context.Context, r *report) error {
	var rows [][]string
	var total worst
	for _, set := range slices.Concat(goldens.Tiny, goldens.Edge, []string{"opticks-2m"}) {
		err := with(ctx, set, "fp64", func(g *goldens.Set, e engine.Engine) error {
			var w worst
			for _, name := range prompts(g) {
				rec, err := record(ctx, e, engine.Prompt{IDs: g.Prompts()[name]}, engine.Path{})
				if err != nil {
					return err
				}
				all, _ := compare(g, name, "f64", rec, f64Bound)
				w.join(all)
			}
			rows = append(rows, []string{set, fmt.Sprint(w.n), num(w.share), w.at})
			w.at = set + " " + w.at
			total.join(w)
			return nil
		})
		if err != nil {
			return err
		}
	}
	r.promise("fp64 engine, against HF fp64", "1e-6 x max(1, largest)", fmt.Sprintf("%s of the bound (%s)", num(total.share), total.at), total.ok())
	r.section("The float64 engine", "Every float64 tensor on record. They were saved as float32, which alone may cost 0.06 of the bound.")
	r.table([]string{"set", ">tensors", ">share", "worst tensor"}, rows)
	return nil
}
