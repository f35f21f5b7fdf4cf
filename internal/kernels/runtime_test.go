package kernels

import (
	"testing"

	"sibyl/precision"
)

// TestRate: the bf16 graph computes exp(A_log), with the runtime's expf; the fp16 graph holds it as a constant, which is
// the nearest float32.
func TestRate(t *testing.T) {
	t.Parallel()
	differ := 0
	for i := range 4096 {
		x, y := []float32{float32(i)*1e-3 - 2}, []float32{0}
		for _, tt := range []struct {
			ar   *Arith
			want float32
		}{{CoreAICPUBF16, precision.ExpLibm(x[0])}, {CoreAICPU, precision.ExpR32(x[0])}, {Exact, precision.ExpR32(x[0])}, {Fast, precision.ExpR32(x[0])}} {
			if tt.ar.Rate(y, x); y[0] != tt.want {
				t.Fatalf("%s: exp(%g) = %x, want %x", tt.ar.Name, x[0], y[0], tt.want)
			}
		}
		if precision.ExpLibm(x[0]) != precision.ExpR32(x[0]) {
			differ++
		}
	}
	if differ == 0 {
		t.Error("the two never differ here: the test sees nothing")
	}
}

// TestRuntimeProducts: one product that both orders of rounding tell apart. 1 + 2^-8 is halfway between two bf16.
func TestRuntimeProducts(t *testing.T) {
	t.Parallel()
	m, err := NewMatrix(BF16, 1, 3, []byte{0x80, 0x3f, 0x80, 0x3b, 0x80, 0x3b}, precision.F32) // 1, 2^-8, 2^-8
	if err != nil {
		t.Fatal(err)
	}
	x, out := []float32{1, 1, 1}, []float32{0}
	if CoreAICPUBF16.Linear(NewPool(1), out, x, 1, m); out[0] != 1 {
		t.Errorf("a broadcast weight: %v, want 1: each sum is rounded to bf16", out[0])
	}
	if CoreAICPUBF16.Matmul(NewPool(1), out, x, 1, m); out[0] != 1+0x1p-7 {
		t.Errorf("equal batch dimensions: %v, want 1+2^-7: sums are float32", out[0])
	}
	for _, a := range []*Arith{CoreAICPU, CoreAICPUBF16} {
		if Own(a.Name) != a {
			t.Errorf("Own(%q) is another arithmetic", a.Name)
		}
	}
	if Own("") != nil || Own("exact") != nil {
		t.Error("Own gives an arithmetic that computes every contract")
	}
}
