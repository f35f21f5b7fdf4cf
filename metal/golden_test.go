package metal_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/metal/gpu/gputest"
	"sibyl/precision"
	"sibyl/quant"

	_ "sibyl/metal"
	_ "sibyl/model" // the oracle that ids are held to
)

func open(t testing.TB, name string, spec engine.Spec) engine.Engine {
	t.Helper()
	if strings.HasPrefix(name, "metal") {
		gputest.CPU(t)
	}
	e, err := engine.Open(context.Background(), name, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// collect keeps every tap, rows in place.
type collect map[string][]float32

func (c collect) Wants(string) bool { return true }

func (c collect) Put(name string, _, pos, rows int, x []float32) error {
	w := len(x) / rows
	if n := (pos + rows) * w; len(c[name]) < n {
		c[name] = append(c[name], make([]float32, n-len(c[name]))...)
	}
	copy(c[name][pos*w:], x)
	return nil
}

// TestGoldens holds every tap of every golden prompt to Hugging Face under hf-fp32, within the bound of a float32 engine (1e-4 of
// the largest value, at least 1e-4), and the argmax of every position.
func TestGoldens(t *testing.T) {
	t.Parallel()
	sets := slices.Concat(goldens.Tiny, goldens.Edge, []string{"opticks-2m"})
	if testing.Short() {
		sets = []string{"tiny-asym", "tiny-moe"}
	}
	for _, name := range sets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := goldens.Load(t, name, "golden")
			e := open(t, "metal-cpu", engine.Spec{Model: g.Model})
			worst, at, cases := 0.0, "", 0
			for _, prompt := range slices.Sorted(maps.Keys(g.Prompts())) {
				ids := g.Prompts()[prompt]
				list := references(g, prompt)
				if len(list) == 0 || testing.Short() && len(ids) > 70 {
					continue
				}
				taps, got := collect{}, []int32(nil)
				err := e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, engine.Want{Taps: taps}, func(p *engine.Position) error {
					got = append(got, p.ID)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range list {
					x := taps[c.Tap]
					cases++
					if strings.HasSuffix(c.Tap, "topk_index") || strings.HasSuffix(c.Tap, "topk_weights") {
						continue // the ids of a near tie of two experts may fall either way: the probabilities are compared
					}
					d := goldens.MaxDiff(x, c.Want.Data)
					if d/c.Bound > worst {
						worst, at = d/c.Bound, prompt+"."+c.Tap
					}
					if !(d <= c.Bound) {
						t.Errorf("%s %s: %.3g apart, bound %.3g", prompt, c.Tap, d, c.Bound)
					}
				}
				if !slices.Contains(goldens.Edge, name) {
					sameIDs(t, g, prompt, got)
				}
			}
			t.Logf("%d tensors, worst %.2f of the bound (%s)", cases, worst, at)
		})
	}
}

// references are what a set's prompt is held to: float32's prefill, but of the adversarial sets float64 and the float32 steps, since
// Hugging Face's own chunked prefill is wrong there.
func references(g *goldens.Set, prompt string) []goldens.Case {
	if slices.Contains(goldens.Edge, g.Name) {
		return append(g.Cases(prompt, "f64"), g.Cases(prompt, "step")...)
	}
	return g.Cases(prompt, "")
}

// TestLong: 1,025 teacher-forced tokens, logits where they are on record and the negative log-likelihood everywhere.
func TestLong(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		return
	}
	for _, name := range goldens.Long {
		g := goldens.Load(t, name, "golden")
		e := open(t, "metal-cpu", engine.Spec{Model: g.Model})
		ids, nll, logits, worst := g.Prompts()[""], g.Tensors["nll"], g.Tensors["logits"], 0.0
		at := map[int]int{}
		for row, p := range g.Tensors["positions"].IDs() {
			at[int(p)] = row
		}
		err := e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true}, func(p *engine.Position) error {
			if p.Pos+1 < len(ids) {
				worst = max(worst, math.Abs(p.LSE-float64(p.Logits[ids[p.Pos+1]])-float64(nll.Data[p.Pos])))
			}
			if row, ok := at[p.Pos]; ok {
				worst = max(worst, goldens.MaxDiff(p.Logits, logits.Row(row)))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if t.Logf("%s: %.3g", name, worst); worst > goldens.LogitBound {
			t.Errorf("%s: %.3g apart, bound %.3g", name, worst, goldens.LogitBound)
		}
	}
}

