package precision

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"sibyl/internal/inputerr"
)

// tinyPlaces are those of a dense model of four layers, the last one attention.
var tinyPlaces = func() []Place {
	out := []Place{{-1, PartEmbed}, {-1, PartFinalNorm}, {-1, PartHead}}
	for l := range 4 {
		mixer := PartLinearAttn
		if l == 3 {
			mixer = PartSelfAttn
		}
		out = append(out, Place{l, PartInputNorm}, Place{l, mixer}, Place{l, PartPostAttnNorm}, Place{l, PartMLP})
	}
	return out
}()

// fiveLines is the example of the design: coreai-fp16, but fp32 state in the first layers.
const fiveLines = `name: fp16-state32
base: coreai-fp16
at:
  - layers: "0-1"
    set: {state: F32}
`

func TestFiveLines(t *testing.T) {
	t.Parallel()
	c, err := ParseContract("f", []byte(fiveLines))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Map(tinyPlaces)
	if err != nil {
		t.Fatal(err)
	}
	base, _ := Lookup("coreai-fp16")
	for i, p := range tinyPlaces {
		want := *base
		want.Name, want.Meaning = "fp16-state32", ""
		if p.Layer == 0 || p.Layer == 1 {
			want.Name, want.Meaning, want.State = "fp16-state32 at[0]", "a rule of fp16-state32", F32
		}
		if !reflect.DeepEqual(*got[i], want) {
			t.Errorf("%+v: got %+v\nwant %+v", p, *got[i], want)
		}
	}
}

