package oracle

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/trace"
)

func TestToleranceFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, why, in, want string }{
		{"good", "", "rules:\n  - taps: \"layer*.out\"\n    max_scaled: 1e-4\n  - taps: logits\n    max_abs: 2e-4\n    cosine: 0.9999\n", ""},
		{"empty", "a file that checks nothing", "", "rules: found 0 rules, want 1 to 500"},
		{"unknown-key", "a misspelt bound would never bind", "rules:\n  - taps: logits\n    maxabs: 1\n", `t.yaml:3: found the unknown key "maxabs"; did you mean "max_abs"?`},
		{"doubled-key", "which one counts", "rules:\n  - taps: logits\n    rms: 1\n    rms: 2\n", "t.yaml:4: "},
		{"no-bound", "matches, but says nothing", "rules:\n  - taps: logits\n", `rules[0].taps: found "logits" without a bound`},
		{"no-taps", "a rule for nothing", "rules:\n  - rms: 1\n", `rules[0].taps: found "", want a glob`},
		{"bad-glob", "an open class", "rules:\n  - taps: \"layer[0\"\n    rms: 1\n", "want a glob over tap names"},
		{"negative", "nothing passes", "rules:\n  - taps: logits\n    rms: -1\n", "rules[0].rms: found -1, want a finite number, at least 0"},
		{"nan", "nothing fails it in some languages", "rules:\n  - taps: logits\n    max_abs: .nan\n", "rules[0].max_abs: found NaN"},
		{"inf", "everything passes", "rules:\n  - taps: logits\n    max_abs: .inf\n", "rules[0].max_abs: found +Inf"},
		{"cosine", "a bound above 1 never holds", "rules:\n  - taps: logits\n    cosine: 1.1\n", "rules[0].cosine: found 1.1, want a number from -1 to 1"},
		{"not-yaml", "a safetensors file given by mistake", "\x00\x01{{{", "t.yaml:1: found the control character"},
		{"parser-panic", "the YAML library panics on this tag", "rules:\n !\r x", "t.yaml:2: found a tag (!)"},
		{"list", "rules without the key", "- taps: logits\n  rms: 1\n", "t.yaml:1: found a sequence"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseTolerances("t.yaml", []byte(tt.in))
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("%q: %v", tt.in, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n")):
				t.Errorf("%q: %v, want one line with %q\nwhy: %s", tt.in, err, tt.want, tt.why)
			}
		})
	}
	if _, err := ReadTolerances(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file was read")
	}
	good := filepath.Join(t.TempDir(), "good")
	if err := os.WriteFile(good, []byte("rules: [{taps: logits, rms: 1}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if tol, err := ReadTolerances(good); err != nil || len(tol.Rules) != 1 {
		t.Errorf("a good file: %+v, %v", tol, err)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	tensors := []TensorStats{
		{Name: "layer0.out", DType: trace.F32, MaxAbs: 2e-4, MaxRef: 10, LeastTolerance: 2e-5, RMSDiff: 1e-5, RelError: 1e-6, Cosine: 0.99999},
		{Name: "layer0.moe.topk_index", DType: trace.I32, Differ: 2, MaxAbs: Number(math.NaN())},
		{Name: "logits", DType: trace.F32, MaxAbs: 0, LeastTolerance: Number(math.Inf(1)), Cosine: 1, NonFinite: NonFinite{Mismatched: 1}},
	}
	for _, tt := range []struct {
		name, why, rules string
		exceeded         []string // "name bound"
		unjudged         int
		err              string
	}{
		{"kept", "at the bound is within", "- {taps: layer0.out, max_abs: 2e-4, max_scaled: 2e-5, rms: 1e-5, rel: 1e-6, cosine: 0.99999}", nil, 2, ""},
		{"each-bound", "every kind of bound can fail", "- {taps: layer0.out, max_abs: 1e-4, max_scaled: 1e-5, rms: 1e-6, rel: 1e-7, cosine: 0.999999}",
			[]string{"layer0.out max_abs", "layer0.out max_scaled", "layer0.out rms", "layer0.out rel", "layer0.out cosine"}, 2, ""},
		{"glob-skips-integers", "a bound on distances says nothing of expert numbers", "- {taps: \"layer*\", rms: 1}", nil, 2, ""},
		{"mismatches", "expert numbers are counted", "- {taps: \"*.topk_index\", mismatches: 1}", []string{"layer0.moe.topk_index mismatches"}, 2, ""},
		{"mismatches-allowed", "two of them", "- {taps: \"*.topk_index\", mismatches: 2}", nil, 2, ""},
		{"non-finite", "a NaN on one side passes no bound, however wide", "- {taps: logits, max_abs: 1e30}", []string{"logits max_abs"}, 2, ""},
		{"two-rules", "all that match bind", "- {taps: \"*\", max_abs: 1}\n- {taps: layer0.out, rms: 1e-6}", []string{"layer0.out rms", "logits max_abs"}, 1, ""},
		{"matches-nothing", "a misspelt tap must not pass", "- {taps: layer9.out, rms: 1}", nil, 0, `rules[0].taps: found "layer9.out", which binds no compared tensor`},
		{"wrong-kind", "a distance for integers only", "- {taps: \"*.topk_index\", rms: 1}", nil, 0, "which binds no compared tensor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tol, err := ParseTolerances("t.yaml", []byte("rules:\n"+tt.rules))
			if err != nil {
				t.Fatal(err)
			}
			r, err := tol.Judge(tensors)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%s: %v, want %q\nwhy: %s", tt.rules, err, tt.err, tt.why)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range r.Exceeded {
				got = append(got, e.Name+" "+e.Bound)
			}
			if !slices.Equal(got, tt.exceeded) || len(r.Unjudged) != tt.unjudged {
				t.Errorf("%s: exceeded %v, unjudged %v, want %v and %d\nwhy: %s", tt.rules, got, r.Unjudged, tt.exceeded, tt.unjudged, tt.why)
			}
			if code := (&DiffResult{Tol: r}).ExitCode(); (code == 1) != (len(tt.exceeded) > 0) {
				t.Errorf("exit code %d with %v", code, got)
			}
		})
	}
}

// FuzzTolerances: any text is read or refused; what is read can judge.
func FuzzTolerances(f *testing.F) {
	f.Add([]byte("rules:\n  - {taps: \"*\", max_abs: 1, mismatches: 0}"))
	f.Add([]byte("rules: &a\n  - taps: logits\n    rms: .nan\n"))
	f.Add([]byte("rules: [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tol, err := ParseTolerances("fuzz", b)
		if err != nil {
			return
		}
		if r, err := tol.Judge([]TensorStats{{Name: "logits", DType: trace.F32}}); err == nil && r.Judged != 1 {
			t.Errorf("%q binds nothing and is no error", b)
		}
	})
}
