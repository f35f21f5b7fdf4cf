package strictyaml

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sibyl/internal/inputerr"
)

type testRule struct {
	Match  List     `yaml:"match"`
	Set    Map      `yaml:"set"`
	Bound  *float64 `yaml:"bound"`
	Count  int      `yaml:"count"`
	Strict bool     `yaml:"strict"`
}

type testFile struct {
	Name  Scalar     `yaml:"name"`
	Text  string     `yaml:"text"`
	Rules []testRule `yaml:"rules"`
}

func TestParse(t *testing.T) {
	t.Parallel()
	var got testFile
	err := Parse("f", "a test", []byte("---\n# head\nname: 010\nrules:\n  - match: [\"*.q\", 3]\n    set: {state: F32, eps: 1e-6, on: true}\n    bound: 1e-4\n"+
		"  - match: all\n    count: 3 # three\n    strict: true\n"), &got)
	if err != nil {
		t.Fatal(err)
	}
	bound := 1e-4
	want := testFile{Name: Scalar{"010", 3}, Rules: []testRule{
		{Match: List{{"*.q", 5}, {"3", 5}}, Bound: &bound, Set: Map{{Scalar{"state", 6}, Scalar{"F32", 6}}, {Scalar{"eps", 6}, Scalar{"1e-6", 6}}, {Scalar{"on", 6}, Scalar{"true", 6}}}},
		{Match: List{{"all", 8}}, Count: 3, Strict: true},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "\n\n"} {
		got := testFile{Text: "kept"}
		if err := Parse("f", "a test", []byte(empty), &got); err != nil || got.Text != "kept" {
			t.Errorf("%q: %v, %+v", empty, err, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, why, in, want string }{
		{"unknown-key", "a misspelt key would do nothing", "name: a\nrulse: 1\n", `f:2: found the unknown key "rulse"; did you mean "rules"?`},
		{"unknown-inner-key", "the keys of rules count too", "rules:\n  - match: a\n    bount: 1\n", `f:3: found the unknown key "bount"; did you mean one of "bound", "count"?`},
		{"doubled-key", "which one counts", "name: a\ntext: x\nname: b\n", `f:3: "name": found the key again, after line 1, want each key once; remove one of them`},
		{"doubled-quoted", "the same key by another spelling", "name: a\n\"name\": b\n", "f:2: \"name\": found the key again"},
		{"doubled-in-set", "maps with free keys too", "rules: [{set: {a: 1, a: 2}}]", "found the key again, after line 1"},
		{"no-value", "null would leave a bound out", "rules:\n  - match: a\n    bound:\n", `f:3: "bound": found no value`},
		{"null-item", "a pattern that is nothing", "rules:\n  - match: [a, ~]\n", "f:2: found a list item without a value"},
		{"comma-in-braces", "a range with a comma must be quoted there", "rules: [{set: {layers: 0-3,7}}]", "inside { } a comma ends a value"},
		{"alias", "a glob that is not quoted", "rules:\n  - match: *a\n", "f:2: found an alias (*), want plain YAML; quote text that begins with"},
		{"anchor", "can make a small file large", "name: &a b\n", "f:1: found an anchor (&)"},
		{"tag", "panics or changes the type", "name: !!binary aGk=\n", "f:1: found a tag (!)"},
		{"merge", "where do keys come from", "name: a\n<<: {text: b}\n", "f:2: found a merge key (<<)"},
		{"two-documents", "which one counts", "name: a\n---\nname: b\n", "f:2: found a second document"},
		{"list", "the whole is no list", "- name: a\n", "f:1: found a sequence, want a mapping"},
		{"wrong-number", "text for a number", "rules:\n  - bound: many\n", `f:2: found "many", want a number`},
		{"wrong-bool", "yes is text in YAML 1.2", "rules:\n  - strict: yes\n", `f:2: found "yes", want true or false`},
		{"list-for-scalar", "one name only", "name: [a, b]\n", "f:1: found a list, want one value"},
		{"map-in-list", "patterns are text", "rules:\n  - match: [{a: b}]\n", "f:2: found keys with values, want a value or a list of values"},
		{"list-in-set", "one value a key", "rules:\n  - set: {a: [b]}\n", `f:2: found a list, want one value for "a"`},
		{"scalar-for-set", "a map", "rules:\n  - set: F32\n", `f:2: found "F32", want keys with values`},
		{"binary", "the wrong file", "PK\x03\x04", "f:1: found the control character U+0003"},
		{"latin1", "the wrong encoding", "name: \xe4\n", "found bytes that are not UTF-8"},
		{"parser-panic", "the YAML library panics on this", "rules:\n !\r x", "f:"},
		{"syntax", "brackets left open", "rules: [a\n", "f:1: malformed YAML"},
		{"deep", "brackets: quadratic time in the library", strings.Repeat("[", 60000), "f:1: found lists more than 32 deep"},
		{"deep-dashes", "the same without brackets", strings.Repeat("- ", 30000), "f:1: found lists more than 32 deep"},
		{"too-long", "a recipe is not a megabyte", strings.Repeat("#", MaxBytes+1), "f: found more than 64 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			err := Parse("f", "a test", []byte(tt.in), new(testFile))
			var input *inputerr.Error
			if err == nil || !errors.As(err, &input) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%.80q: %v\nwant one line with %s\nwhy: %s", tt.in, err, tt.want, tt.why)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("%.80q took %v", tt.in, d)
			}
		})
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, want := range map[string]string{"none": "give the path of a YAML file with a test", ".": "give the path of a YAML file with a test", "big": "more than 64 KiB"} {
		if name == "big" {
			if err := os.WriteFile(filepath.Join(dir, name), make([]byte, MaxBytes+1), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := Read(filepath.Join(dir, name), "a test", new(testFile)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	good := filepath.Join(dir, "good")
	if err := os.WriteFile(good, []byte("name: x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got testFile
	if err := Read(good, "a test", &got); err != nil || got.Name.Text != "x" {
		t.Errorf("%+v, %v", got, err)
	}
}

// FuzzParse: any text is read or refused in one line, without a panic.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"name: a\nrules:\n  - {match: [a, b], set: {x: 1}, bound: .nan}", "rules:\n !\r x", "? a\n: b", "a: |\n  x\n", "- - - a", "\"\\x", "name: 0x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := Parse("fuzz", "a test", b, new(testFile))
		var input *inputerr.Error
		if err != nil && (!errors.As(err, &input) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q: %q", b, err)
		}
	})
}
