package quant

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/internal/strictyaml"
)

// eight is a rule to build recipes of.
const eight = "scheme: int8\n    block: 32\n    axis: 1\n    mode: clipping\n"

func recipe(match string) string {
	return "rest: fp16\nrules:\n  - match: " + match + "\n    " + eight
}

// TestRecipeRefused: each mistake with the whole of its error.
func TestRecipeRefused(t *testing.T) {
	t.Parallel()
	cfg := open(t, "tiny-moe").Config()
	for _, tt := range []struct{ name, why, in, want string }{
		{"empty", "an empty file is no scheme", "", "r.yaml: rest: found nothing, want fp16, bf16 or stored; say what becomes of tensors that no rule matches"},
		{"no-rest", "nothing is defaulted", "rules: []", "r.yaml: rest: found nothing, want fp16, bf16 or stored; say what becomes of tensors that no rule matches"},
		{"rest-quantized", "norms fall under rest", "rest: int8", `r.yaml:1: rest: found "int8", want fp16, bf16 or stored; say what becomes of tensors that no rule matches`},
		{"name", "it is printed on terminals and in reports", "name: \"a\\x1bb\"\nrest: fp16\n", `r.yaml:1: name: found "a\x1bb", want one line of at most 256 bytes, not a named scheme's; choose another: results carry it`},
		{"named", "a checkpoint that says int8hu must be int8hu", "name: int8hu\nrest: fp16\n", `r.yaml:1: name: found "int8hu", want one line of at most 256 bytes, not a named scheme's; choose another: results carry it`},
		{"no-rules", "", "rest: fp16", "r.yaml: rules: found 0, want 1 to 1024 rules; add a rule: match, scheme, block, axis, mode"},
		{"unknown-key", "a typing mistake must not be silent", "rest: fp16\nrulez: []\n", `r.yaml:2: found the unknown key "rulez"; did you mean "rules"?`},
		{"unknown-key-rule", "", recipe("lm_head") + "    blok: 3\n", `r.yaml:8: found the unknown key "blok"; did you mean "block"?`},
		{"twice", "which of them counts?", "rest: fp16\nrest: bf16\n", `r.yaml:2: "rest": found the key again, after line 1, want each key once; remove one of them`},
		{"alias", "YAML reads an unquoted * as an alias", recipe("*_proj"), `r.yaml:3: found an alias (*), want plain YAML; quote text that begins with * & ! % or ?`},
		{"anchor", "", "rest: &a fp16\n", `r.yaml:1: found an anchor (&), want plain YAML; quote text that begins with * & ! % or ?`},
		{"documents", "", recipe("lm_head") + "---\nrest: fp16\n", `r.yaml:8: found a second document (---), want one; put it into a file of its own`},
		{"no-match", "", "rest: fp16\nrules:\n  - " + eight, `r.yaml:3: rules[0].match: found nothing, want 1 to 1024 patterns; name a role or a tensor: "*.q_proj.weight"`},
		{"bad-glob", "", recipe(`"[a"`), `r.yaml:3: rules[0].match: found "[a", want a pattern with * ? [a-z]; see that brackets are closed`},
		{"no-scheme", "", "rest: fp16\nrules:\n  - match: lm_head\n", `r.yaml:3: rules[0].scheme: found nothing, want fp16, bf16, stored, int8, int4 or u4-minval; say what becomes of the tensors`},
		{"scheme-name", "a named scheme is no format", "rest: fp16\nrules:\n  - match: lm_head\n    scheme: int8lin\n", `r.yaml:4: rules[0].scheme: found "int8lin", want fp16, bf16, stored, int8, int4 or u4-minval; a rule names a format; block, axis and mode make it a scheme`},
		{"near-format", "", "rest: fp16\nrules:\n  - match: lm_head\n    scheme: int88\n", `r.yaml:4: rules[0].scheme: found "int88", want fp16, bf16, stored, int8, int4 or u4-minval; did you mean "int8"?`},
		{"block-text", "", strings.Replace(recipe("lm_head"), "32", "0x20", 1), `r.yaml:5: rules[0].block: found "0x20", want 1 to 1048576; the named schemes have blocks of 32`},
		{"fp16-block", "", "rest: fp16\nrules:\n  - match: lm_head\n    scheme: fp16\n    block: 32\n", `r.yaml:5: rules[0].block: found "32", want nothing; fp16 has no blocks: remove it`},
		{"no-block", "", strings.Replace(recipe("lm_head"), "    block: 32\n", "", 1), `r.yaml:3: rules[0].block: found nothing, want 1 to 1048576; the named schemes have blocks of 32`},
		{"block-0", "", strings.Replace(recipe("lm_head"), "32", "0", 1), `r.yaml:5: rules[0].block: found "0", want 1 to 1048576; the named schemes have blocks of 32`},
		{"axis-2", "", strings.Replace(recipe("lm_head"), "axis: 1", "axis: 2", 1), `r.yaml:6: rules[0].axis: found "2", want 1 (input) or 0 (output); the named schemes have axis 1`},
		{"no-mode", "", strings.Replace(recipe("lm_head"), "    mode: clipping\n", "", 1), `r.yaml:3: rules[0].mode: found nothing, want clipping or symmetric; the named schemes clip, but for the head of int8hu-sym`},
		{"u4-mode", "", strings.Replace(recipe("lm_head"), "int8", "u4-minval", 1), `r.yaml:7: rules[0].mode: found "clipping", want nothing; u4-minval has one mode: remove it`},
		{"matches-nothing", "a slip of the pen would change nothing, unseen", recipe("[lm_head, self_attn.qq_proj]"), `r.yaml:3: rules[0].match: found "self_attn.qq_proj", which matches no tensor of this model, want a role or a name with wildcards; inspect --tensors lists names; leave the prefix "model.language_model." out`},
		{"dense-role", "the model has no dense MLP", recipe("mlp.gate_proj"), `r.yaml:3: rules[0].match: found "mlp.gate_proj", which matches no tensor of this model, want a role or a name with wildcards; inspect --tensors lists names; leave the prefix "model.language_model." out`},
		{"too-late", "the first matching rule wins", recipe(`"*_proj*"`) + "  - match: layers.0.*_proj*\n    scheme: fp16\n", `r.yaml:8: rules[1]: found a rule that is never the first to match, want rules in the order of their precedence; put it before the wider ones, or remove it`},
		{"norms", "", recipe(`"*"`), `r.yaml:3: rules[0]: found int8 clipping, blocks of 32 for layers.0.input_layernorm.weight, want projections, experts, lm_head or embed_tokens only; norms, conv1d, A_log, dt_bias, router and shared_expert_gate are never quantized: match "*_proj*", or put a rule with scheme fp16 before it`},
		{"conv", "", recipe("linear_attn.conv1d"), `r.yaml:3: rules[0]: found int8 clipping, blocks of 32 for layers.0.linear_attn.conv1d.weight, want projections, experts, lm_head or embed_tokens only; norms, conv1d, A_log, dt_bias, router and shared_expert_gate are never quantized: match "*_proj*", or put a rule with scheme fp16 before it`},
		{"router", "", recipe("mlp.gate.weight"), `r.yaml:3: rules[0]: found int8 clipping, blocks of 32 for layers.0.mlp.gate.weight, want projections, experts, lm_head or embed_tokens only; norms, conv1d, A_log, dt_bias, router and shared_expert_gate are never quantized: match "*_proj*", or put a rule with scheme fp16 before it`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := ParseRecipe("r.yaml", []byte(tt.in))
			if err == nil {
				_, err = s.Assign(cfg)
			}
			var in *inputerr.Error
			if !errors.As(err, &in) || err.Error() != tt.want {
				t.Errorf("%q\ngot  %v\nwant %s\nwhy: %s", tt.in, err, tt.want, tt.why)
			}
		})
	}
	for _, role := range []string{"A_log", "dt_bias", "linear_attn.norm", "q_norm", "k_norm", "norm", "mlp.shared_expert_gate"} {
		s, err := ParseRecipe("r.yaml", []byte(recipe(`["*.`+role+`", "`+role+`"]`)))
		if err == nil {
			_, err = s.Assign(cfg)
		}
		if err == nil || !strings.Contains(err.Error(), "are never quantized") {
			t.Errorf("int8 for %s: %v", role, err)
		}
	}
}