// sameIDs holds the argmax of every position to the recorded one; where the two largest logits are closer than twice the bound of a
// logit either may be.
func sameIDs(t *testing.T, g *goldens.Set, prompt string, got []int32) {
	t.Helper()
	want, ok := g.Tensors[prompt+".argmax"]
	if low, has := g.Tensors[prompt+".argmax_lowest"]; has {
		want, ok = low, true
	}
	if !ok {
		return
	}
	logits := g.Tensors[prompt+".logits"]
	for i, id := range want.IDs() {
		if got[i] == id {
			continue
		}
		row := logits.Row(i)
		if d := math.Abs(float64(row[id]) - float64(row[got[i]])); d > 2*goldens.LogitBound {
			t.Errorf("%s position %d: id %d, want %d, whose logit is %.3g larger", prompt, i, got[i], id, d)
		}
	}
}

// floor is the gate's: a flip where the reference's own margin is below it is NEAR, not the engine's.
const floor = 0.1

// TestRollouts holds greedy decoding to the oracle's, re-anchored: hf-fp32 as stored, and coreai-fp16 under every scheme, on the
// goldens and on 12 prompts of 64 tokens of the demo model. A flip must be a tie or near one; every flip is listed, as docs/metal.md has it.
func TestRollouts(t *testing.T) {
	t.Parallel()
	type part struct{ contract, scheme string }
	parts := []part{{"hf-fp32", ""}}
	for _, s := range quant.Names() {
		parts = append(parts, part{"coreai-fp16", s})
	}
	sets := slices.Concat(goldens.Tiny, goldens.Edge, []string{"opticks-2m"})
	if testing.Short() {
		sets, parts = []string{"tiny-asym", "tiny-moe"}, []part{{"coreai-fp16", "int8hu-sym"}}
	}
	for _, p := range parts {
		for _, set := range sets {
			if os.Getenv("SIBYL_LONG") == "" && set != "tiny-asym" && p.scheme != "" && p.scheme != "int8hu-sym" {
				continue // SIBYL_LONG=1 runs every scheme on every set: docs/metal.md has what it gave
			}
			t.Run(fmt.Sprintf("%s/%s/%s", p.contract, p.scheme, set), func(t *testing.T) {
				t.Parallel()
				g := goldens.Load(t, set, "golden")
				spec := engine.Spec{Model: g.Model, Contract: p.contract, Scheme: p.scheme}
				test := open(t, "metal-cpu", spec)
				spec.Mode = "exact"
				ref := open(t, "cpu", spec)
				prompts, n := g.Rollouts()
				tokens, flips := 0, 0
				for i, ids := range prompts {
					chosen := roll(t, ref, ids, engine.Options{MaxTokens: n, NonFinite: true})
					got := roll(t, test, ids, engine.Options{Force: idsOf(chosen)})
					for k, want := range chosen {
						tokens++
						if got[k].ID == want.ID {
							continue
						}
						flips++
						verdict, gap, apart := "", 0.0, 0.0
						switch {
						case slices.Contains(got[k].Ties, want.ID):
							verdict = "TIE: both are among its maxima"
						case want.LogitGap() < floor:
							verdict = "NEAR: below the floor"
						default:
							context := slices.Concat(ids, idsOf(chosen[:k]))
							if gap, apart = realisations(t, spec, context, want.ID, got[k].ID); gap <= 2*apart {
								verdict = fmt.Sprintf("NEAR: a gap of %.4f, the contract's realisations %.4f apart", gap, apart)
							}
						}
						t.Logf("| %s | %s | %s | %d, %d | %d | %d | %.4f | %s |", p.contract, p.scheme, set, i+1, k, got[k].ID, want.ID, want.LogitGap(), verdict)
						if verdict == "" {
							t.Errorf("neither TIE nor NEAR: a gap of %.4f, realisations %.4f apart", gap, apart)
						}
					}
				}
				t.Logf("%d prompts, %d tokens, %d flips", len(prompts), tokens, flips)
			})
		}
	}
}

