package faults

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/model"
	"sibyl/precision"
)

// These tests hold faults to plain loops that make the same mistake on purpose: a fault that is wrong in another way than
// its name says would pass TestEveryFault. All in float64 on what the sound engine's taps give, under hf-fp32.

// near: float32 engines against float64 loops over a few hundred terms.
func near(t *testing.T, what string, got []float32, want []float64) {
	t.Helper()
	worst, largest, differs := 0.0, 0.0, false
	for i, w := range want {
		worst, largest = max(worst, math.Abs(float64(got[i])-w)), max(largest, math.Abs(w))
		differs = differs || w != 0
	}
	if len(got) != len(want) || !(worst <= 1e-5*max(1, largest)) || !differs {
		t.Errorf("%s: %d values, largest difference %.3g of %.3g", what, len(got), worst, largest)
	}
}

// taps runs text through tiny-asym with an injection (nil: sound) under hf-fp32, exact.
func taps(t *testing.T, in *Injection) (map[string][]float32, *model.Decoder) {
	t.Helper()
	e := open(t, engine.Spec{Model: modelDir("tiny-asym"), Mode: "exact"}, in)
	got, _ := run(t, e, nil, engine.Path{})
	var d *model.Decoder
	inner, ok := e.(*model.Engine)
	if !ok {
		inner = e.(*restated).Engine
	}
	if err := inner.Change(func(dec *model.Decoder, ar *kernels.Arith) (*kernels.Arith, error) { d = dec; return ar, nil }); err != nil {
		t.Fatal(err)
	}
	return got, d
}

// TestDeltaRules: the three wrong rules against their formulas, whole and halfway.
func TestDeltaRules(t *testing.T) {
	t.Parallel()
	const dk, dv = 5, 3
	rng := rand.New(rand.NewPCG(1, 1))
	random := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		return x
	}
	const decay, beta = 0.6, 0.7
	for _, tt := range []struct {
		name  string
		wrong func(sound step, s float32) step
		// S is decayed by early before it is recalled from and updated, by recall in what is recalled, by late after it
		// was updated; o is output before the update by the share of out.
		early, recall, late, out func(s float64) float64
	}{
		{"decay-after-update", decayLate, func(s float64) float64 { return math.Pow(decay, 1-s) }, func(s float64) float64 { return math.Pow(decay, 1-s) },
			func(s float64) float64 { return math.Pow(decay, s) }, func(float64) float64 { return 0 }},
		{"memory-before-decay", recallEarly, func(float64) float64 { return decay }, func(s float64) float64 { return decay + s*(1-decay) },
			func(float64) float64 { return 1 }, func(float64) float64 { return 0 }},
		{"output-before-update", outputEarly, func(float64) float64 { return decay }, func(float64) float64 { return decay },
			func(float64) float64 { return 1 }, func(s float64) float64 { return s }},
	} {
		for _, strength := range []float64{0.5, 1} {
			S, q, k, v := random(dk*dv), random(dk), random(dk), random(dv)
			wantS, wantO := make([]float64, dk*dv), make([]float64, dv)
			for e := range dv {
				recalled, before, after := 0.0, 0.0, 0.0
				for d := range dk {
					recalled += tt.recall(strength) * float64(S[d*dv+e]) * float64(k[d])
					before += tt.early(strength) * float64(S[d*dv+e]) * float64(q[d])
				}
				for d := range dk {
					x := tt.early(strength)*float64(S[d*dv+e]) + float64(k[d])*beta*(float64(v[e])-recalled)
					wantS[d*dv+e] = x * tt.late(strength)
					after += wantS[d*dv+e] * float64(q[d])
				}
				wantO[e] = after + tt.out(strength)*(before-after)
			}
			out := make([]float32, dv)
			tt.wrong(kernels.Exact.DeltaStep, float32(strength))(S, q, k, v, out, decay, beta, make([]float64, 2*dv))
			near(t, tt.name+" state", S, wantS)
			near(t, tt.name+" out", out, wantO)
		}
	}
}