// TestRecipeOrder: the first rule wins, by role, by layer, with and without ".weight"; what is left is rest.
func TestRecipeOrder(t *testing.T) {
	t.Parallel()
	s, err := ParseRecipe("r.yaml", []byte(`
name: mine
rest: stored
rules:
  - {match: layers.0.linear_attn.in_proj_?, scheme: bf16}
  - {match: ["layers.[12].*_proj*"], scheme: int4, block: 16, axis: 1, mode: symmetric}
  - {match: "*_proj.weight", scheme: int8, block: 32, axis: 0, mode: clipping}
  - {match: embed_tokens, scheme: u4-minval, block: 8, axis: 1}
`))
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Assign(open(t, "tiny-dense-tied").Config())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		r     config.Role
		layer int
		want  string
	}{
		{config.InProjZ, 0, "bf16"}, {config.InProjQKV, 0, "stored"}, {config.InProjZ, 1, "int4 symmetric, blocks of 16"},
		{config.GateProj, 2, "int4 symmetric, blocks of 16"}, {config.GateProj, 3, "int8 clipping, blocks of 32 along the output"},
		{config.FinalNorm, 0, "stored"}, {config.Embed, 0, "u4-minval, blocks of 8"},
		{config.Head, 0, "u4-minval, blocks of 8"}, // tied, and no rule matches it
		{config.InProjZ, 4, "stored"},              // "*_proj.weight" is not in_proj_z.weight
		{config.KProj, 3, "stored"},                // 48 rows are no multiple of 32
	} {
		if got := a.Spec(tt.r, tt.layer).String(); got != tt.want {
			t.Errorf("%s = %s, want %s", tt.r.Name(tt.layer), got, tt.want)
		}
	}
	if a.HeadUntied {
		t.Error("the head is untied although it is the embedding's")
	}
	want := "layers.3.self_attn.k_proj.weight: stays stored: blocks of 32 do not divide its axis of 48"
	if len(a.Notes) != 4 || a.Notes[0].String() != want { // k and v, layers 3 and 7
		t.Errorf("notes %v, want 4, the first %q", a.Notes, want)
	}
}

