package model

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/gdn"
	"sibyl/internal/goldens"
	"sibyl/internal/shown"
)

// TestEdge holds the adversarial sets to Hugging Face's stepped float32 and its float64, never to its chunked
// float32 prefill (edge-cancel's is off by 0.23).
func TestEdge(t *testing.T) {
	t.Parallel()
	for _, set := range goldens.Edge {
		for _, mode := range []string{"exact", "fast"} {
			t.Run(set+"/"+mode, func(t *testing.T) {
				t.Parallel()
				g := goldens.Load(t, set, "golden")
				e := open(t, g.Model, mode, 1)
				for name, ids := range g.Prompts() {
					for _, path := range []engine.Path{{Chunk: 0}, {Chunk: 1}, {Chunk: 5}} {
						got := run1(t, e, engine.Prompt{IDs: ids}, path)
						for _, ref := range []string{".f64.", ".step."} {
							checkAgainst(t, g, name, ref, path, got)
						}
						if set == "edge-ties" {
							checkTies(t, g, name, got["logits"], mode)
						}
					}
				}
			})
		}
	}
}

func checkAgainst(t *testing.T, g *goldens.Set, prompt, ref string, path engine.Path, got collect) {
	t.Helper()
	for name, want := range g.Tensors {
		tap, ok := strings.CutPrefix(name, prompt+ref)
		if !ok || strings.HasPrefix(tap, "greedy") || tap == "argmax" {
			continue
		}
		x := got[tap]
		if len(x) != len(want.Data) {
			t.Errorf("%s %s: %d numbers, want %v", g.Name, name, len(x), want.Shape)
			continue
		}
		bound := 1e-4 * max(1, want.MaxAbs())
		if tap == "logits" {
			bound = max(2e-4, conditioned(g, prompt))
		}
		if d := maxDiff(x, want.Data); !(d <= bound) {
			t.Errorf("%s %s path %v: max abs %.3g, bound %.3g", g.Name, name, path, d, bound)
		}
	}
}

// checkTies: the id must be in the golden's tie set, and the lowest of it in exact mode, where equal head rows give
// equal logits.
func checkTies(t *testing.T, g *goldens.Set, prompt string, logits []float32, mode string) {
	t.Helper()
	lowest, V := g.Tensors[prompt+".argmax_lowest"].IDs(), 160
	for i, low := range lowest {
		p := shown.Position(0, i, logits[i*V:][:V], 2, false)
		if mode == "exact" && p.ID != low {
			t.Errorf("%s position %d: id %d, want the lowest of the tie, %d", prompt, i, p.ID, low)
		}
		if p.ID != low && (p.ID-low)%80 != 0 && !slices.Contains([]int32{4, 5, 84, 85}, p.ID) {
			t.Errorf("%s position %d: id %d is not in the tie set of %d", prompt, i, p.ID, low)
		}
		if mode == "exact" && len(p.Ties) < 2 {
			t.Errorf("%s position %d: the tie was not seen", prompt, i)
		}
	}
}

// TestLong: 1,025 teacher-forced tokens.
func TestLong(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long sequences: run without -short")
	}
	for _, set := range goldens.Long {
		for _, mode := range []string{"exact", "fast"} {
			t.Run(set+"/"+mode, func(t *testing.T) {
				t.Parallel()
				g := goldens.Load(t, set, "golden")
				e := open(t, g.Model, mode, 2)
				ids := g.Prompts()[""]
				rows := map[int]int{}
				for r, p := range g.Tensors["positions"].IDs() {
					rows[int(p)] = r
				}
				var st engine.State
				worst, flips := 0.0, 0
				err := e.Score(context.Background(), []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true, FinalState: &st},
					func(p *engine.Position) error {
						if want := g.Tensors["argmax"].IDs()[p.Pos]; p.ID != want {
							flips++
							t.Errorf("position %d: argmax %d, want %d (margin %g)", p.Pos, p.ID, want, g.Tensors["margin"].Data[p.Pos])
						}
						if p.Pos+1 < len(ids) {
							nll := p.LSE - float64(p.Logits[ids[p.Pos+1]])
							if d := math.Abs(nll - float64(g.Tensors["nll"].Data[p.Pos])); d > 2e-4 {
								t.Errorf("position %d: nll off by %g", p.Pos, d)
							}
						}
						if r, ok := rows[p.Pos]; ok {
							worst = max(worst, maxDiff(p.Logits, g.Tensors["logits"].Row(r)))
						}
						return nil
					})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("worst logit distance %.2g, flips %d of %d", worst, flips, len(ids))
				if !(worst <= 2e-4) {
					t.Errorf("logits off by %g, bound 2e-4", worst)
				}
				checkFinal(t, g, st)
			})
		}
	}
}

