package oracle

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/trace"
)

var updateDiff = flag.Bool("update-diff", false, "write testdata/diff/*.txt from what is rendered now")

// faulty is tiny-moe p17 with rounding noise and a fault that begins in layer 5's routed experts at token 10.
func faulty(t testing.TB) *mem {
	hit, seed := false, uint64(1)
	m := golden(t, "test", "tiny-moe", "p17").each(func(info trace.TensorInfo, row int, v float32) float32 {
		hit = hit || info.Name == "layer5.moe.experts_out"
		v *= float32(1 + 4*noise(&seed)*0x1p-24)
		if hit && row >= 10 && !info.Tap.Cache() {
			v *= float32(1 + 0.05*noise(&seed))
		}
		return v
	})
	m.data["layer6.moe.topk_index"][16*8+7] = 31
	return m
}

// TestRender holds what a person sees to files that were looked at. Write them again with -update-diff.
func TestRender(t *testing.T) {
	t.Parallel()
	tol, err := ParseTolerances("tol.yaml", []byte("rules:\n  - {taps: \"layer?.out\", max_scaled: 1e-4}\n  - {taps: logits, max_abs: 2e-4, cosine: 0.9}\n  - {taps: \"*.topk_index\", mismatches: 0}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		result func(t *testing.T) *DiffResult
		view   DiffView
	}{
		{"identical", func(t *testing.T) *DiffResult {
			return mustDiff(t, golden(t, "a", "tiny-asym", "p9"), golden(t, "b", "tiny-asym", "p9"), DiffOptions{})
		}, DiffView{}},
		{"fault", func(t *testing.T) *DiffResult {
			return mustDiff(t, golden(t, "ref", "tiny-moe", "p17"), faulty(t), DiffOptions{Tol: tol})
		}, DiffView{}},
		{"fault-unicode-narrow", func(t *testing.T) *DiffResult {
			return mustDiff(t, golden(t, "ref", "tiny-moe", "p17"), faulty(t), DiffOptions{})
		}, DiffView{Unicode: true, Width: 20}},
		{"streams-all", func(t *testing.T) *DiffResult {
			return mustDiff(t, golden(t, "f64", "tiny-asym", "p70.f64"), golden(t, "fp32", "tiny-asym", "p70"), DiffOptions{TopK: 3})
		}, DiffView{All: true}},
		{"nan", func(t *testing.T) *DiffResult {
			b := golden(t, "b \x1b[31m", "tiny-asym", "p9")
			b.data["layer1.out"][3*96+5] = float32(math.NaN())
			b.data["logits"][8*170] = float32(math.Inf(1))
			return mustDiff(t, golden(t, "a", "tiny-asym", "p9"), b, DiffOptions{})
		}, DiffView{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			if err := tt.result(t).Render(&b, tt.view); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "diff", tt.name+".txt")
			if *updateDiff {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.String(); got != string(want) {
				t.Errorf("rendered:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestUnicodeTerminal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why  string
		env  map[string]string
		want bool
	}{
		{"a usual desktop", map[string]string{"LANG": "en_US.UTF-8", "TERM": "xterm"}, true},
		{"LC_ALL wins", map[string]string{"LANG": "en_US.UTF-8", "LC_ALL": "C"}, false},
		{"another spelling", map[string]string{"LC_CTYPE": "C.utf8"}, true},
		{"nothing said", nil, false},
		{"asked for plain", map[string]string{"LANG": "en_US.UTF-8", "NO_COLOR": "1"}, false},
		{"an editor's shell", map[string]string{"LANG": "en_US.UTF-8", "TERM": "dumb"}, false},
	} {
		if got := UnicodeTerminal(func(k string) string { return tt.env[k] }); got != tt.want {
			t.Errorf("%v: %v, want %v\nwhy: %s", tt.env, got, tt.want, tt.why)
		}
	}
}