// realisations gives the oracle's gap between two ids after a context, and the largest distance of a logit among the realisations of its
// contract: the second half of the verdict NEAR.
func realisations(t *testing.T, spec engine.Spec, context []int32, r, other int32) (gap, apart float64) {
	t.Helper()
	var first []float32
	for _, name := range append([]string{spec.Contract}, precision.Realisations(spec.Contract)...) {
		for _, mode := range []string{"exact", "fast"} {
			spec.Contract, spec.Mode = name, mode
			e := open(t, "cpu", spec)
			err := e.Score(t.Context(), []engine.Prompt{{IDs: context}}, engine.Want{From: len(context) - 1, Logits: true}, func(p *engine.Position) error {
				if first == nil {
					first = slices.Clone(p.Logits)
					gap = float64(first[r]) - float64(first[other])
				}
				apart = max(apart, goldens.MaxDiff(first, p.Logits))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return gap, apart
}

// roll gives what an engine showed before each token of a rollout: its own choices, also under Force.
func roll(t *testing.T, e engine.Engine, ids []int32, o engine.Options) (out []engine.Position) {
	t.Helper()
	err := e.Generate(t.Context(), engine.Prompt{IDs: ids}, o, func(tok *engine.Token) error {
		p := tok.Position
		p.Ties, p.Top = slices.Clone(p.Ties), slices.Clone(p.Top)
		out = append(out, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func idsOf(positions []engine.Position) (ids []int32) {
	for _, p := range positions {
		ids = append(ids, p.ID)
	}
	return ids
}

// TestManyPositions: 4,097 positions, one past a power of two and eight splits of the cache: steps on the oracle's state of 4,094 tokens give
// what the oracle gives, and leave a state of every token. SIBYL_LONG=1 prefills them too (docs/metal.md).
func TestManyPositions(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		return
	}
	const n, steps = 4094, 3
	g := goldens.Load(t, "tiny-dense-tied", "golden")
	ids := make([]int32, n+steps)
	for i := range ids {
		ids[i] = int32((i*i*31 + i*7 + 3) % 509)
	}
	spec := engine.Spec{Model: g.Model, Mode: "fast"}
	ref, test := open(t, "cpu", spec), open(t, "metal-cpu", spec)
	before, err := ref.(engine.Stater).Prefill(t.Context(), engine.Prompt{IDs: ids[:n]}, engine.Path{})
	if err != nil {
		t.Fatal(err)
	}
	run := func(e engine.Engine, want engine.Want, ids []int32) (rows [][]float32, st *engine.State) {
		st = new(engine.State)
		want.Logits, want.FinalState, want.From = true, st, n
		err := e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, want, func(p *engine.Position) error {
			rows = append(rows, slices.Clone(p.Logits))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if st.Len != n+steps || len(rows) != steps {
			t.Fatalf("a state of %d tokens, %d rows of logits", st.Len, len(rows))
		}
		return rows, st
	}
	want, end := run(ref, engine.Want{State: before}, ids[n:])
	paths := map[string]engine.Want{"steps on the oracle's state": {State: before, Path: engine.Path{Chunk: 1}}}
	if os.Getenv("SIBYL_LONG") != "" {
		paths["all of it"] = engine.Want{}
	}
	for name, w := range paths {
		from := ids
		if w.State != nil {
			from = ids[n:]
		}
		got, st := run(test, w, from)
		worst := 0.0
		for i := range want {
			worst = max(worst, goldens.MaxDiff(want[i], got[i]))
		}
		for tensor, x := range end.Tensors {
			most := 1.0
			for _, v := range x.Data {
				most = max(most, math.Abs(float64(v)))
			}
			if d := goldens.MaxDiff(st.Tensors[tensor].Data, x.Data); !(d <= goldens.TapBound*most) {
				t.Errorf("%s: %s %.3g apart, bound %.3g", name, tensor, d, goldens.TapBound*most)
			}
		}
		if t.Logf("%s: logits %.3g apart", name, worst); !(worst <= goldens.LogitBound) {
			t.Errorf("%s: logits %.3g apart, bound %.3g", name, worst, goldens.LogitBound)
		}
	}
}
