package trace

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sibyl/config"
)

const goldens = "../testdata/goldens"

// asym and moe are the shapes of goldens/tiny-asym and tiny-moe, written out by hand: all axes differ, so that a
// table that swaps two of them fails.
func asym() *config.Config {
	return &config.Config{HiddenSize: 96, NumLayers: 4, VocabSize: 170, NumHeads: 6, NumKVHeads: 2, HeadDim: 48,
		KeyHeads: 4, ValueHeads: 8, KeyDim: 24, ValueDim: 40, ConvKernel: 4, IntermediateSize: 160,
		Layers: []config.LayerKind{0, 0, 0, config.FullAttention}}
}

func moe() *config.Config {
	return &config.Config{HiddenSize: 64, NumLayers: 8, VocabSize: 512, NumHeads: 16, NumKVHeads: 2, HeadDim: 32,
		KeyHeads: 4, ValueHeads: 8, KeyDim: 16, ValueDim: 16, ConvKernel: 4,
		MoE:    &config.MoE{NumExperts: 32, TopK: 8, IntermediateSize: 32, SharedIntermediateSize: 32},
		Layers: []config.LayerKind{0, 0, 0, config.FullAttention, 0, 0, 0, config.FullAttention}}
}

type header struct {
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
}

// goldenHeader reads a golden's header with nothing of ours in between.
func goldenHeader(t *testing.T, model, prefix string) map[string]header {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(goldens, model, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]header{}
	if err := json.Unmarshal(data[8:8+binary.LittleEndian.Uint64(data)], &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]header{}
	for name, h := range all {
		if rest, ok := strings.CutPrefix(name, prefix+"."); ok {
			out[rest] = h
		}
	}
	return out
}

// TestTapsAreTheGoldens: every tensor that Hugging Face's run recorded under a prompt is either a tap of our list
// with the same shape and type, or one of the references that DESIGN section 3 says are no taps; and every tap of
// our list is there.
func TestTapsAreTheGoldens(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		model, prompt string
		tokens        int
		cfg           *config.Config
	}{
		{"tiny-asym", "p9", 9, asym()},
		{"tiny-moe", "p17", 17, moe()},
	} {
		t.Run(tt.model, func(t *testing.T) {
			t.Parallel()
			want := goldenHeader(t, tt.model, tt.prompt)
			for name := range want {
				for _, ref := range []string{"rope.", "mrope3.", "greedy.", "f64.", "step.", "bf16.", "int8_", "argmax"} {
					if strings.HasPrefix(name, ref) || strings.HasSuffix(name, ".gdn.final_state") {
						delete(want, name)
					}
				}
			}
			got := map[string]header{}
			for _, e := range All(tt.cfg) {
				got[e.Name] = header{string(e.Tap.DType()), e.Shape(tt.cfg, tt.tokens)}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("taps of %s differ from Hugging Face's (-golden +ours):\n%s", tt.model, d)
			}
		})
	}
}

func TestEveryTapSaysWhatItIs(t *testing.T) {
	t.Parallel()
	c := moe()
	seen := map[string]bool{}
	for tap := range NumTaps {
		if tap.Meaning() == "" || tap.Axes() == "" || tap.DType() == "" || seen[tap.String()] {
			t.Errorf("%v: empty or doubled entry", tap)
		}
		seen[tap.String()] = true
		if got, want := strings.Count(tap.Axes(), ",")+1, len(tap.Shape(c, 5)); got != want {
			t.Errorf("%v: axes %q are %d, its shape has %d", tap, tap.Axes(), got, want)
		}
	}
}

func TestNamesParseBack(t *testing.T) {
	t.Parallel()
	for tap := range NumTaps {
		for _, layer := range []int{0, 3, 63, 255, 256, 1000, 1023} {
			want := layer
			if !tap.PerLayer() {
				want = -1
			}
			got, l, ok := Parse(tap.Name(layer))
			if got != tap || l != want || !ok {
				t.Errorf("Parse(%q) = %v, %d, %v, want %v, %d", tap.Name(layer), got, l, ok, tap, want)
			}
		}
	}
	for name, why := range map[string]string{
		"":                        "empty",
		"layer.out":               "no number",
		"layer01.out":             "a second spelling of layer 1",
		"layer-1.out":             "negative",
		"layer+1.out":             "Atoi takes a sign, Name never writes one",
		"layer0.logits":           "a top-level tap in a layer",
		"out":                     "a layer tap without its layer",
		"cache.key":               "a state without its layer",
		"cache.layer0.out":        "not a state",
		"layer0.key":              "a state without cache.",
		"layer0.cache.key":        "the prefix in the wrong place",
		"p9.layer0.out":           "prompts are prefixes of goldens, not of taps",
		"layer99999999999999.out": "overflow",
		"layer1024.out":           "beyond the bound",
	} {
		if got, _, ok := Parse(name); ok {
			t.Errorf("Parse(%q) = %v, want no tap\nwhy: %s", name, got, why)
		}
	}
}