// checkFinal compares the state after the last token; of keys and values the golden holds the last 8 tokens.
func checkFinal(t *testing.T, g *goldens.Set, st engine.State) {
	t.Helper()
	for name, x := range st.Tensors {
		want, ok := g.Tensors[name]
		if !ok {
			t.Errorf("no golden for %s", name)
			continue
		}
		data := x.Data
		if len(x.Shape) == 3 && x.Shape[1] == st.Len { // [kv, T, hd] -> the last tokens
			keep := want.Shape[1]
			data = nil
			for h := range x.Shape[0] {
				data = append(data, x.Data[((h+1)*st.Len-keep)*x.Shape[2]:(h+1)*st.Len*x.Shape[2]]...)
			}
		}
		if d := maxDiff(data, want.Data); len(data) != len(want.Data) || !(d <= 1e-4*max(1, want.MaxAbs())) {
			t.Errorf("%s: max abs %g", name, d)
		}
	}
}

// TestMRope: three different position axes.
func TestMRope(t *testing.T) {
	t.Parallel()
	for _, set := range goldens.Tiny {
		g := goldens.Load(t, set, "golden")
		pos, ok := g.Tensors["p17.mrope3.position_ids"]
		if !ok {
			continue
		}
		n := pos.Shape[1]
		p := engine.Prompt{IDs: g.Prompts()["p17"], PositionIDs: make([][3]int32, n)}
		for i := range n {
			for axis := range 3 {
				p.PositionIDs[i][axis] = int32(pos.Data[axis*n+i])
			}
		}
		for _, mode := range []string{"exact", "fast"} {
			want := g.Tensors["p17.mrope3.logits"].Data
			if d := maxDiff(run1(t, open(t, g.Model, mode, 1), p, engine.Path{})["logits"], want); !(d <= 2e-4) {
				t.Errorf("%s %s: mRoPE logits off by %g", set, mode, d)
			}
		}
	}
}

