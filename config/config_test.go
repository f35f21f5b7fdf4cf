package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sibyl/config"
)

// table is the family's table of sizes (DESIGN section 2), from hidden size to tied.
var table = []struct {
	size                                       string
	hidden, layers, q, kv, vHeads, ffn, params int // params in millions, as the model's name says, rounded down
	tied                                       bool
}{
	{"0.8b", 1024, 24, 8, 2, 16, 3584, 752, true},
	{"2b", 2048, 24, 8, 2, 16, 6144, 1881, true},
	{"4b", 2560, 32, 16, 4, 32, 9216, 4205, true},
	{"9b", 4096, 32, 16, 4, 32, 12288, 8953, false},
	{"27b", 5120, 64, 24, 4, 48, 17408, 26895, false},
	{"35b-a3b", 2048, 40, 16, 2, 32, 0, 34660, false},
}

// text gives a size's config.json: the committed file, or the 0.8B's with the numbers of the row.
func text(t *testing.T, size string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", size+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("config.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// set replaces one value in the text of a config; it must be there.
func set(t *testing.T, text, from, to string) string {
	t.Helper()
	if !strings.Contains(text, from) {
		t.Fatalf("the config does not hold %q", from)
	}
	return strings.ReplaceAll(text, from, to)
}

func TestFamily(t *testing.T) {
	t.Parallel()
	for _, row := range table {
		t.Run(row.size, func(t *testing.T) {
			t.Parallel()
			file := row.size
			if row.size == "2b" || row.size == "4b" || row.size == "9b" {
				file = "0.8b"
			}
			in := text(t, file)
			if file != row.size {
				interval := fmt.Sprintf(`"num_hidden_layers": %d`, row.layers)
				for _, p := range [][2]string{
					{`"hidden_size": 1024`, fmt.Sprintf(`"hidden_size": %d`, row.hidden)},
					{`"num_hidden_layers": 24`, interval},
					{`"num_attention_heads": 8`, fmt.Sprintf(`"num_attention_heads": %d`, row.q)},
					{`"num_key_value_heads": 2`, fmt.Sprintf(`"num_key_value_heads": %d`, row.kv)},
					{`"linear_num_value_heads": 16`, fmt.Sprintf(`"linear_num_value_heads": %d`, row.vHeads)},
					{`"intermediate_size": 3584`, fmt.Sprintf(`"intermediate_size": %d`, row.ffn)},
					{`"tie_word_embeddings": true`, fmt.Sprintf(`"tie_word_embeddings": %v`, row.tied)},
					{`"layer_types"`, `"layer_types_of_24"`}, // the interval decides
				} {
					in = set(t, in, p[0], p[1])
				}
			}
			c := parse(t, in)
			got := []any{c.HiddenSize, c.NumLayers, c.NumHeads, c.NumKVHeads, c.ValueHeads, c.IntermediateSize, c.TieWordEmbeddings,
				c.VocabSize, c.HeadDim, c.KeyHeads, c.KeyDim, c.ValueDim, c.ConvKernel, c.RopeTheta, c.RotaryDim, c.MRopeSection, c.RMSNormEps}
			want := []any{row.hidden, row.layers, row.q, row.kv, row.vHeads, row.ffn, row.tied,
				248320, 256, 16, 128, 128, 4, 1e7, 64, [3]int{11, 11, 10}, 1e-6}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for i, kind := range c.Layers {
				if (kind == config.FullAttention) != (i%4 == 3) {
					t.Errorf("layer %d is %v, want every 4th full attention", i, kind)
				}
			}
			if n := parameters(c) / 1_000_000; n != row.params {
				t.Errorf("the shapes hold %d million parameters, want %d", n, row.params)
			}
		})
	}
}

// parameters adds up the shapes of all roles.
func parameters(c *config.Config) int {
	size := func(r config.Role) int {
		n := 1
		for _, d := range r.Shape(c) {
			n *= d
		}
		return n
	}
	n := size(config.Embed) + size(config.FinalNorm)
	if !c.TieWordEmbeddings {
		n += size(config.Head)
	}
	for _, kind := range c.Layers {
		for _, r := range c.LayerRoles(kind) {
			n += size(r)
		}
	}
	return n
}

func TestMoE(t *testing.T) {
	t.Parallel()
	c := parse(t, text(t, "35b-a3b"))
	if want := (config.MoE{NumExperts: 256, TopK: 8, IntermediateSize: 512, SharedIntermediateSize: 512}); c.MoE == nil || *c.MoE != want {
		t.Errorf("MoE = %+v, want %+v", c.MoE, want)
	}
	if want := []string{"decoder_sparse_step", "mlp_only_layers", "norm_topk_prob"}; !cmp.Equal(c.Assumed, want) {
		t.Errorf("Assumed = %v, want %v", c.Assumed, want)
	}
}

// TestWhereRopeIsRead: rope_parameters before rope_scaling before the text config.
func TestWhereRopeIsRead(t *testing.T) {
	t.Parallel()
	full := text(t, "0.8b")
	const here = `"rope_theta": 10000000,`
	without := set(t, full, here, "")
	tests := []struct {
		name, in string
		theta    float64
	}{
		{"rope_parameters", full, 1e7},
		{"rope_scaling", set(t, without, `"head_dim": 256,`, `"head_dim": 256, "rope_scaling": {"type": "mrope", "rope_theta": 5e6},`), 5e6},
		{"text", set(t, without, `"head_dim": 256,`, `"head_dim": 256, "rope_theta": 6e6,`), 6e6},
		{"parameters-before-scaling", set(t, full, `"head_dim": 256,`, `"head_dim": 256, "rope_scaling": {"rope_theta": 5e6},`), 1e7},
		{"parameters-before-text", set(t, full, `"head_dim": 256,`, `"head_dim": 256, "rope_theta": 10000,`), 1e7},
		{"scaling-before-text", set(t, without, `"head_dim": 256,`, `"head_dim": 256, "rope_theta": 6e6, "rope_scaling": {"rope_theta": 5e6},`), 5e6},
	}
	for _, tt := range tests {
		if c := parse(t, tt.in); c.RopeTheta != tt.theta {
			t.Errorf("%s: theta = %v, want %v", tt.name, c.RopeTheta, tt.theta)
		}
	}
	if _, err := config.Parse("config.json", []byte(without)); err == nil {
		t.Error("a config without rope_theta is accepted")
	}
	scaled := set(t, full, `"head_dim": 256,`, `"head_dim": 256, "rope_scaling": {"rope_type": "yarn", "factor": 4},`)
	if _, err := config.Parse("config.json", []byte(scaled)); err == nil || !strings.Contains(err.Error(), "rope_scaling.rope_type") {
		t.Errorf("yarn under rope_scaling beside good rope_parameters gives %v, want it refused", err)
	}
}

// TestAssumed: each key that may be absent is noted when it is, and listed with a source.
func TestAssumed(t *testing.T) {
	t.Parallel()
	full := text(t, "0.8b")
	full = set(t, full, `"attention_bias": false,`, `"attention_bias": false, "output_gate_type": "swish",`)
	if c := parse(t, full); len(c.Assumed) != 0 {
		t.Fatalf("nothing is absent, Assumed = %v", c.Assumed)
	}
	tests := []struct {
		key, text string // text is what is taken out
		check     func(c *config.Config) bool
	}{
		{"attention_bias", `"attention_bias": false,`, nil},
		{"eos_token_id", `"eos_token_id": 248044,`, func(c *config.Config) bool { return c.EOS == nil }},
		{"attn_output_gate", `"attn_output_gate": true,`, nil},
		{"output_gate_type", `"output_gate_type": "swish",`, nil},
		{"mrope_interleaved", `"mrope_interleaved": true,`, func(c *config.Config) bool { return c.MRopeInterleaved }},
		{"rope_type", `"rope_type": "default"`, nil},
		{"mrope_section", `"mrope_section": [
    11,
    11,
    10
   ],`, func(c *config.Config) bool { return c.MRopeSection == [3]int{11, 11, 10} }},
		{"tie_word_embeddings", `"tie_word_embeddings": true`, func(c *config.Config) bool { return !c.TieWordEmbeddings }},
	}
	for _, tt := range tests {
		to := ""
		if !strings.HasSuffix(tt.text, ",") {
			to = `"x": 0`
		}
		c := parse(t, set(t, full, tt.text, to))
		if !cmp.Equal(c.Assumed, []string{tt.key}) || tt.check != nil && !tt.check(c) {
			t.Errorf("without %s: Assumed = %v, config %+v", tt.key, c.Assumed, c)
		}
		if !slices.ContainsFunc(config.Exceptions, func(e config.Exception) bool { return e.Key == tt.key && e.Source != "" }) {
			t.Errorf("%s has no line in Exceptions", tt.key)
		}
	}
}

// TestTies: one statement is enough, wherever it stands.
func TestTies(t *testing.T) {
	t.Parallel()
	full := text(t, "0.8b")
	const flag = `"tie_word_embeddings": true`
	inner := strings.Index(full, flag)
	outer := strings.LastIndex(full, flag)
	cut := func(at int) string { return full[:at] + `"x": 0` + full[at+len(flag):] }
	for name, in := range map[string]string{"outer-only": cut(inner), "inner-only": cut(outer), "both": full} {
		if c := parse(t, in); !c.TieWordEmbeddings || slices.Contains(c.Assumed, "tie_word_embeddings") {
			t.Errorf("%s: tied = %v, assumed %v; want true, said by the file", name, c.TieWordEmbeddings, c.Assumed)
		}
	}
}

func TestEOS(t *testing.T) {
	t.Parallel()
	full := text(t, "0.8b")
	for to, want := range map[string][]int32{`7`: {7}, `[3, 9]`: {3, 9}, `null`: nil, `[]`: nil} {
		if c := parse(t, set(t, full, `"eos_token_id": 248044`, `"eos_token_id": `+to)); !cmp.Equal(c.EOS, want) {
			t.Errorf("eos_token_id %s gives %v, want %v", to, c.EOS, want)
		}
	}
}

// TestGoldenConfigs parses the configs of all goldens.
func TestGoldenConfigs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../testdata/goldens/*/config.json")
	if err != nil || len(files) < 9 {
		t.Fatalf("found %d golden configs (%v), want at least 9", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.Parse(f, b); err != nil {
			t.Error(err)
		}
	}
}