// TestSchemeYAML: a named scheme written as a recipe does the same to every tensor of every kind of model, and a
// recipe written again is the same one.
func TestSchemeYAML(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"tiny-moe", "tiny-dense-tied", "tiny-dense-gva"} {
		cfg := open(t, set).Config()
		for _, s := range Schemes() {
			want, err := s.Assign(cfg)
			if err != nil {
				t.Fatal(err)
			}
			again := s
			for range 2 {
				if again, err = ParseRecipe("r.yaml", []byte(again.YAML())); err != nil {
					t.Fatal(err)
				}
				got, err := again.Assign(cfg)
				if err != nil {
					t.Fatalf("%s, %s: %v", set, s.Name, err)
				}
				if !reflect.DeepEqual(got.top, want.top) || !reflect.DeepEqual(got.layers, want.layers) || got.HeadUntied != want.HeadUntied || !slices.Equal(got.Notes, want.Notes) {
					t.Errorf("%s, %s: as a recipe it is another scheme:\n%s", set, s.Name, again.YAML())
				}
			}
		}
	}
}

// TestLoadRecipe reads from disk, with a bound.
func TestLoadRecipe(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "r.yaml")
	_, err := LoadRecipe(file)
	refused(t, err, "r.yaml: found no such file, want a regular file; give the path of a recipe (YAML)")
	if err := os.WriteFile(file, []byte(recipe("lm_head")), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadRecipe(file); err != nil || s.Name != "recipe:r.yaml" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := LoadRecipe(file); err != nil || s.SHA256 != sum([]byte(recipe("lm_head"))) {
		t.Errorf("%+v, %v", s, err)
	}
	if err := os.WriteFile(file, make([]byte, strictyaml.MaxBytes+1), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = LoadRecipe(file)
	refused(t, err, "found more than 64 KiB, want a recipe in YAML, UTF-8, at most 64 KiB; is this the file you mean?")
	if err := os.WriteFile(file, bytes.Repeat([]byte("[ \n"), 2049), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = LoadRecipe(file)
	refused(t, err, ":33: found lists more than 32 deep, want a few levels; is this the file you mean?")
}

// FuzzRecipe: whatever the text, an *inputerr.Error or a scheme that fits or is refused by a model the same way.
func FuzzRecipe(f *testing.F) {
	f.Add([]byte(columnRecipe))
	f.Add([]byte(recipe(`"*_proj*"`)))
	f.Add([]byte("rest: fp16\nrules:\n  - {match: [\"*\"], scheme: stored}\n"))
	f.Add([]byte("rest: &a [*a, *a]\n"))
	cfg := open(f, "tiny-moe").Config()
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseRecipe("r.yaml", text)
		if err == nil {
			_, err = s.Assign(cfg)
		}
		var in *inputerr.Error
		if err != nil && !errors.As(err, &in) {
			t.Errorf("%q: %v is no *inputerr.Error", text, err)
		}
	})
}