// TestHeadsTiled: head h of the faulty mixer is the delta rule of value head h with key head h%nk.
func TestHeadsTiled(t *testing.T) {
	t.Parallel()
	sound, d := taps(t, nil)
	faulty, _ := taps(t, &Injection{"heads-tiled", []int{0}, 1})
	c := d.Config
	nk, nv, dk, dv, T := c.KeyHeads, c.ValueHeads, c.KeyDim, c.ValueDim, len(text)
	q, k, v := sound["layer0.gdn.q_l2"], sound["layer0.gdn.k_l2"], sound["layer0.gdn.v"]
	g, beta := sound["layer0.gdn.g"], sound["layer0.gdn.beta"]
	core := faulty["layer0.gdn.core_out"]
	for h := range nv {
		S := make([]float64, dk*dv)
		var want []float64
		var got []float32
		slot := h%nk*(nv/nk) + h/nk // where the fault keeps it
		for t := range T {
			at, decay := (t*nk+h%nk)*dk, math.Exp(float64(g[t*nv+h]))
			for e := range dv {
				mem, o := 0.0, 0.0
				for i := range dk {
					S[i*dv+e] *= decay
					mem += S[i*dv+e] * float64(k[at+i])
				}
				for i := range dk {
					S[i*dv+e] += float64(k[at+i]) * float64(beta[t*nv+h]) * (float64(v[(t*nv+h)*dv+e]) - mem)
					o += S[i*dv+e] * float64(q[at+i]) / math.Sqrt(float64(dk))
				}
				want = append(want, o)
			}
			got = append(got, core[(t*nv+slot)*dv:][:dv]...)
		}
		near(t, "core of a tiled head", got, want)
	}
	if same(sound["layer0.gdn.out_proj"], faulty["layer0.gdn.out_proj"]) {
		t.Error("the mixer's out is that of repeated heads")
	}
}

// TestRopeInterleaved: attention whose rope turns pairs (2i, 2i+1).
func TestRopeInterleaved(t *testing.T) {
	t.Parallel()
	l := 3
	sound, d := taps(t, nil)
	faulty, _ := taps(t, &Injection{"rope-interleaved", []int{l}, 1})
	c, a := d.Config, d.Layers[l].Attention
	nq, nkv, hd, T := a.Heads, a.KVHeads, a.HeadDim, len(text)
	turn := func(x []float32, heads int) []float64 {
		y := make([]float64, len(x))
		for i := range x {
			y[i] = float64(x[i])
		}
		for t := range T {
			for h := range heads {
				p := y[(t*heads+h)*hd:]
				for j := range a.Rope.Rot / 2 {
					sin, cos := math.Sincos(float64(t) * float64(a.Rope.InvFreq[j]))
					p[2*j], p[2*j+1] = p[2*j]*cos-p[2*j+1]*sin, p[2*j+1]*cos+p[2*j]*sin
				}
			}
		}
		return y
	}
	q, k := turn(sound["layer3.attn.q_norm"], nq), turn(sound["layer3.attn.k_norm"], nkv)
	v := sound["layer3.attn.v_proj"]
	want := make([]float64, T*nq*hd)
	for t := range T {
		for h := range nq {
			kv, sum := h/(nq/nkv), 0.0
			o := want[(t*nq+h)*hd:][:hd]
			for j := range t + 1 {
				s := 0.0
				for i := range hd {
					s += q[(t*nq+h)*hd+i] * k[(j*nkv+kv)*hd+i]
				}
				w := math.Exp(s / math.Sqrt(float64(hd)))
				sum += w
				for i := range hd {
					o[i] += w * float64(v[(j*nkv+kv)*hd+i])
				}
			}
			for i := range o {
				o[i] /= sum
			}
		}
	}
	near(t, "attention under interleaved pairs", faulty["layer3.attn.out_pre_gate"], want)
	if c.Layers[l] == config.GatedDeltaNet || same(sound["layer3.attn.out_pre_gate"], faulty["layer3.attn.out_pre_gate"]) {
		t.Error("layer 3 is no attention layer, or its out is the sound one")
	}
}

// TestGateBeforeNorm: (o*silu(z)) * rsqrt(mean((o*silu(z))^2) + eps) * w.
func TestGateBeforeNorm(t *testing.T) {
	t.Parallel()
	sound, d := taps(t, nil)
	faulty, _ := taps(t, &Injection{"gate-before-norm", []int{1}, 1})
	g := d.Layers[1].GDN
	o, z := sound["layer1.gdn.core_out"], sound["layer1.gdn.in_proj_z"]
	want := make([]float64, len(o))
	for h := range len(o) / g.ValueDim {
		lo, sum := h*g.ValueDim, 0.0
		for i := range g.ValueDim {
			y := float64(z[lo+i])
			want[lo+i] = float64(o[lo+i]) * y / (1 + math.Exp(-y))
			sum += want[lo+i] * want[lo+i]
		}
		r := 1 / math.Sqrt(sum/float64(g.ValueDim)+float64(g.Eps))
		for i := range g.ValueDim {
			want[lo+i] *= r * float64(g.Norm[i])
		}
	}
	near(t, "gated norm", faulty["layer1.gdn.gated_norm"], want)
}