// TestPassage: the demo model on 200 held-out tokens.
func TestPassage(t *testing.T) {
	t.Parallel()
	g := goldens.Load(t, "opticks-2m", "golden")
	for _, mode := range []string{"exact", "fast"} {
		e := open(t, "", mode, 2)
		for name, ids := range map[string][]int32{"passage": g.Tensors["passage.ids"].IDs(), "p40": g.Tensors["p40.ids"].IDs()} {
			checkTaps(t, g, name, run1(t, e, engine.Prompt{IDs: ids}, engine.Path{}))
		}
		err := e.Score(context.Background(), []engine.Prompt{{IDs: g.Tensors["passage.ids"].IDs()}}, engine.Want{}, func(p *engine.Position) error {
			if m := g.Tensors["passage.margin"].Data[p.Pos]; p.ID != g.Tensors["passage.argmax"].IDs()[p.Pos] && m > 1e-4 {
				t.Errorf("%s position %d: argmax %d differs at margin %g", mode, p.Pos, p.ID, m)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// digest is the hash of all taps, as a trace's data_sha256 would be.
func digest(c collect) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintln(h, name)
		if err := binary.Write(h, binary.LittleEndian, c[name]); err != nil {
			panic(err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestExactIsOrderFree: one set of bits for any thread count and path.
func TestExactIsOrderFree(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"tiny-asym", "tiny-moe", "tiny-dense-gva", "edge-cancel", "edge-decay", "edge-zero-qk"} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			g := goldens.Load(t, set, "golden")
			ids := slices.Concat(slices.Collect(maps.Values(g.Prompts()))...)
			slices.Sort(ids)
			ids = ids[:min(len(ids), 75)]
			want := digest(run1(t, open(t, g.Model, "exact", 1), engine.Prompt{IDs: ids}, engine.Path{}))
			for _, threads := range []int{1, 2, 5} {
				for _, chunk := range []int{0, 1, 3, 64} {
					e := open(t, g.Model, "exact", threads)
					if got := digest(run1(t, e, engine.Prompt{IDs: ids}, engine.Path{Chunk: chunk})); got != want {
						t.Errorf("%d threads, path %v: other bits than 1 thread, prefill", threads, engine.Path{Chunk: chunk})
					}
				}
			}
		})
	}
}

// TestCutAnywhere: a prefill on a state continues it, at every cut.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	g := goldens.Load(t, "tiny-asym", "golden")
	e := open(t, g.Model, "exact", 1)
	ids := g.Prompts()["p9"]
	last := func(want engine.Want, ids []int32) (out []float32) {
		want.Logits = true
		if err := e.Score(context.Background(), []engine.Prompt{{IDs: ids}}, want,
			func(p *engine.Position) error { out = slices.Clone(p.Logits); return nil }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	var whole engine.State
	want := last(engine.Want{FinalState: &whole}, ids)
	for cut := 1; cut < len(ids); cut++ {
		st, err := e.Prefill(context.Background(), engine.Prompt{IDs: ids[:cut]}, engine.Path{})
		if err != nil {
			t.Fatal(err)
		}
		var end engine.State
		if got := last(engine.Want{State: st, FinalState: &end}, ids[cut:]); !slices.Equal(got, want) {
			t.Errorf("cut at %d: other logits than in one pass", cut)
		}
		for name, x := range whole.Tensors {
			if !slices.Equal(end.Tensors[name].Data, x.Data) {
				t.Errorf("cut at %d: %s differs", cut, name)
			}
		}
	}
}

// TestChunkForm judges the chunk form against float64, and demands the recurrent form where its bound fails.
func TestChunkForm(t *testing.T) {
	for _, set := range append(slices.Clone(goldens.Tiny), goldens.Edge...) {
		g := goldens.Load(t, set, "golden")
		e, err := engine.Open(context.Background(), "cpu", engine.Spec{Model: g.Model, Mode: "exact", Delta: "chunk", Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		before := gdn.ChunkFallbacks.Load()
		for name, ids := range g.Prompts() {
			want, ok := g.Tensors[name+".f64.logits"]
			if !ok || len(ids) < 2 {
				continue
			}
			for _, path := range []engine.Path{{}, {Chunk: 33}} {
				if d := maxDiff(run1(t, e, engine.Prompt{IDs: ids}, path)["logits"], want.Data); !(d <= 2e-4) {
					t.Errorf("%s %s path %v: chunk form's logits are %g from float64", set, name, path, d)
				}
			}
		}
		t.Logf("%s: %d chunk heads fell back", set, gdn.ChunkFallbacks.Load()-before)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRagged: a row of a batch equals its own single run, bit for bit, in both modes where the row count alone does
// not pick the kernel.
func TestRagged(t *testing.T) {
	t.Parallel()
	g := goldens.Load(t, "tiny-moe", "golden")
	e := open(t, g.Model, "exact", 2)
	var prompts []engine.Prompt
	for _, name := range slices.Sorted(maps.Keys(g.Prompts())) {
		prompts = append(prompts, engine.Prompt{IDs: g.Prompts()[name]})
	}
	for range 9 { // more than one batch holds
		prompts = append(prompts, engine.Prompt{IDs: g.Prompts()["p17"][:3+len(prompts)]})
	}
	all := make([][][]float32, len(prompts))
	err := e.Score(context.Background(), prompts, engine.Want{Logits: true}, func(p *engine.Position) error {
		if p.Pos != len(all[p.Seq]) {
			t.Fatalf("prompt %d: position %d came after %d", p.Seq, p.Pos, len(all[p.Seq])-1)
		}
		all[p.Seq] = append(all[p.Seq], slices.Clone(p.Logits))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range prompts {
		n := 0
		err := e.Score(context.Background(), []engine.Prompt{p}, engine.Want{Logits: true}, func(pos *engine.Position) error {
			if !slices.Equal(pos.Logits, all[i][pos.Pos]) {
				t.Errorf("prompt %d position %d: other bits in the batch", i, pos.Pos)
			}
			n++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n != len(all[i]) || n != len(p.IDs) {
			t.Errorf("prompt %d: %d positions alone, %d in the batch, %d ids", i, n, len(all[i]), len(p.IDs))
		}
	}
}

// TestNaNIsNoChoice: a row of NaN is shown by Score, but no id is chosen of it, greedily or by a sampler: Generate ends
// there and names the position. A forced id is no choice, and who asks for it sees everything.
func TestNaNIsNoChoice(t *testing.T) {
	t.Parallel()
	const want = "../testdata/checkpoints/nonfinite@cpu,hf-fp32,exact: logits after position 2: found NaN for id 0, want numbers to choose " +
		"the next token by; `sibyl inspect` lists weights that hold NaN or Inf; `sibyl diff` names the tensor where they begin"
	sampler, err := NewSampler(SamplerOptions{Temperature: 1, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(context.Background(), "cpu", engine.Spec{Model: "../testdata/checkpoints/nonfinite"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, tt := range []struct {
		name   string
		opt    engine.Options
		tokens int
		want   string
	}{
		{"greedy", engine.Options{MaxTokens: 3}, 0, want},
		{"sampler", engine.Options{MaxTokens: 3, Choose: sampler.Choose}, 0, want},
		{"forced", engine.Options{Force: []int32{4, 5, 6}}, 3, ""},
		{"asked for", engine.Options{MaxTokens: 3, NonFinite: true}, 3, ""},
	} {
		tokens := 0
		err := e.Generate(context.Background(), engine.Prompt{IDs: []int32{1, 2, 3}}, tt.opt, func(*engine.Token) error { tokens++; return nil })
		if got := fmt.Sprint(err); tokens != tt.tokens || got != cmp.Or(tt.want, "<nil>") {
			t.Errorf("%s: %d tokens, want %d; %s\nwant %s", tt.name, tokens, tt.tokens, got, tt.want)
		}
	}
	positions := 0
	err = e.Score(context.Background(), []engine.Prompt{{IDs: []int32{1, 2, 3}}}, engine.Want{}, func(p *engine.Position) error {
		if positions++; p.Top[0].Logit == p.Top[0].Logit {
			t.Errorf("position %d: the largest logit is %g, want NaN", p.Pos, p.Top[0].Logit)
		}
		return nil
	})
	if err != nil || positions != 3 {
		t.Errorf("Score: %d positions, %v; want all 3", positions, err)
	}
}
