package quant_test

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/model"
	_ "sibyl/plain64" // the engine fp64
	"sibyl/precision"
	"sibyl/quant"
)

// logits scores 12 tokens and gives all logits.
func logits(t *testing.T, e engine.Engine, err error) []float32 {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ids := make([]int32, 12)
	for i := range ids {
		ids[i] = int32(i*37+11) % 500
	}
	var out []float32
	if err := e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true}, func(p *engine.Position) error {
		out = append(out, p.Logits...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEngine runs models whose weights are quantized when they are read, and the same written to disk and opened as
// MODEL: every bit of the logits is the same. The fp64 engine, with a dequantizer of its own, is as near to them as it
// is to any fp32 run; and the scheme does change them.
func TestEngine(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"tiny-moe", "tiny-dense-tied"} {
		ref := filepath.Join("..", "testdata", "goldens", set)
		for _, s := range quant.Schemes() {
			if set == "tiny-moe" && s.Name != "int8hu-sym" && s.Name != "u4-minval" {
				continue
			}
			t.Run(set+"/"+s.Name, func(t *testing.T) {
				t.Parallel()
				ck, err := bundle.Open(ref)
				if err != nil {
					t.Fatal(err)
				}
				dir := filepath.Join(t.TempDir(), "q")
				if _, err := quant.Write(t.Context(), ck, s, dir, quant.Options{}); err != nil {
					t.Fatal(err)
				}
				a, err := s.AssignTo(ck)
				if err != nil {
					t.Fatal(err)
				}
				lazy := &model.Plan{Contract: precision.HFFP32, View: func(p model.Place, r config.Role, m *kernels.Matrix) (*kernels.Matrix, error) {
					return a.View(p.Layer, r, m)
				}}
				e, err := model.New(ck, lazy, kernels.Exact, engine.Spec{Model: ref})
				got := logits(t, e, err)
				stored, err := engine.Open(t.Context(), "cpu", engine.Spec{Model: dir, Contract: "hf-fp32", Mode: "exact"})
				want := logits(t, stored, err)
				if !slices.Equal(got, want) {
					t.Error("quantized when read and quantized on disk differ")
				}
				f64, err := engine.Open(t.Context(), "fp64", engine.Spec{Model: dir})
				exact := logits(t, f64, err)
				plain, err := engine.Open(t.Context(), "cpu", engine.Spec{Model: ref, Contract: "hf-fp32", Mode: "exact"})
				unquantized := logits(t, plain, err)
				// HF fp32 is 6.2e-6 rms from float64 on tiny-dense-tied; a wrong nibble or scale moves logits by 1e-2 and more.
				if d := rms(got, exact); d > 1e-4 {
					t.Errorf("rms distance to fp64 on the same weights %g", d)
				}
				if d := rms(got, unquantized); d == 0 || s.Name != "fp16" && d < 1e-3 {
					t.Errorf("rms distance to the unquantized model %g: the scheme does nothing", d)
				} else {
					t.Logf("rms of the logits' change by %s: %.3g", s.Name, d)
				}
			})
		}
	}
}

func rms(a, b []float32) float64 {
	var s float64
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		s += d * d
	}
	return math.Sqrt(s / float64(len(a)))
}