// TestConvs: the three mistakes of the conv, from what it is given: which column a tap meets, and what follows.
func TestConvs(t *testing.T) {
	t.Parallel()
	sound, d := taps(t, nil)
	g := d.Layers[1].GDN
	C, K, x := g.Channels(), g.Kernel, sound["layer1.gdn.in_proj_qkv"]
	for _, tt := range []struct {
		fault string
		tap   func(j, back int) bool // whether tap j meets the column so many tokens back
		silu  bool
	}{
		{"conv-reversed", func(j, back int) bool { return j == back }, true},
		{"conv-late", func(j, back int) bool { return K-j == back && back < K }, true}, // a state of K-1 columns has no older one
		{"conv-silu-missing", func(j, back int) bool { return K-1-j == back }, false},
	} {
		faulty, _ := taps(t, &Injection{tt.fault, []int{1}, 1})
		want := make([]float64, len(x))
		for i := range want {
			for j := range K {
				for back := range min(K, i/C) + 1 {
					if tt.tap(j, back) {
						want[i] += float64(g.Conv[i%C*K+j]) * float64(x[i-back*C])
					}
				}
			}
			if tt.silu {
				want[i] /= 1 + math.Exp(-want[i])
			}
		}
		near(t, tt.fault, faulty["layer1.gdn.conv_out"], want)
	}
}

// TestGateSplitHalves: the query of head h is the h-th block of the row's first half.
func TestGateSplitHalves(t *testing.T) {
	t.Parallel()
	sound, d := taps(t, nil)
	faulty, _ := taps(t, &Injection{"gate-split-halves", []int{3}, 1})
	hd, nq := d.Config.HeadDim, d.Config.NumHeads
	row, got := sound["layer3.attn.q_proj"], faulty["layer3.attn.q_proj"]
	for h := range nq {
		if !same(got[2*h*hd:][:hd], row[h*hd:][:hd]) || !same(got[(2*h+1)*hd:][:hd], row[(nq+h)*hd:][:hd]) {
			t.Errorf("head %d", h)
		}
	}
}

// TestMRopeBlocks: positions that differ by axis do show the fault that text hides.
func TestMRopeBlocks(t *testing.T) {
	t.Parallel()
	at := make([][3]int32, len(text))
	for i := range at {
		at[i] = [3]int32{int32(i), int32(i / 4), int32(i % 4)}
	}
	spec := specOf("tiny-asym", "")
	sound, _ := run(t, open(t, spec, nil), at, engine.Path{})
	faulty, _ := run(t, open(t, spec, &Injection{"mrope-blocks", nil, 1}), at, engine.Path{})
	if first := firstChange(sound, faulty); first != "layer3.attn.q_rope" {
		t.Errorf("the first tap that differs is %q", first)
	}
}

