package kernels

import (
	"math"
	"testing"

	"sibyl/precision"
)

// TestHashStep: each step comes up for a third of the values, whatever the operation and the seed, and two of them share no
// more than chance has it.
func TestHashStep(t *testing.T) {
	t.Parallel()
	const n = 30000
	a, b, c := HashStep(1), HashStep(2), HashStep(1)
	var seen [3]int
	sameSeed, sameOp := 0, 0
	for i := range n {
		x := 1 + float32(i)*0x1p-20
		s := a(3, x)
		if s != c(3, x) {
			t.Fatalf("the step of %v is %d and %d", x, s, c(3, x))
		}
		seen[s+1]++
		if s == b(3, x) {
			sameSeed++
		}
		if s == a(4, x) {
			sameOp++
		}
	}
	for what, k := range map[string]int{"step -1": seen[0], "step 0": seen[1], "step +1": seen[2], "another seed": sameSeed, "another operation": sameOp} {
		if k < n/3-500 || k > n/3+500 { // six standard deviations of 82
			t.Errorf("%s agrees %d times of %d, want a third", what, k, n)
		}
	}
}

// TestNeighbour: one unit of each grid, at its edges.
func TestNeighbour(t *testing.T) {
	t.Parallel()
	inf := float32(math.Inf(1))
	for _, tt := range []struct {
		name    string
		grid    precision.Round
		x       float32
		steps   int
		want    float32
		because string
	}{
		{"fp32 up", precision.F32, 1, 1, 1 + 0x1p-23, ""},
		{"fp16 up", precision.F16, 1, 1, 1 + 0x1p-10, ""},
		{"fp16 down", precision.F16, 1, -1, 1 - 0x1p-11, "a binade below has finer units"},
		{"bf16 up", precision.BF16, -1, 1, -1 - 0x1p-7, "away from 0"},
		{"fp16 off the grid", precision.F16, 1 + 0x1p-14, 1, 1 + 0x1p-10, "rounded first"},
		{"fp16 largest", precision.F16, 65504, 1, 65504, "noise makes no infinity"},
		{"fp16 least", precision.F16, 0x1p-24, -1, 0, ""},
		{"zero", precision.F16, 0, 1, 0, "an exact zero is exact in every engine"},
		{"infinity", precision.F32, inf, -1, inf, ""},
		{"no step", precision.F16, 1.5, 0, 1.5, ""},
	} {
		if got := neighbour(tt.grid, tt.x, tt.steps); got != tt.want {
			t.Errorf("%s: neighbour(%v, %g, %d) = %g, want %g\nwhy: %s", tt.name, tt.grid, tt.x, tt.steps, got, tt.want, tt.because)
		}
	}
}
