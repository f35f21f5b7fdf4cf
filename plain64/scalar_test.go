package plain64

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/x448/float16"

	"sibyl/config"
)

// TestInverseFrequencies against the table of the demo model's golden (torch) and, for the family's real sizes, against
// values worked out by another route: math.Pow in float64, where its error cannot reach a rounding boundary.
func TestInverseFrequencies(t *testing.T) {
	t.Parallel()
	want := golden(t, "opticks-2m")["rope.inv_freq"].data
	for j, got := range inverseFrequencies(1e7, 16) {
		if float64(got) != want[j] {
			t.Errorf("inv_freq[%d] = %g, want %g", j, got, want[j])
		}
	}
	for _, rot := range []int{8, 16, 24, 64} {
		once := 0
		for j, got := range inverseFrequencies(1e7, rot) {
			exact := math.Pow(1e7, float64(float32(2*j)/float32(rot)))
			lo, hi := float32(exact*(1-1e-14)), float32(exact*(1+1e-14))
			if lo != hi {
				t.Fatalf("rot %d: entry %d is too close to a rounding boundary for this check", rot, j)
			}
			if got != 1/lo {
				t.Errorf("rot %d: inv_freq[%d] = %g, want %g", rot, j, got, 1/lo)
			}
			if got != float32(math.Pow(1e7, -float64(2*j)/float64(rot))) {
				once++
			}
		}
		if rot == 64 && once != 15 {
			t.Errorf("rounding the exact value once differs in %d entries of 32, want 15 (DESIGN section 2)", once)
		}
	}
}

// TestRope: the family's real table (64 of 256 dims, sections 11, 11, 10) at a long position on each axis, where
// rounding the angle to float32, which is part of the definition, moves the result by far more than the bound.
func TestRope(t *testing.T) {
	t.Parallel()
	d := &decoder{cfg: &config.Config{HeadDim: 256, RotaryDim: 64, MRopeSection: [3]int{11, 11, 10}}, invFreq: inverseFrequencies(1e7, 64)}
	const axes = "THWTHWTHWTHWTHWTHWTHWTHWTHWTHWTH" // transformers' apply_interleaved_mrope, by hand
	pos := map[byte]int32{'T': 262143, 'H': 199999, 'W': 131075}
	x := make([]float64, 2*256) // token 1 of two, one head
	for i := range x {
		x[i] = float64(i)
	}
	d.rope(x, 1, [][3]int32{{}, {pos['T'], pos['H'], pos['W']}})
	x = x[256:]
	moved := 0.0
	for j := range 32 {
		p := float32(pos[axes[j]])
		angle := float64(p * d.invFreq[j])
		a, b := float64(256+j), float64(256+j+32)
		for _, v := range []struct {
			at   int
			want float64
		}{{j, a*math.Cos(angle) - b*math.Sin(angle)}, {j + 32, b*math.Cos(angle) + a*math.Sin(angle)}} {
			if math.Abs(x[v.at]-v.want) > 1e-9 {
				t.Errorf("dim %d: got %g, want %g on axis %c", v.at, x[v.at], v.want, axes[j])
			}
		}
		moved = max(moved, math.Abs(angle-float64(p)*float64(d.invFreq[j])))
	}
	if moved < 1e-4 {
		t.Errorf("rounding moves the angles by %g only: the test shows nothing", moved)
	}
	for i := 64; i < 256; i++ {
		if x[i] != float64(256+i) {
			t.Fatalf("dim %d is beyond the rotary part and was changed to %g", i, x[i])
		}
	}
}

// TestHalf: all 65,536 halves against another library.
func TestHalf(t *testing.T) {
	t.Parallel()
	for h := range 1 << 16 {
		got, want := halfToFloat(uint16(h)), float64(float16.Frombits(uint16(h)).Float32())
		if math.Float64bits(got) != math.Float64bits(want) && !(got != got && want != want) {
			t.Fatalf("half %#04x = %g, want %g", h, got, want)
		}
	}
}

func TestScalars(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for _, tt := range []struct {
		name, why string
		got, want float64
	}{
		{"softplus-large", "exp(1000) overflows; softplus does not", softplus(1000), 1000},
		{"softplus-small", "log(1 + exp(-40)) is 0 in steps, and exp(-40) in truth", softplus(-40), math.Exp(-40)},
		{"softplus-zero", "log 2", softplus(0), math.Ln2},
		{"silu-large", "sigmoid is 1", silu(800), 800},
		{"silu-low", "exp(800) overflows: the limit is 0, not NaN", silu(-800), 0},
		{"lse", "log(2 e^1000)", logSumExp([]float64{1000, 1000}), 1000 + math.Ln2},
		{"lse-inf", "an infinite logit is not inf - inf", logSumExp([]float64{0, inf}), inf},
		{"lse-none", "nothing is possible", logSumExp([]float64{-inf, -inf}), -inf},
		{"power-0", "theta^0 is 1", float64(power32(1e7, 0)), 1},
		{"power-half", "theta^0.5, correctly rounded", float64(power32(1e7, 0.5)), float64(float32(math.Sqrt(1e7)))},
	} {
		if math.Abs(tt.got-tt.want) > 1e-15*math.Abs(tt.want) || tt.got != tt.got {
			t.Errorf("%s: got %g, want %g\nwhy: %s", tt.name, tt.got, tt.want, tt.why)
		}
	}
}

func TestLargest(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, tt := range []struct {
		name, why string
		x         []float64
		k         int
		want      []int
	}{
		{"ties", "the lowest place first", []float64{1, 3, 2, 3, 3}, 3, []int{1, 3, 4}},
		{"cut-tie", "a tie at the cut goes to the lower place", []float64{2, 1, 2, 2}, 2, []int{0, 2}},
		{"ascending", "every element enters at the front", []float64{1, 2, 3, 4}, 2, []int{3, 2}},
		{"all", "k of k", []float64{-1, 0}, 2, []int{1, 0}},
		{"nan", "a NaN is in front, wherever it stands", []float64{5, nan, 7, nan}, 3, []int{1, 3, 2}},
		{"one", "a single element", []float64{nan}, 1, []int{0}},
	} {
		if got := largest(tt.x, tt.k); !slices.Equal(got, tt.want) {
			t.Errorf("%s: largest(%v, %d) = %v, want %v\nwhy: %s", tt.name, tt.x, tt.k, got, tt.want, tt.why)
		}
	}
}

// TestPosition: what is shown of a row.
func TestPosition(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, tt := range []struct {
		name, why string
		x         []float64
		want      string
	}{
		{"tie", "all ids at the maximum, ascending", []float64{1, 4, 0, 4, 4}, "id 1 ties [1 3 4] top 1 3"},
		{"near", "one ulp of float64 is no tie, though float32 cannot tell", []float64{1 + 0x1p-52, 1}, "id 0 ties [0] top 0 1"},
		{"nan", "a NaN row must not tie with everything: a gate would call that a TIE", []float64{0, nan, nan}, "id 1 ties [1] top 1 2"},
		{"one", "a vocabulary of one", []float64{3}, "id 0 ties [0] top 0"},
	} {
		p := position(0, 0, tt.x, 0, false)
		got := fmt.Sprintf("id %d ties %v top", p.ID, p.Ties)
		for _, c := range p.Top {
			got += fmt.Sprintf(" %d", c.ID)
		}
		if got != tt.want {
			t.Errorf("%s: position(%v) shows %s, want %s\nwhy: %s", tt.name, tt.x, got, tt.want, tt.why)
		}
	}
}
