package faults

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/precision"
	"sibyl/trace"
)

// text is long enough for a conv, a decay and a few keys to matter.
var text = []int32{5, 17, 99, 3, 42, 8, 100, 21, 7, 65, 33, 12, 80, 61, 9, 44}

func modelDir(name string) string { return filepath.Join(goldens.Root(), name) }

// run traces text in the path's calls and then decodes three forced tokens: what the taps hold, and the tokens' logits.
func run(t *testing.T, e engine.Engine, at [][3]int32, path engine.Path) (taps map[string][]float32, decoded []float32) {
	t.Helper()
	rec := &keep{got: map[string][]float32{}}
	ctx := context.Background()
	err := e.Score(ctx, []engine.Prompt{{IDs: text, PositionIDs: at}}, engine.Want{Taps: rec, Path: path, Logits: true}, func(p *engine.Position) error {
		rec.got["shown"] = append(rec.got["shown"], p.Logits...)
		return nil
	})
	if err == nil {
		err = e.Generate(ctx, engine.Prompt{IDs: text}, engine.Options{Force: []int32{1, 2, 3}, Logits: true, Path: path}, func(k *engine.Token) error {
			decoded = append(decoded, k.Logits...)
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return rec.got, decoded
}

// keep is a sink of everything but states.
type keep struct{ got map[string][]float32 }

func (k *keep) Wants(name string) bool {
	tap, _, ok := trace.Parse(name)
	return ok && !tap.Cache()
}

func (k *keep) Put(name string, _, _, _ int, x []float32) error {
	k.got[name] = append(k.got[name], x...)
	return nil
}

func open(t *testing.T, spec engine.Spec, in *Injection) engine.Engine {
	t.Helper()
	var e engine.Engine
	var err error
	if in == nil {
		spec.Threads = 1
		e, err = engine.Open(context.Background(), "cpu", spec)
	} else {
		e, err = Open(context.Background(), spec, *in)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func same(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// place says where a fault must show first.
type place struct {
	fault, model, variant string // variant: a scheme, or a contract in place of coreai-fp16
	layer                 int    // -1: the whole model
	first                 string // the first tap that differs; "decode" when only decoded tokens do, "" when nothing does
	why                   string
}

var expected = []place{
	{"norm-gain", "tiny-asym", "", 1, "layer1.input_norm", "the gain of layer 1 is not that of layer 0"},
	{"final-norm-gain", "tiny-asym", "", -1, "final_norm", ""},
	{"qk-norm-gain", "tiny-asym", "", 3, "layer3.attn.q_norm", ""},
	{"gated-norm-gain", "tiny-asym", "", 1, "layer1.gdn.gated_norm", "the gain of the core is the last thing but one"},
	{"gate-before-norm", "tiny-asym", "", 1, "layer1.gdn.gated_norm", "the conv's silu, which has the same entry, must stay"},
	{"gate-split-halves", "tiny-asym", "", 3, "layer3.attn.q_proj", "rows are read from elsewhere"},
	{"rope-interleaved", "tiny-asym", "", 3, "layer3.attn.q_proj", "rows stand elsewhere"},
	{"rope-all-dims", "tiny-asym", "", -1, "layer3.attn.q_rope", ""},
	{"rope-theta", "tiny-asym", "", -1, "layer3.attn.q_rope", ""},
	{"mrope-blocks", "tiny-asym", "", -1, "", "text has equal axes"},
	{"heads-tiled", "tiny-asym", "", 1, "layer1.gdn.in_proj_qkv", "value heads stand elsewhere"},
	{"l2-eps-mean", "tiny-asym", "hf-fp32", 1, "layer1.gdn.q_l2", "in fp16 no bit changes"},
	{"l2-eps-outside", "tiny-asym", "hf-fp32", 1, "layer1.gdn.q_l2", "in fp16 no bit changes"},
	{"l2-eps-missing", "tiny-asym", "hf-fp32", 1, "layer1.gdn.q_l2", "in fp16 no bit changes"},
	{"no-query-scale", "tiny-asym", "", 1, "layer1.gdn.core_out", ""},
	{"decay-after-update", "tiny-asym", "", 1, "layer1.gdn.core_out", ""},
	{"memory-before-decay", "tiny-asym", "", 1, "layer1.gdn.core_out", ""},
	{"output-before-update", "tiny-asym", "", 1, "layer1.gdn.core_out", ""},
	{"conv-reversed", "tiny-asym", "", 1, "layer1.gdn.conv_pre_silu", ""},
	{"conv-late", "tiny-asym", "", 1, "layer1.gdn.conv_pre_silu", ""},
	{"conv-silu-missing", "tiny-asym", "", 1, "layer1.gdn.conv_out", ""},
	{"conv-state-post-silu", "tiny-asym", "", 1, "decode", "one prefill leaves the conv state to the next call"},
	{"stale-at-reset", "tiny-asym", "", 1, "decode", "the first sequence has none before it, the second has"},
	{"stale-at-continue", "tiny-asym", "", 1, "decode", "one prefill is one call"},
	{"state-fp16", "tiny-asym", "coreai-eager-s32", 1, "layer1.gdn.core_out", ""},
	{"state-fp32", "tiny-asym", "", 1, "layer1.gdn.core_out", ""},
	{"state-bf16", "tiny-asym", "", 1, "layer1.gdn.core_out", ""},
	{"softplus-fp16", "tiny-asym", "", 1, "layer1.gdn.g", ""},
	{"flushed-denormals", "tiny-asym", "", -1, "layer0.gdn.in_proj_qkv", "some weight is a denormal of fp16"},
	{"argmax-highest", "edge-ties", "", -1, "", "logits are not touched, ids are"},
	{"head-tied", "tiny-asym", "", -1, "logits", "tiny-asym has a head of its own"},
	{"head-untied", "tiny-dense-tied", "", -1, "logits", ""},
	{"router-not-renormalised", "tiny-moe", "", 1, "layer1.moe.topk_weights", "the experts' sums, which ask the same entry, come later"},
	{"experts-reordered", "tiny-moe", "", 1, "", "exact sums do not depend on order"},
	{"scale-per-channel", "tiny-asym", "int8hu-sym", 1, "layer1.gdn.in_proj_qkv", ""},
	{"nibbles-swapped", "tiny-asym", "int4lin", 1, "layer1.gdn.in_proj_qkv", ""},
	{"head-other-flavour", "tiny-asym", "int8hu-sym", -1, "logits", ""},
	{"ids-shifted", "tiny-asym", "", -1, "embed", ""},
	{"id-skipped", "tiny-asym", "", -1, "embed", "half of the ids come before it"},
}

// specOf is the exact coreai-fp16 engine, under a scheme or, where the fault needs it, another contract.
func specOf(model, variant string) engine.Spec {
	spec := engine.Spec{Model: modelDir(model), Contract: "coreai-fp16", Mode: "exact"}
	if _, err := precision.Lookup(variant); err == nil {
		spec.Contract = variant
	} else {
		spec.Scheme = variant
	}
	return spec
}

// TestEveryFault: at strength 0 no bit changes; at strength 1 the first tap to change is the one the mistake is about, in the
// layer it was put into and not before; and halfway the result is a third one.
func TestEveryFault(t *testing.T) {
	t.Parallel()
	for _, f := range Table() {
		if !slices.ContainsFunc(expected, func(p place) bool { return p.fault == f.Name }) {
			t.Errorf("fault %s has no line in this test", f.Name)
		}
	}
	for _, want := range expected {
		t.Run(want.fault, func(t *testing.T) {
			t.Parallel()
			spec := specOf(want.model, want.variant)
			f, err := Find(want.fault)
			if err != nil {
				t.Fatal(err)
			}
			sound, soundDecode := run(t, open(t, spec, nil), nil, engine.Path{})
			inject := func(strength float32) (map[string][]float32, []float32) {
				return run(t, open(t, spec, &Injection{f.Name, []int{want.layer}, strength}), nil, engine.Path{})
			}
			none, noneDecode := inject(0)
			if first := firstChange(sound, none); first != "" || !same(soundDecode, noneDecode) {
				t.Errorf("strength 0 changes %q, or decoding", first)
			}
			whole, wholeDecode := inject(1)
			first := firstChange(sound, whole)
			switch {
			case want.first == "":
				if first != "" || !same(soundDecode, wholeDecode) {
					t.Errorf("strength 1 changes %q or decoding, want nothing\nwhy: %s", first, want.why)
				}
			case want.first == "decode":
				if first != "" || same(soundDecode, wholeDecode) {
					t.Errorf("strength 1 changes %q, and decoding: %v; want decoding alone\nwhy: %s", first, !same(soundDecode, wholeDecode), want.why)
				}
			case first != want.first || same(soundDecode, wholeDecode):
				t.Errorf("strength 1 changes %q first, and decoding: %v; want %q and decoding\nwhy: %s", first, !same(soundDecode, wholeDecode), want.first, want.why)
			}
			if f.Partial == "" || want.first == "" {
				return
			}
			half, halfDecode := inject(0.5)
			if same(halfDecode, soundDecode) || same(halfDecode, wholeDecode) || firstChange(sound, half) != first {
				t.Errorf("strength 0.5 is not between the two: first %q", firstChange(sound, half))
			}
		})
	}
}

// firstChange is the first tap in the order of the math whose bits differ, "" if none does.
func firstChange(a, b map[string][]float32) string {
	var names []string
	for name := range a {
		if name != "shown" && !same(a[name], b[name]) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		if !same(a["shown"], b["shown"]) {
			return trace.Logits.Name(0)
		}
		return ""
	}
	return slices.MinFunc(names, inMathOrder)
}

func inMathOrder(a, b string) int {
	at := func(name string) [2]int {
		tap, layer, _ := trace.Parse(name)
		switch tap {
		case trace.Embed:
			return [2]int{-1, 0}
		case trace.FinalNorm, trace.Logits:
			return [2]int{1 << 20, int(tap)}
		}
		return [2]int{layer, int(tap)}
	}
	x, y := at(a), at(b)
	return slices.Compare(x[:], y[:])
}