func TestNameDoesNotAllocate(t *testing.T) {
	GDNQL2.Name(0)
	if n := testing.AllocsPerRun(100, func() { _ = GDNQL2.Name(63) }); n != 0 {
		t.Errorf("Name(63) allocates %v times, want 0: decoders name taps once a layer and step", n)
	}
}

func TestAllIsInMathOrder(t *testing.T) {
	t.Parallel()
	var names []string
	for _, e := range All(asym()) {
		names = append(names, e.Name)
	}
	order := []string{"input_ids", "embed", "layer0.input_norm", "layer0.gdn.in_proj_qkv", "layer0.gdn.core_out",
		"layer0.gdn.out_proj", "layer0.after_mixer", "layer0.post_attn_norm", "layer0.mlp_out", "layer0.out",
		"layer1.input_norm", "layer3.attn.q_proj", "layer3.attn.o_proj", "layer3.after_mixer", "layer3.out",
		"final_norm", "logits", "cache.layer0.conv_state", "cache.layer3.key", "cache.layer3.value"}
	last := -1
	for _, n := range order {
		i := slices.Index(names, n)
		if i <= last {
			t.Errorf("%s is at %d, want after %d", n, i, last)
		}
		last = i
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, why string
		globs     []string
		want      []string // nil: wantErr
		wantErr   string
	}{
		{name: "dots-are-characters", why: "users write layer3.* for all of a layer",
			globs: []string{"layer3.attn.q_*"}, want: []string{"layer3.attn.q_proj", "layer3.attn.q_norm", "layer3.attn.q_rope"}},
		{name: "union-in-math-order", why: "a file's order must not depend on the order of flags",
			globs: []string{"logits", "layer[01].out", "layer0.*t"}, want: []string{"layer0.gdn.conv_out", "layer0.gdn.core_out", "layer0.mlp_out", "layer0.out", "layer1.out", "logits"}},
		{name: "suffix", why: "one glob for all residual streams", globs: []string{"layer?.out"},
			want: []string{"layer0.out", "layer1.out", "layer2.out", "layer3.out"}},
		{name: "misspelt", why: "did you mean", globs: []string{"layer1.gdn.core_otu"},
			wantErr: `--taps: "layer1.gdn.core_otu": found no tap of that name in this model; did you mean layer1.gdn.core_out,`},
		{name: "misspelt-without-layer", why: "the layer is forgotten most often", globs: []string{"logitts"},
			wantErr: `did you mean logits,`},
		{name: "wrong-kind", why: "the name is right, the layer is of the other kind", globs: []string{"layer3.gdn.g"},
			wantErr: `found layer 3, which is full_attention, want one of the GDN layers`},
		{name: "beyond", why: "layers count from 0", globs: []string{"layer4.out"}, wantErr: "found layer 4, want a layer from 0 to 3"},
		{name: "dense", why: "MoE taps of a dense model", globs: []string{"layer0.moe.topk_index"}, wantErr: "found an MoE tap, want a tap of a dense model"},
		{name: "bad-glob", why: "an unclosed class", globs: []string{"layer[0.out"}, wantErr: "a malformed glob"},
		{name: "huge", why: "edit distance is quadratic: the input is clipped", globs: []string{strings.Repeat("x", 1<<20)}, wantErr: "1048576 bytes in all"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Select(asym(), tt.globs)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("Select(%.80q) = %v, want %q\nwhy: %s", tt.globs, err, tt.wantErr, tt.why)
				}
				return
			}
			var names []string
			for _, e := range got {
				names = append(names, e.Name)
			}
			if err != nil || !slices.Equal(names, tt.want) {
				t.Errorf("Select(%q) = %v, %v, want %v\nwhy: %s", tt.globs, names, err, tt.want, tt.why)
			}
		})
	}
}

// TestOpNames: operations' results are named by their number in function main, plain decimal.
func TestOpNames(t *testing.T) {
	t.Parallel()
	if tap, n, ok := Parse("op.530"); tap != OpResult || n != 530 || !ok || OpResult.Name(530) != "op.530" {
		t.Errorf("op.530 is %v, %d, %v", tap, n, ok)
	}
	for _, name := range []string{"op.", "op.-1", "op.01", "op.x", "op.99999999", "op.1.2"} {
		if _, _, ok := Parse(name); ok {
			t.Errorf("Parse(%q) took it for a tap", name)
		}
	}
	if r := NewRecorder("r", nil, nil, []int32{1}); r.Wants("op.1") {
		t.Error("a recorder of everything wants every operation")
	}
}
