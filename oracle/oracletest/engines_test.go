package oracletest

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/safetensors"
	_ "sibyl/metal"
	_ "sibyl/model"
	_ "sibyl/plain64"
)

// subjects are the engines of this repository in each of their modes. A new engine adds its lines.
var subjects = []struct {
	name, engine string
	spec         engine.Spec
	// bound: what two paths may differ by. Exact: bits. Fast: fp32 sums in another order; a fifth of what the
	// traces of these models may be away from Hugging Face's (1e-4). fp64: float64's own differences vanish in the
	// rounding of what is shown to float32, one step of which is 2^-23 of the value. Worst seen: 0.4 of the bound.
	bound float64
	// state: what passes through an engine.State, which is float32, where the engine's own states are wider: 2^-24
	// of each state value, grown by the layers after it.
	state float64
}{
	{"cpu-exact", "cpu", engine.Spec{Mode: "exact", Threads: 2}, 0, 0},
	{"cpu-streamed", "cpu", engine.Spec{Mode: "exact", Stream: true, Threads: 2}, 0, 0},
	{"cpu-fast", "cpu", engine.Spec{Mode: "fast", Threads: 2}, 2e-5, 0},
	{"metal-cpu", "metal-cpu", engine.Spec{Threads: 2}, 2e-5, 0},
	{"metal", "metal", engine.Spec{Threads: 2}, 2e-5, 0},
	{"cpu-bf16", "cpu", engine.Spec{Mode: "exact", Contract: "coreai-bf16", Threads: 2}, 0, 0},
	{"fp64", "fp64", engine.Spec{}, 0x1p-23, 2e-6},
}

// TestEngines runs every engine through the suite, on a dense model whose axes all differ and on a mixture of experts.
func TestEngines(t *testing.T) {
	t.Parallel()
	for _, model := range []string{"tiny-asym", "tiny-moe", "edge-ties"} {
		if testing.Short() && model != "tiny-asym" {
			continue // the race detector's run: one model meets every line of the engines but the experts'
		}
		dir := filepath.Join("..", "..", "testdata", "goldens", model)
		for _, sub := range subjects {
			t.Run(model+"/"+sub.name, func(t *testing.T) {
				t.Parallel()
				if !available(t, sub.engine, dir) {
					return
				}
				open := func(t testing.TB) engine.Engine {
					t.Helper()
					spec := sub.spec
					spec.Model = dir
					e, err := engine.Open(t.Context(), sub.engine, spec)
					if err != nil {
						t.Fatal(err)
					}
					return e
				}
				fx := fixture(t, dir, sub.bound, sub.state)
				if sub.spec.Contract != "" {
					fx.Golden = nil // they are hf-fp32's; package model holds a contract to its own
				}
				Run(t, open, fx)
			})
		}
	}
}

// available says whether this machine can run an engine; one that needs another machine, or a compiler that is not there, is told
// in the log. CI has the compiler.
func available(t *testing.T, name, dir string) bool {
	e, err := engine.Open(t.Context(), name, engine.Spec{Model: dir})
	if err == nil {
		e.Close()
		return true
	}
	if errors.Is(err, engine.ErrUnavailable) && (name == "metal" || os.Getenv("CI") == "") {
		t.Log(err)
		return false
	}
	return true // opened again, and failed, by the suite
}

// TestEveryEngine: an engine that registers itself in this build is one of the subjects.
func TestEveryEngine(t *testing.T) {
	t.Parallel()
	for _, name := range engine.Names() {
		found := false
		for _, s := range subjects {
			found = found || s.engine == name
		}
		if !found {
			t.Errorf("engine %s is registered and not in the suite", name)
		}
	}
}

// fixture reads a golden: its prompts, fp64 logits, and greedy ids.
func fixture(t *testing.T, dir string, bound, state float64) Fixture {
	t.Helper()
	ck, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ck.Close() })
	cfg := *ck.Config()
	g := readGolden(t, dir)
	fx := Fixture{Config: &cfg, Bound: bound, StateBound: state, Prompts: [][]int32{{3, 1, 4, 1, 5, 9, 2}}}
	for _, name := range []string{"p70", "p17", "p9", "p1"} { // longer ones are in the engines' own tests
		ids := g.ints(name + ".input_ids")
		if ids == nil {
			continue
		}
		fx.Prompts = append(fx.Prompts, ids[:min(len(ids), 66)]) // past 64, the chunk form's size
		logits := g.floats(name + ".f64.logits")
		scale := 1.0
		for _, l := range logits {
			scale = max(scale, math.Abs(float64(l)))
		}
		// The bound of fp32 logits is 2e-4 absolute; fp64's is 1e-6 of the largest.
		limit := 2e-4
		if state != 0 {
			limit = 1e-6 * scale
		}
		fx.Golden = append(fx.Golden, Golden{Name: name, IDs: ids, Logits: logits, Bound: limit,
			Greedy: g.ints(name + ".greedy.ids"), Margins: g.floats(name + ".greedy.top2_margin")})
	}
	if len(fx.Golden) < 2 {
		t.Fatalf("%s: only %d prompts found", dir, len(fx.Golden))
	}
	return fx
}

type goldenFile struct {
	t *testing.T
	f *safetensors.File
}

func readGolden(t *testing.T, dir string) goldenFile {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(dir, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return goldenFile{t, f}
}

func (g goldenFile) words(name string) []uint32 {
	x, ok := g.f.Tensor(name)
	if !ok {
		return nil
	}
	out := make([]uint32, len(x.Data)/4)
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(x.Data[4*i:])
	}
	return out
}

func (g goldenFile) ints(name string) (out []int32) {
	for _, w := range g.words(name) {
		out = append(out, int32(w))
	}
	return out
}

func (g goldenFile) floats(name string) (out []float32) {
	for _, w := range g.words(name) {
		out = append(out, math.Float32frombits(w))
	}
	return out
}
