package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"sibyl/bundle"
	"sibyl/engine"
)

func TestPair(t *testing.T) {
	t.Parallel()
	m := filepath.Join("..", "..", "testdata", "checkpoints", "single")
	other := filepath.Join("..", "..", "testdata", "checkpoints", "tied")
	tests := []struct{ name, a, b, wantRef, wantTest, why string }{
		{"none", "", "", "@fp64", "@fast", "the demo model, both sides left out"},
		{"lone-part", "@exact", "", "@fp64", "@exact", "a lone subject that starts with @ is TEST of the demo model"},
		{"lone-model", m, "", m + "@fp64", m + "@fast", "one checkpoint: both sides on it"},
		{"lone-model-with-parts", m + "@exact", "", m + "@exact", m + "@fast", "parts that are given stay"},
		{"two-parts", "@exact", "@fast", "@exact", "@fast", "two subjects: as given"},
		{"model-and-part", m, "@fast", m, m + "@fast", "a second subject without a MODEL means the first one's"},
		{"two-models", m, other, m, other, "two subjects: as given"},
		{"two-models-parts", m + "@fp64", other + "@exact", m + "@fp64", other + "@exact", "two subjects: as given"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ref, test, err := (&App{}).pair(tt.a, tt.b, "@fp64", "@fast")
			if err != nil || ref.String() != tt.wantRef || test.String() != tt.wantTest {
				t.Errorf("pair(%q, %q) = %q, %q, %v; want %q, %q\nwhy: %s", tt.a, tt.b, ref.String(), test.String(), err, tt.wantRef, tt.wantTest, tt.why)
			}
		})
	}
}

func TestStopIDs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, generation string // "" is no file
		want             []int32
		wantErr, why     string
	}{
		{"one", `{"eos_token_id": 7}`, []int32{7}, "", "one id"},
		{"list", `{"eos_token_id": [7, 9]}`, []int32{7, 9}, "", "the family ends turns and texts with different ids"},
		{"null", `{"eos_token_id": null}`, nil, "", "null is as good as absent: config.json's"},
		{"absent-key", `{}`, nil, "", "config.json's"},
		{"absent-file", "", nil, "", "config.json's"},
		{"text", `{"eos_token_id": "</s>"}`, nil, "eos_token_id: want an id or a list of ids", "never guessed"},
		{"not-json", `{`, nil, "generation_config.json", "the file is named"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fsys := fstest.MapFS{}
			for _, name := range []string{"config.json", "model.safetensors"} {
				data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "checkpoints", "single", name))
				if err != nil {
					t.Fatal(err)
				}
				fsys[name] = &fstest.MapFile{Data: data}
			}
			if tt.generation != "" {
				fsys["generation_config.json"] = &fstest.MapFile{Data: []byte(tt.generation)}
			}
			c, err := bundle.OpenFS(fsys, "test")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := stopIDs(c)
			want := tt.want
			if want == nil && tt.wantErr == "" {
				want = c.Config().EOS
			}
			if (err == nil) != (tt.wantErr == "") || !strings.Contains(errText(err), tt.wantErr) || !slices.Equal(got, want) {
				t.Errorf("stopIDs(%s) = %v, %q; want %v, %q\nwhy: %s", tt.generation, got, errText(err), want, tt.wantErr, tt.why)
			}
		})
	}
}

func TestParsePath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{"prefill": 0, "step": 1, "chunk=1": 1, "chunk=64": 64} {
		if got, err := parsePath(in); err != nil || got != (engine.Path{Chunk: want}) {
			t.Errorf("parsePath(%q) = %+v, %v; want chunk %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "Prefill", "chunk", "chunk=", "chunk=0", "chunk=-1", "chunk=1.5", "chunk=99999999999999999999"} {
		if got, err := parsePath(in); err == nil {
			t.Errorf("parsePath(%q) = %+v; want an error", in, got)
		}
	}
}

func TestNameClaims(t *testing.T) {
	t.Parallel()
	bf16 := map[string]int{"BF16": 100, "F32": 1}
	for _, tt := range []struct {
		name       string
		parameters int64
		want       string
		why        string
	}{
		{"Qwen3.5-0.8B", 752e6, "", "names round"},
		{"Qwen3.5-4B", 752e6, "the name says 4B, the weights are 0.752 billion", "another model's weights"},
		{"Qwen3.6-35B-A3B", 34e9, "", "the first number is the whole, the second the active part"},
		{"tiny-bf16", 1000, "", "as named"},
		{"tiny-FP32", 1000, "the name says FP32, the weights are BF16, F32", "converted or mislabelled"},
		{"opticks-2m", 2e6, "", "a name that claims nothing"},
		{"bob", 2e6, "", "a b without a number"},
	} {
		if got := strings.Join(nameClaims(tt.name, tt.parameters, bf16), "; "); got != tt.want {
			t.Errorf("nameClaims(%q, %d) = %q, want %q\nwhy: %s", tt.name, tt.parameters, got, tt.want, tt.why)
		}
	}
}