func TestRulesInOrder(t *testing.T) {
	t.Parallel()
	c, err := ParseContract("f", []byte(`
name: x
base: hf-fp32
at:
  - {layers: 2, modules: linear_attn, set: {g: F16}}
  - {modules: "mix*", contract: hf-bf16}
  - {layers: "[01],3", set: {norm: F16, mlp_mul: BF16}}
  - {modules: [head, embed], set: {weights: F16}}
  - {layers: all, contract: coreai-fp16, set: {mlp_silu: F32, norm: F32}}
`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Map(tinyPlaces)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range tinyPlaces {
		want := "x at[4]"
		switch {
		case p.Layer == 2 && p.Part == PartLinearAttn:
			want = "x at[0]"
		case p.Part&partMixer != 0:
			want = "x at[1]"
		case p.Layer >= 0 && p.Layer != 2:
			want = "x at[2]"
		case p.Part == PartEmbed || p.Part == PartHead:
			want = "x at[3]"
		}
		if got[i].Name != want {
			t.Errorf("%+v has %q, want %q", p, got[i].Name, want)
		}
	}
	if c.At[4].Contract.State != F16 || c.At[1].Contract.KV != BF16 || c.At[0].Contract.At[G] != F16 {
		t.Error("a rule's contract is not the named one with its set")
	}
}

func TestContractRefusals(t *testing.T) {
	t.Parallel()
	head := "name: x\nbase: coreai-fp16\n"
	for _, tt := range []struct{ name, why, in, want string }{
		{"empty", "nothing is no contract", "", "f: name: found nothing, want a name of its own"},
		{"builtin-name", "two results under one name", "name: coreai-fp16\nbase: coreai-fp16\n", `f:1: name: found "coreai-fp16", want a name of its own`},
		{"name-with-space", "names stand in subjects and tables", "name: a b\nbase: hf-fp32\n", `f:1: name: found "a b"`},
		{"long-meaning", "one line of a table", "name: x\nmeaning: \"a\\nb\"\nbase: hf-fp32\n", "f:2: meaning: found"},
		{"no-base", "no silent default", "name: x\n", "f: base: found nothing, want a built-in contract"},
		{"near-base", "a slip", "name: x\nbase: coreai-fp61\n", `f:2: base: found "coreai-fp61", want a built-in contract; did you mean one of "coreai-fp16", "coreai-cpu", "coreai-bf16"?`},
		{"unknown-key", "would do nothing", head + "sets: {state: F32}\n", `f:3: found the unknown key "sets"; did you mean "set"?`},
		{"unknown-setting", "would do nothing", head + "set: {sate: F32}\n", `f:3: set: found "sate", want a name that` + " `sibyl contracts` prints; did you mean"},
		{"doubled-setting", "which one counts", head + "set:\n  state: F32\n  state: F16\n", `f:5: "state": found the key again, after line 4`},
		{"bad-type", "there is no F8", head + "set: {state: F8}\n", `f:3: set.state: found "F8", want F32, F16 or BF16; it is: recurrent state as stored`},
		{"bad-flag", "yes is text", head + "set: {softplus3: yes}\n", `f:3: set.softplus3: found "yes", want true or false`},
		{"bad-eps", "NaN everywhere", head + "set: {l2_eps_value: .nan}\n", `f:3: set.l2_eps_value: found ".nan", want a number from 0 to 1`},
		{"negative-eps", "the root of a negative number", head + "set: {l2_eps_value: -1e-6}\n", "want a number from 0 to 1"},
		{"empty-rule", "what is meant", head + "at:\n  - layers: 0\n", "f: at[0]: found neither contract nor set"},
		{"bad-layer", "one of them is misspelt", head + "at:\n  - {layers: \"0-3,x\", set: {state: F32}}\n", `f:4: at[0].layers: found "x", want a layer (3), a range (0-3)`},
		{"backward-range", "matches nothing", head + "at:\n  - {layers: 3-1, set: {state: F32}}\n", `at[0].layers: found "3-1"`},
		{"octal", "7, 8 or 010", head + "at:\n  - {layers: 010, set: {state: F32}}\n", `at[0].layers: found "010"`},
		{"open-glob", "matches nothing", head + "at:\n  - {layers: \"[0\", set: {state: F32}}\n", `at[0].layers: found "[0"`},
		{"bad-module", "would match nothing", head + "at:\n  - {modules: linear_atn, set: {state: F32}}\n", `f:4: at[0].modules: found "linear_atn", want a glob over the modules' names; did you mean "linear_attn"?`},
		{"unquoted-comma", "7 becomes a key", head + "at:\n  - {layers: 0-3,7, set: {state: F32}}\n", "quote it"},
		{"mixed-arithmetic", "coreai-cpu rounds inside its sums", head + "at:\n  - {layers: 0, contract: coreai-cpu}\n", "cannot be mixed with others"},
		{"mixed-arithmetic-base", "and the other way round", "name: x\nbase: coreai-cpu\nat:\n  - {layers: 0, contract: hf-fp32}\n", "f:4: at[0].contract: found \"hf-fp32\", want a contract computed in the same arithmetic as x"},
		{"unquoted-glob", "an alias", head + "at:\n  - {modules: *, set: {state: F32}}\n", "f:4: "},
		// against a model
		{"no-such-layer", "the model has four", head + "at:\n  - {layers: \"0,4\", set: {state: F32}}\n", `f: at[0].layers: found "4", which this model does not have, want layers 0 to 3`},
		{"range-past-the-end", "half of it is nothing", head + "at:\n  - {layers: 2-9, set: {norm: F32}}\n", `at[0].layers: found "2-9", which this model does not have`},
		{"no-such-module", "a dense model", head + "at:\n  - {modules: [mlp, moe], set: {mlp_mul: F32}}\n", `at[0].modules: found "moe", which this model does not have`},
		{"head-in-a-layer", "it belongs to none", head + "at:\n  - {layers: 0-3, modules: head, set: {logits: F32}}\n", "at[0]: found no module of this model that matches both"},
		{"shadowed", "decides nothing", head + "at:\n  - {layers: 0-2, set: {norm: F32}}\n  - {layers: 1, set: {norm: F16}}\n", "at[1]: found only modules that earlier rules have taken"},
		{"no-effect", "an MLP keeps no state", head + "at:\n  - {modules: mlp, set: {state: F32}}\n", "at[0].set.state: found a setting without effect: it belongs to linear_attn, the rule decides dense_mlp"},
		{"no-effect-here", "layer 3 is attention", head + "at:\n  - {layers: 3, set: {state: F32}}\n", "at[0].set.state: found a setting without effect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := ParseContract("f", []byte(tt.in))
			if err == nil {
				_, err = c.Map(tinyPlaces)
			}
			var input *inputerr.Error
			if err == nil || !errors.As(err, &input) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: %v\nwant one line with %s\nwhy: %s", tt.in, err, tt.want, tt.why)
			}
		})
	}
}

