package oracle

import (
	"math"
	"slices"
	"testing"
)

func TestLogitStats(t *testing.T) {
	t.Parallel()
	inf := float32(math.Inf(1))
	ln := func(x float64) float32 { return float32(math.Log(x)) }
	s := newLogitStats(2)
	// p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2 = 1/4 ln 2; a flip, one of two in the top 2
	// (ties go to the lowest id: REF's top 2 are 0 and 1, TEST's 1 and 0).
	s.add([]float32{ln(.5), ln(.25), ln(.25)}, []float32{ln(.25), ln(.5), ln(.25)})
	s.add([]float32{3, 2, 1}, []float32{103, 102, 101}) // a shift of all logits is no difference
	s.add([]float32{1, 2, 0}, []float32{2, 2, 0})       // REF's id is one of TEST's maxima: a tie, not a flip
	s.add([]float32{1, inf, 0}, []float32{1, 2, 0})     // skipped
	s.add([]float32{5, 0, 4}, []float32{5, 4, 0})       // top 2: {0,2} and {0,1}
	s.close()
	if s.Positions != 5 || s.Skipped != 1 || s.Top1Agree != 2 || s.Top1Ties != 1 || s.FirstFlip != 0 || !slices.Equal(s.FirstFlipIDs, []int{0, 1}) {
		t.Errorf("%+v", s)
	}
	if want := (1 + 1 + 1 + 0.5) / 4; float64(s.TopKOverlap) != want {
		t.Errorf("top-2 overlap %v, want %v", s.TopKOverlap, want)
	}
	// The logits are float32 logarithms: each is off by at most 2^-25 relative to a value below 2.
	if got := divergence([]float32{ln(.5), ln(.25), ln(.25)}, []float32{ln(.25), ln(.5), ln(.25)}); math.Abs(got-math.Ln2/4) > 1e-7 {
		t.Errorf("KL = %v, want %v", got, math.Ln2/4)
	}
	if got := divergence([]float32{3, 2, 1}, []float32{103, 102, 101}); got > 1e-14 {
		t.Errorf("KL of shifted logits = %v, want 0", got)
	}
	if got := divergence([]float32{1000, -1000}, []float32{-1000, 1000}); got != 2000 {
		t.Errorf("KL of opposite certainties = %v, want 2000", got)
	}
	none := newLogitStats(2)
	none.add([]float32{inf}, []float32{inf})
	none.close()
	if finite(float64(none.KLMean)) || finite(float64(none.TopKOverlap)) {
		t.Errorf("means of nothing: %+v", none)
	}
}

func TestLargest(t *testing.T) {
	t.Parallel()
	x := []float32{1, 5, 3, 5, 2, 3, -1}
	for k, want := range map[int][]int{0: nil, 1: {1}, 2: {1, 3}, 3: {1, 2, 3}, 4: {1, 2, 3, 5}, 7: {0, 1, 2, 3, 4, 5, 6}} {
		if got := largest(x, k); !slices.Equal(got, want) {
			t.Errorf("largest(%v, %d) = %v, want %v", x, k, got, want)
		}
	}
}
