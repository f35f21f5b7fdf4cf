package shown

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sibyl/internal/kernels"
)

// TestParts: a row in parts shows what it shows whole, wherever it is cut, with ties, infinities and NaN; the log-sum-exp within
// what its sums may lose: a unit of 2^-53 for each term and two for each stretch, and those of the whole row.
func TestParts(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(85, 86))
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	specials := map[string][]float32{"none": nil, "infinity": {inf}, "two infinities": {inf, inf}, "minus infinity": {-inf, -inf, -inf},
		"NaN": {nan}, "NaN and infinity": {nan, inf, nan, -inf}}
	for what, extra := range specials {
		for _, V := range []int{1, 2, 255, 257, 1024, 3001} {
			row := make([]float32, V)
			for i := range row {
				row[i] = float32(math.Round(r.NormFloat64()*4)) + float32(i)/float32(V)*float32(r.IntN(2)) // many ties; the largest comes late
			}
			for _, v := range extra {
				row[r.IntN(V)] = v
			}
			if what == "minus infinity" && V == 257 {
				for i := range row {
					row[i] = -inf
				}
			}
			for _, size := range []int{1, 100, 256, 700, V} {
				for _, k := range []int{0, 3, V + 2} {
					want := Position(3, 7, row, k, false)
					quick := Quick(At{3, 7}, row, k, false, kernels.Fast.LogSum)
					if d := math.Abs(quick.LSE - want.LSE); d > float64(4*V+8)*0x1p-53+math.Abs(want.LSE)*0x1p-51 || quick.ID != want.ID || !slices.Equal(quick.Ties, want.Ties) {
						t.Fatalf("%s, %d logits: shows %d, %v, %x, want %d, %v, %x", what, V, quick.ID, quick.Ties, quick.LSE, want.ID, want.Ties, want.LSE)
					}
					p := NewParts(At{3, 7}, k)
					for lo := 0; lo < V; lo += size {
						p.Add(row[lo:min(lo+size, V)], lo, kernels.Fast.LogSum)
					}
					got := p.Position()
					if got.Seq != 3 || got.Pos != 7 || got.ID != want.ID || !slices.Equal(got.Ties, want.Ties) || len(got.Top) != len(want.Top) {
						t.Fatalf("%s, %d logits in parts of %d: shows %d, ties %v, want %d, %v", what, V, size, got.ID, got.Ties, want.ID, want.Ties)
					}
					for i, c := range got.Top {
						if w := want.Top[i]; c.ID != w.ID || c.Logit != w.Logit && (c.Logit == c.Logit || w.Logit == w.Logit) {
							t.Fatalf("%s, %d logits in parts of %d: candidate %d is %v, want %v", what, V, size, i, c, w)
						}
					}
					if size%stretch == 0 {
						if math.Float64bits(quick.LSE) != math.Float64bits(got.LSE) {
							t.Fatalf("%s, %d logits in parts of %d: log-sum-exp %x, %x if they come at once", what, V, size, got.LSE, quick.LSE)
						}
					}
					bound := float64(2*V+2*(V/min(size, stretch)+1)+8)*0x1p-53 + math.Abs(want.LSE)*0x1p-51
					if d := math.Abs(got.LSE - want.LSE); !(d <= bound) && math.Float64bits(got.LSE) != math.Float64bits(want.LSE) && (got.LSE == got.LSE || want.LSE == want.LSE) {
						t.Fatalf("%s, %d logits in parts of %d: log-sum-exp %x, want %x within %g", what, V, size, got.LSE, want.LSE, bound)
					}
				}
			}
		}
	}
}