// TestTemplate: each named contract's template says what it says.
func TestTemplate(t *testing.T) {
	t.Parallel()
	for _, name := range Names() {
		want, _ := Lookup(name)
		c, err := ParseContract("f", []byte(Template(want)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := *c.Contract
		if got.Name != "my-"+name || len(c.Set) != len(settings) {
			t.Errorf("%s: name %q, %d of %d settings", name, got.Name, len(c.Set), len(settings))
		}
		if got.Name = name; !reflect.DeepEqual(&got, want) {
			t.Errorf("%s: read back as %+v\nwant %+v", name, got, *want)
		}
		// The settings are all there is to a contract: put together from nothing they are the same one.
		built := Contract{Name: name, Meaning: want.Meaning, Arithmetic: want.Arithmetic}
		for i := range settings {
			settings[i].set(&built, settings[i].Text(want))
		}
		if !reflect.DeepEqual(&built, want) {
			t.Errorf("%s: a field has no setting: %+v\nwant %+v", name, built, *want)
		}
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	digest := func(text string) string {
		c, err := ParseContract("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c.Digest()
	}
	base := digest(fiveLines)
	for _, same := range []string{"# a comment\n" + fiveLines, strings.Replace(fiveLines, "name: fp16-state32", "name: other\nmeaning: m", 1),
		strings.Replace(fiveLines, "set:", "contract: coreai-fp16\n    set:", 1), strings.Replace(fiveLines, "{state: F32}", "{state: F32, kv: F16}", 1)} {
		if digest(same) != base {
			t.Errorf("%q has another digest, and says the same", same)
		}
	}
	for _, other := range []string{strings.Replace(fiveLines, "0-1", "0-2", 1), strings.Replace(fiveLines, "F32", "BF16", 1),
		strings.Replace(fiveLines, "at:", "set: {l2_eps_value: 1e-6}\nat:", 1), strings.Replace(fiveLines, "    set", "    modules: mixer\n    set", 1)} {
		if digest(other) == base {
			t.Errorf("%q has the same digest", other)
		}
	}
	if c, _ := Choose("hf-bf16"); c.Label() != "hf-bf16" {
		t.Errorf("a named contract is called %q", c.Label())
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	if c, err := Choose(""); err != nil || c.Contract != HFFP32 {
		t.Errorf("no contract: %+v, %v", c, err)
	}
	if _, err := Choose("coreai-f16"); err == nil || !strings.Contains(err.Error(), `did you mean one of "coreai-fp16", "coreai-bf16", "coreai-cpu"?`) {
		t.Errorf("a near name: %v", err)
	}
	if _, err := Choose("contract:none.yaml"); err == nil || !strings.Contains(err.Error(), "give the path of a YAML file with a contract") {
		t.Errorf("a missing file: %v", err)
	}
}

// FuzzContractYAML: any text is read or refused in one line; what is read is written so that the same is read back,
// and can be mapped or is refused.
func FuzzContractYAML(f *testing.F) {
	f.Add([]byte(fiveLines))
	for _, name := range Names() {
		c, _ := Lookup(name)
		f.Add([]byte(Template(c)))
	}
	f.Add([]byte("name: x\nmeaning: \"a \\u2028 'b' <c> é\"\nbase: hf-fp32\nset: {l2_eps_value: 0.1e-7}\nat:\n  - {layers: [\"0-3,7\", all, \"1?\"], modules: [\"*_norm\", mlp], contract: hf-bf16}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseContract("fuzz", text)
		if err != nil {
			var input *inputerr.Error
			if !errors.As(err, &input) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: %q", text, err)
			}
			return
		}
		again, err := ParseContract("fuzz", []byte(c.YAML()))
		if err != nil || !reflect.DeepEqual(c, again) || c.Digest() != again.Digest() {
			t.Errorf("%q is written as\n%s\nand read back as %+v, %v\nwant %+v", text, c.YAML(), again, err, c)
		}
		if m, err := c.Map(tinyPlaces); err == nil && len(m) != len(tinyPlaces) {
			t.Errorf("%q maps %d of %d places", text, len(m), len(tinyPlaces))
		}
	})
}
