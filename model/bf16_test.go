package model

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/internal/shown"
	"sibyl/precision"
)

// moduleRun is a bf16-modules set run through the decoder under a contract, every module fed its golden input. The mixers
// have tests of their own (packages gdn and attention): here only what is outside of them is held.
type moduleRun struct {
	d      *Decoder
	g      *goldens.Modules
	points *goldens.Points
}

// runModules runs all calls of a set.
func runModules(t testing.TB, g *goldens.Modules, c *precision.Contract) *goldens.Points {
	t.Helper()
	ck, err := bundle.Open(g.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	d, err := Bind(ck, &Plan{Contract: c})
	if err != nil {
		t.Fatal(err)
	}
	r := &moduleRun{d: d, g: g, points: new(goldens.Points)}
	state := d.NewState()
	for _, call := range g.Calls {
		r.call(t, call, state)
	}
	return r.points
}

func (r *moduleRun) get(t testing.TB, name string) []float32 { return r.g.Get(t, name).Data }

func (r *moduleRun) call(t testing.TB, mc goldens.ModuleCall, state *State) {
	t.Helper()
	H, T := r.d.Config.HiddenSize, len(mc.IDs)
	call := &Call{States: []*State{state}}
	call.Seqs, call.Rows = []ragged.Seq{{Len: T, Pos: mc.Pos}}, T
	call.Pool, call.Arith = kernels.NewPool(1), kernels.Exact
	call.Sink = &goldens.Force{Modules: r.g, Prefix: mc.Prefix, Check: func(tap string, got, want []float32) { r.check(t, mc.Prefix, tap, got, want) }}

	x := make([]float32, T*H)
	r.d.Embedding(x, mc.IDs, call)
	for l := range r.d.Layers {
		at := fmt.Sprintf("%slayer%d.", mc.Prefix, l)
		r.points.BF16("residual chain", at, x, r.get(t, at+"input_norm.in"), 1)
		r.d.Layer(l, x, call)
		switch ff := r.d.Layers[l].MLP.(type) {
		case *MLP:
			r.mlp(t, ff, "mlp", at, at+"mlp.", at+"mlp_out", &call.Batch)
		case *MoE:
			r.mlp(t, &ff.Shared, "moe.shared", at, at+"moe.shared.", at+"moe.shared_out_ungated", &call.Batch)
			r.experts(t, ff, at, &call.Batch)
		}
	}
	r.d.Normed(x, x, call)
	logits := make([]float32, T*r.d.Config.VocabSize)
	r.d.Logits(logits, x, T, call)
	r.sum("linear logits", mc.Prefix, logits, r.get(t, mc.Prefix+"logits"), x, r.d.Head)
	state.Len += T
}

// sum holds a product x w^T.
func (r *moduleRun) sum(point, where string, got, want, x []float32, w *kernels.Matrix) {
	size := func() []float64 { return goldens.SumAbs(x, w.Floats(), w.Cols)() }
	r.points.Sum(point, where, got, want, size, goldens.SumSlack, goldens.EqualShare)
}

// check holds one tap, whose input was the golden before it.
func (r *moduleRun) check(t testing.TB, prefix, name string, got, want []float32) {
	t.Helper()
	l, tap, inLayer := goldens.LayerTap(name)
	at := fmt.Sprintf("%slayer%d.", prefix, l)
	if !inLayer {
		r.points.BF16(tap, prefix, got, want, 1) // embed, final_norm
		return
	}
	switch tap {
	case "input_norm", "post_attn_norm":
		r.points.BF16(tap, at, got, want, 1)
	case "after_mixer", "out":
		r.points.BF16("residual", at, got, want, 1)
	case "moe.router_logits_raw":
		r.sum("linear moe.router", at, got, want, r.get(t, at+"post_attn_norm"), r.d.Layers[l].MLP.(*MoE).Router)
	case "moe.shared_gate_logit":
		r.sum("linear moe.shared_gate", at, got, want, r.get(t, at+"post_attn_norm"), r.d.Layers[l].MLP.(*MoE).SharedGate)
	case "moe.router_probs":
		r.points.F32("router softmax (F32)", at, got, want)
	case "mlp_out":
		if strings.HasPrefix(r.g.Name, "tiny-moe") { // experts_out + sigmoid(gate) * shared, each fed
			r.points.BF16("moe mlp_out", at, got, want, 1)
		}
	}
}

// mlp holds the steps of an MLP, which have no taps.
func (r *moduleRun) mlp(t testing.TB, m *MLP, tag, at, names, out string, batch *ragged.Batch) {
	t.Helper()
	x, rows := r.get(t, at+"post_attn_norm"), batch.Rows
	linear := func(point, want string, x []float32, w *kernels.Matrix) {
		y := make([]float32, rows*w.Rows)
		m.linear(y, x, rows, w, batch)
		r.sum("linear "+tag+"."+point, at, y, r.get(t, want), x, w)
	}
	linear("gate/up", names+"gate_proj", x, m.Gate)
	linear("gate/up", names+"up_proj", x, m.Up)
	act := slices.Clone(r.get(t, names+"gate_proj"))
	m.silu(act, batch)
	r.points.BF16("mlp silu(gate)", at, act, r.get(t, names+"act"), 1)
	copy(act, r.get(t, names+"act"))
	m.multiply(act, r.get(t, names+"up_proj"))
	r.points.BF16("mlp silu(gate)*up", at, act, r.get(t, names+"act_mul"), 1)
	linear("down", out, r.get(t, names+"act_mul"), m.Down)
}

// experts holds the router's choice and the routed experts, fed the golden choice: torch's among equals is its own.
func (r *moduleRun) experts(t testing.TB, m *MoE, at string, batch *ragged.Batch) {
	t.Helper()
	K, E, H := m.TopK, m.Router.Rows, r.d.Config.HiddenSize
	probs, ids := r.get(t, at+"moe.router_probs"), r.g.Get(t, at+"moe.topk_index").IDs()
	own, index := make([]int, len(ids)), make([]int, len(ids))
	m.choose(own, probs)
	pick := func(index []int) (p []float32) {
		for i, e := range index {
			p = append(p, probs[i/K*E+e])
		}
		return p
	}
	for i, e := range ids {
		index[i] = int(e)
	}
	r.points.BF16("router top-k (probabilities chosen)", at, pick(own), pick(index), 0)
	weight := make([]float32, len(ids))
	m.weights(weight, probs, index, batch)
	r.points.BF16("router weights", at, weight, r.get(t, at+"moe.topk_weights"), 1)

	x, gateUp := r.get(t, at+"post_attn_norm"), r.g.Get(t, at+"moe.expert.gate_up")
	actMul, down := r.g.Get(t, at+"moe.expert.act_mul"), r.g.Get(t, at+"moe.expert.down")
	for s, e := range index {
		f, I := &m.Experts[e], m.Experts[e].Gate.Rows
		row := x[s/K*H:][:H]
		gate, up, out := make([]float32, I), make([]float32, I), make([]float32, H)
		f.linear(gate, row, 1, f.Gate, batch)
		r.sum("linear moe.expert.gate_up", at, gate, gateUp.Row(s)[:I], row, f.Gate)
		f.linear(up, row, 1, f.Up, batch)
		r.sum("linear moe.expert.gate_up", at, up, gateUp.Row(s)[I:], row, f.Up)
		copy(gate, gateUp.Row(s)[:I])
		f.silu(gate, batch)
		f.multiply(gate, gateUp.Row(s)[I:])
		r.points.BF16("expert silu(gate)*up", at, gate, actMul.Row(s), 1)
		f.linear(out, actMul.Row(s), 1, f.Down, batch)
		r.sum("linear moe.expert.down", at, out, down.Row(s), actMul.Row(s), f.Down)
	}
	tap, point := "moe.experts_out", "experts_out (eager: bf16 sum by ascending id)"
	if !m.Contract.ExpertsByID {
		tap, point = "moe.experts_out.grouped_mm", "experts_out.grouped_mm (float32 sum over slots)"
	}
	out := make([]float32, len(x))
	m.combine(out, slices.Clone(down.Data), index, r.get(t, at+"moe.topk_weights"), batch)
	if want := r.get(t, at+tap); m.Contract.ExpertsByID {
		r.points.BF16(point, at, out, want, 1)
	} else {
		size := func() []float64 { return weighedExperts(down.Data, r.get(t, at+"moe.topk_weights"), K) }
		r.points.Sum(point, at, out, want, size, goldens.SumSlack, goldens.EqualShare)
	}
}

// weighedExperts is sum_k |weight * down| as [rows, H].
func weighedExperts(down, weight []float32, k int) []float64 {
	H := len(down) / len(weight)
	out := make([]float64, len(down)/k)
	for s, w := range weight {
		for j, v := range goldens.SumAbs([]float32{w}, down[s*H:][:H], 1)() {
			out[s/k*H+j] += v
		}
	}
	return out
}

func lookup(t testing.TB, name string) *precision.Contract {
	t.Helper()
	c, err := precision.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBF16Modules holds every module outside of the mixers, in all layers, prefill and steps, to Hugging Face in
// bfloat16; under hf-bf16-sdpa the experts are grouped_mm's.
func TestBF16Modules(t *testing.T) {
	t.Parallel()
	for _, set := range goldens.BF16Sets {
		for _, contract := range []string{"hf-bf16", "hf-bf16-sdpa"} {
			t.Run(set+"/"+contract, func(t *testing.T) {
				t.Parallel()
				points := runModules(t, goldens.LoadModules(t, set), lookup(t, contract))
				t.Logf("\n%v", points)
				for _, f := range points.Failures() {
					t.Error(f)
				}
			})
		}
	}
}

// TestBF16Controls: the goldens see every rounding left out and every one that is not made. Embed has none here: the
// embedding is stored in bf16, so that its point rounds nothing.
func TestBF16Controls(t *testing.T) {
	t.Parallel()
	g := goldens.LoadModules(t, "tiny-moe")
	eager, grouped := "experts_out (eager: bf16 sum by ascending id)", "experts_out.grouped_mm (float32 sum over slots)"
	at := func(p precision.Point, r precision.Round) func(*precision.Contract) {
		return func(c *precision.Contract) { c.At[p] = r }
	}
	for _, tc := range []struct {
		name, why, contract, row string
		change                   func(*precision.Contract)
	}{
		{"norm-f32", "norms round once, at the end", "hf-bf16", "input_norm", at(precision.Norm, precision.F32)},
		{"residual-f32", "the stream is bf16", "hf-bf16", "residual", at(precision.Residual, precision.F32)},
		{"linear-f32", "each linear rounds", "hf-bf16", "linear moe.router", at(precision.Linear, precision.F32)},
		{"silu-f32", "silu(gate) is rounded", "hf-bf16", "mlp silu(gate)", at(precision.MLPSilu, precision.F32)},
		{"mul-f32", "and its product with up", "hf-bf16", "mlp silu(gate)*up", at(precision.MLPMul, precision.F32)},
		{"prob-bf16", "the router's softmax stays float32", "hf-bf16", "router softmax (F32)", at(precision.RouterProb, precision.BF16)},
		{"weight-f32", "routing weights are cast", "hf-bf16", "router weights", at(precision.RouterWeight, precision.F32)},
		{"weighted-f32", "times weight is rounded", "hf-bf16", eager, at(precision.ExpertWeighted, precision.F32)},
		{"partial-f32", "eager adds in bf16", "hf-bf16", eager, at(precision.ExpertPartial, precision.F32)},
		{"by-slot", "by ascending id", "hf-bf16", eager, func(c *precision.Contract) {
			c.ExpertsByID = false
			c.At[precision.ExpertSum] = precision.BF16
		}},
		{"grouped-partial", "grouped_mm adds in float32", "hf-bf16-sdpa", grouped, at(precision.ExpertPartial, precision.BF16)},
		{"grouped-sum-f32", "and rounds the sum", "hf-bf16-sdpa", grouped, at(precision.ExpertSum, precision.F32)},
		{"shared-sigmoid-f32", "the shared gate's sigmoid is rounded", "hf-bf16", "moe mlp_out", at(precision.SharedSigmoid, precision.F32)},
		{"shared-f32", "and its product", "hf-bf16", "moe mlp_out", at(precision.SharedOut, precision.F32)},
		{"moe-f32", "and the sum", "hf-bf16", "moe mlp_out", at(precision.MoEOut, precision.F32)},
		{"logits-f32", "logits stay bf16", "hf-bf16", "linear logits", at(precision.Logits, precision.F32)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := *lookup(t, tc.contract)
			tc.change(&c)
			if tc.name == "by-slot" { // held to eager's golden although the contract now sums as grouped_mm does
				tc.row = grouped
			}
			if p := runModules(t, g, &c); !p.Fails(tc.row) {
				t.Errorf("%s: %q still within its bounds\nwhy: %s\n%v", tc.name, tc.row, tc.why, p)
			}
		})
	}
}

// TestBF16L2: hf-bf16-l2 is as far from float32 as Hugging Face's own bfloat16 was, within 0.5-2x for each prompt. The
// bf16 goldens are of transformers 5.3, whose l2norm this contract has; bits are not claimed, since the order of a sum
// alone moves bf16 logits by half of bf16's own error.
//
// A prompt of one token is one draw: its delta rule is a single product (k.q) beta v, which the gated norm then brings
// back to size, however small and wrong. There any one rounding left out moves the distance up to fourfold,
// so a one-token prompt beyond 2x (tiny-dense-tied, tiny-moe) is held to that spread instead, and says so.
func TestBF16L2(t *testing.T) {
	t.Parallel()
	for _, set := range goldens.Tiny {
		g := goldens.Load(t, set, "golden")
		for prompt, ids := range g.Prompts() {
			bf, ok := g.Tensors[prompt+".bf16.logits"]
			if !ok || testing.Short() && len(ids) > 70 {
				continue
			}
			t.Run(set+"/"+prompt, func(t *testing.T) {
				t.Parallel()
				c := lookup(t, "hf-bf16-l2")
				got, want := logitsUnder(t, g, c, ids), g.Tensors[prompt+".logits"].Data
				ours, theirs := rms(got, want), rms(bf.Data, want)
				V := bf.Shape[1]
				t.Logf("rms to fp32: ours %.3e, golden's %.3e, ratio %.2f; argmax as the bf16 golden's %d/%d, as fp32's %d/%d",
					ours, theirs, ours/theirs, agree(got, bf.Data, V), bf.Shape[0], agree(got, want, V), bf.Shape[0])
				if ratio := ours / theirs; ratio >= 0.5 && ratio <= 2 {
					return
				}
				if len(ids) > 1 {
					t.Errorf("%s %s: rms of the logits to fp32 is %.3g, the golden's own %.3g, want within 0.5 to 2 of it", set, prompt, ours, theirs)
					return
				}
				lo, hi := ours, ours
				for p := range precision.NumPoints {
					if c.At[p] == precision.F32 {
						continue
					}
					one := *c
					one.At[p] = precision.F32
					d := rms(logitsUnder(t, g, &one, ids), want)
					lo, hi = min(lo, d), max(hi, d)
				}
				t.Logf("beyond 0.5-2; with one rounding left out it is %.3e to %.3e", lo, hi)
				if theirs < lo || theirs > hi {
					t.Errorf("%s %s: the golden's distance %.3g is outside of what leaving one rounding out reaches, %.3g to %.3g", set, prompt, theirs, lo, hi)
				}
			})
		}
	}
}

// logitsUnder gives the logits [len(ids), V] of a golden set's model under a contract.
func logitsUnder(t testing.TB, g *goldens.Set, c *precision.Contract, ids []int32) (logits []float32) {
	t.Helper()
	ck, err := bundle.Open(g.Model)
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(ck, &Plan{Contract: c}, kernels.Exact, engine.Spec{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	err = e.Score(context.Background(), []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true},
		func(p *engine.Position) error { logits = append(logits, p.Logits...); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

// agree counts rows of v logits whose largest is at the same id, the lowest of a tie.
func agree(a, b []float32, v int) (n int) {
	for i := 0; i < len(a); i += v {
		if shown.Largest(a[i:i+v], 1)[0].ID == shown.Largest(b[i:i+v], 1)[0].ID {
			n++
		}
	}
	return n
}