// TestLayoutsAreHidden: an engine whose channels are permuted inside takes and gives states as the sound one lays them out, so
// that a step from its own prefill is its own next token.
func TestLayoutsAreHidden(t *testing.T) {
	t.Parallel()
	for _, in := range []Injection{{"heads-tiled", nil, 1}, {"rope-interleaved", nil, 1}} {
		ctx := context.Background()
		e := open(t, specOf("tiny-asym", ""), &in)
		sound := open(t, specOf("tiny-asym", ""), nil)
		st, err := e.(engine.Stater).Prefill(ctx, engine.Prompt{IDs: text}, engine.Path{})
		if err != nil {
			t.Fatal(err)
		}
		var next []float64
		err = e.Generate(ctx, engine.Prompt{IDs: text}, engine.Options{Force: []int32{1, 2}, TopK: 5}, func(k *engine.Token) error {
			next = append(next[:0], k.Top[0].Logit, k.Top[4].Logit)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		p, err := e.(engine.Stater).Step(ctx, st, 1, 5)
		if err != nil || p.Top[0].Logit != next[0] || p.Top[4].Logit != next[1] {
			t.Errorf("%s: a step from its own state gives %v (%v), its own decoding %v", in.Fault, p, err, next)
		}
		// A state with the sound prefill's values differs: from it the sound engine's first layers can be told.
		good, err := sound.(engine.Stater).Prefill(ctx, engine.Prompt{IDs: text}, engine.Path{})
		if err != nil {
			t.Fatal(err)
		}
		name := map[string]string{"heads-tiled": "cache.layer0.conv_state", "rope-interleaved": "cache.layer3.value"}[in.Fault]
		if !same(good.Tensors[name].Data, st.Tensors[name].Data) {
			t.Errorf("%s: %s, which the mistake does not touch, is laid out otherwise", in.Fault, name)
		}
	}
}

// TestDriverWithoutHooks: driving an engine call by call through its states gives the engine's own bits.
func TestDriverWithoutHooks(t *testing.T) {
	t.Parallel()
	for _, path := range []engine.Path{{}, {Chunk: 1}, {Chunk: 5}} {
		e := open(t, specOf("tiny-asym", ""), nil)
		want, wantDecode := run(t, e, nil, path)
		got, gotDecode := run(t, &caller{Engine: e.(*model.Engine)}, nil, path)
		if first := firstChange(want, got); first != "" || !same(wantDecode, gotDecode) {
			t.Errorf("path %s: %q differs, or decoding", path, first)
		}
	}
}

// TestRefusals: what cannot be injected is refused and not ignored.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, model, scheme string
		in                  Injection
	}{
		{"unknown fault", "tiny-asym", "", Injection{"conv", nil, 1}},
		{"strength above 1", "tiny-asym", "", Injection{"conv-late", nil, 1.5}},
		{"strength of a fault without parts", "tiny-asym", "", Injection{"heads-tiled", nil, 0.5}},
		{"layer of another kind", "tiny-asym", "", Injection{"conv-late", []int{3}, 1}},
		{"layer beyond the last", "tiny-asym", "", Injection{"norm-gain", []int{9}, 1}},
		{"as many key as value heads", "tiny-dense-tied", "", Injection{"heads-tiled", nil, 1}},
		{"tied head of a tied model", "tiny-dense-tied", "", Injection{"head-tied", nil, 1}},
		{"own head of an untied model", "tiny-asym", "", Injection{"head-untied", nil, 1}},
		{"nibbles of int8", "tiny-asym", "int8lin", Injection{"nibbles-swapped", []int{0}, 1}},
		{"scales of a model that has none", "tiny-asym", "", Injection{"scale-per-channel", []int{0}, 1}},
		{"flavour of a head that has none", "tiny-asym", "int8lin", Injection{"head-other-flavour", nil, 1}},
	} {
		if e, err := Open(context.Background(), specOf(tt.model, tt.scheme), tt.in); err == nil {
			e.Close()
			t.Errorf("%s: %v of %s %s was accepted", tt.name, tt.in, tt.model, tt.scheme)
		}
	}
}

// TestScaleFromFP32IsNone: the reason SparedMistakes gives. Every bf16 number in fp16's normal range is an fp16 number.
func TestScaleFromFP32IsNone(t *testing.T) {
	t.Parallel()
	n := 0
	for b := range 1 << 16 {
		x := precision.BF16ToF32(uint16(b))
		if a := math.Abs(float64(x)); a < leastNormal16 || a > 65504 || x != x {
			continue
		}
		if n++; precision.F16.Value(x) != x {
			t.Errorf("bf16 %g is %g in fp16", x, precision.F16.Value(x))
		}
	}
	if n != 2*30*128 {
		t.Errorf("%d numbers, want 30 binades of 128, with both signs", n)
	}
}

// TestClosedEngineCannotBeChanged: the seam of package model after Close.
func TestClosedEngineCannotBeChanged(t *testing.T) {
	t.Parallel()
	e := open(t, specOf("tiny-asym", ""), nil).(*model.Engine)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	called := false
	err := e.Change(func(*model.Decoder, *kernels.Arith) (*kernels.Arith, error) { called = true; return kernels.Fast, nil })
	if err == nil || called {
		t.Errorf("a closed engine was handed out: %v, %v", called, err)
	}
}
