package oracle

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"sibyl/trace"
)

func statsOf(dtype trace.DType, shape []int, a, b []float32) TensorStats {
	c := newComparison(trace.TensorInfo{Name: "x", Tap: trace.Embed, Layer: -1, DType: dtype, Shape: shape})
	for i := range a { // one at a time: blocks must not matter
		c.add(a[i:i+1], b[i:i+1])
	}
	return c.stats()
}

func TestTensorStats(t *testing.T) {
	t.Parallel()
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	next := func(x float32) float32 { return math.Float32frombits(math.Float32bits(x) + 1) }
	for _, tt := range []struct {
		name, why string
		a, b      []float32
		check     func(s TensorStats) bool
	}{
		{"same", "every figure of no difference", []float32{1, -2}, []float32{1, -2}, func(s TensorStats) bool {
			return s.Identical() && s.MaxAbs == 0 && s.MaxAbsAt == nil && s.RMSDiff == 0 && s.Cosine == 1 && math.IsNaN(float64(s.SNR)) && s.LeastTolerance == 0 && s.RelError == 0
		}},
		{"known", "by hand: d = (0, 3, -4, 0), a = (6, 0, 8, 0)", []float32{6, 0, 8, 0}, []float32{6, 3, 4, 0}, func(s TensorStats) bool {
			return s.Differ == 2 && s.MaxAbs == 4 && slices.Equal(s.MaxAbsAt, []int{1, 0}) && s.RMSDiff == 2.5 && s.RMSRef == 5 && s.MaxRef == 8 &&
				s.LeastTolerance == 0.5 && s.RelError == 0.5 && math.Abs(float64(s.SNR)-20*math.Log10(2)) < 1e-12 &&
				math.Abs(float64(s.Cosine)-68/(10*math.Sqrt(61))) < 1e-12
		}},
		{"small-values", "below 1 the tolerance is absolute", []float32{0.25, 0}, []float32{0.25, 0.125}, func(s TensorStats) bool { return s.LeastTolerance == 0.125 }},
		{"first-of-equals", "the first of equally large errors", []float32{0, 0, 0, 0}, []float32{0, 1, -1, 1}, func(s TensorStats) bool { return slices.Equal(s.MaxAbsAt, []int{0, 1}) }},
		{"ulp", "one step at any magnitude", []float32{1, 1e-30, 1e30, -2}, []float32{next(1), next(1e-30), next(1e30), next(-2)}, func(s TensorStats) bool { return s.MaxULP == 1 && s.MedianULP == 1 && s.Differ == 4 }},
		{"ulp-across-zero", "the smallest subnormals are 2 apart", []float32{math.SmallestNonzeroFloat32}, []float32{-math.SmallestNonzeroFloat32}, func(s TensorStats) bool { return s.MaxULP == 2 }},
		{"ulp-largest", "from end to end of the line", []float32{-math.MaxFloat32}, []float32{math.MaxFloat32}, func(s TensorStats) bool { return s.MaxULP == 2*0x7f7fffff }},
		{"ulp-median", "the lower median", []float32{1, 1, 1}, []float32{1, next(1), next(next(1))}, func(s TensorStats) bool { return s.MedianULP == 1 && s.MaxULP == 2 }},
		{"ulp-median-large", "rounded down to a power of two", []float32{1}, []float32{math.Float32frombits(math.Float32bits(1) + 700)}, func(s TensorStats) bool { return s.MedianULP == 512 && s.MaxULP == 700 }},
		{"signed-zero", "other bits, no distance", []float32{0}, []float32{float32(math.Copysign(0, -1))}, func(s TensorStats) bool { return s.Differ == 1 && s.MaxULP == 0 && s.MaxAbs == 0 && !s.Identical() }},
		{"zeros", "no signal on both sides", []float32{0, 0}, []float32{0, 0}, func(s TensorStats) bool { return s.Cosine == 1 && s.RelError == 0 }},
		{"no-signal", "REF is zero, TEST is not", []float32{0}, []float32{1}, func(s TensorStats) bool {
			return math.IsNaN(float64(s.Cosine)) && math.IsInf(float64(s.RelError), 1) && s.LeastTolerance == 1
		}},
		{"opposite", "cosine -1", []float32{3, 4}, []float32{-3, -4}, func(s TensorStats) bool { return s.Cosine == -1 }},
		{"same-class", "NaN and NaN, Inf and Inf are equal and leave the figures alone", []float32{nan, inf, -inf, 1}, []float32{float32(math.Float32frombits(0x7fc00001)), inf, -inf, 1}, func(s TensorStats) bool {
			return s.Identical() && s.NonFinite.Ref == 3 && s.NonFinite.Test == 3 && s.RMSRef == 1 && s.MaxAbs == 0
		}},
		{"nan-against-number", "no tolerance passes", []float32{1, 1}, []float32{1, nan}, func(s TensorStats) bool {
			return s.NonFinite.Mismatched == 1 && slices.Equal(s.NonFinite.FirstAt, []int{1, 0}) && math.IsInf(float64(s.LeastTolerance), 1) && s.Differ == 1 && s.MaxAbs == 0
		}},
		{"infinities", "signs tell them apart", []float32{inf}, []float32{-inf}, func(s TensorStats) bool { return s.NonFinite.Mismatched == 1 }},
		{"nan-against-inf", "classes differ", []float32{nan}, []float32{inf}, func(s TensorStats) bool { return s.NonFinite.Mismatched == 1 }},
		{"huge", "squares of the largest float32 fit float64", []float32{math.MaxFloat32}, []float32{-math.MaxFloat32}, func(s TensorStats) bool { return finite(float64(s.RMSDiff)) && s.Cosine == -1 }},
		{"empty", "nothing", nil, nil, func(s TensorStats) bool { return s.Identical() && s.RMSDiff == 0 && s.MedianULP == 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rows := 2
			if len(tt.a)%2 == 1 || len(tt.a) == 0 {
				rows = max(len(tt.a), 1)
			}
			s := statsOf(trace.F32, []int{rows, len(tt.a) / rows}, tt.a, tt.b)
			if !tt.check(s) {
				t.Errorf("a %v b %v: %+v\nwhy: %s", tt.a, tt.b, s, tt.why)
			}
			if _, err := json.Marshal(s); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestIntegersAreCounted(t *testing.T) {
	t.Parallel()
	s := statsOf(trace.I32, []int{2, 2}, []float32{1, 2, 3, 4}, []float32{1, 2, 4, 3})
	if s.Differ != 2 || !slices.Equal(s.MaxAbsAt, []int{1, 0}) || !math.IsNaN(float64(s.MaxAbs)) {
		t.Errorf("%+v, want 2 differing, the first at [1 0], no distance", s)
	}
}

func TestNumberInJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal([]Number{0, 1e-7, 0.1, Number(math.NaN()), Number(math.Inf(-1)), 1e300})
	if want := "[0,1e-7,0.1,null,null,1e+300]"; string(b) != want && string(b) != "[0,1e-07,0.1,null,null,1e+300]" || err != nil {
		t.Errorf("%s, %v, want %s", b, err, want)
	}
}

// TestGrid: the fewest trailing zeros tell fp32, fp16 and bf16 values apart.
func TestGrid(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		v    float32
		want int
	}{{1, 23}, {1.5, 22}, {0.1, 0}, {0.0999755859375, 13}, {0.10009765625, 16}, {0, 24}, {math.SmallestNonzeroFloat32, 24}, {-1, 23}} {
		if got := trailing(math.Float32bits(tt.v)); got < tt.want || (tt.want < 13 && got >= 13) {
			t.Errorf("trailing(%v) = %d, want %d", tt.v, got, tt.want)
		}
	}
}
