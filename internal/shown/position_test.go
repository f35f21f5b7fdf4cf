package shown

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sibyl/precision"
)

// TestPositions: rows side by side show what each shows alone, and what plain loops say of it; with ties, infinities and
// NaN, and a vocabulary off every block.
func TestPositions(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(81, 82))
	inf := float32(math.Inf(1))
	for _, V := range []int{1, 2, 7, 256, 257, 1024, 1500, 3001} {
		for rows := 1; rows <= 4; rows++ {
			logits, at := make([]float32, rows*V), make([]At, rows)
			for i := range logits {
				logits[i] = float32(math.Round(r.NormFloat64() * 4)) // many ties
			}
			switch {
			case V == 257 && rows > 1:
				logits[V+3] = float32(math.NaN())
			case V == 1024:
				logits[5] = inf
			case V == 1500:
				for i := range V {
					logits[i] = -inf
				}
			}
			for i := range at {
				at[i] = At{i, 10 + i}
			}
			for i, p := range Positions(at, logits, 3, true) {
				row := logits[i*V:][:V]
				best := 0
				for j, v := range row {
					if !(row[best] != row[best]) && (v > row[best] || v != v) {
						best = j
					}
				}
				var ties []int32
				sum, top := 0.0, float64(row[best])
				for j, v := range row {
					if v == row[best] || j == best {
						ties = append(ties, int32(j))
					}
					sum += precision.Exp64(float64(v) - top)
				}
				lse := top + precision.Log64(sum)
				if math.IsInf(top, 0) || top != top {
					lse = top
				}
				if p.Seq != i || p.Pos != 10+i || p.ID != int32(best) || !slices.Equal(p.Ties, ties) || len(p.Top) != min(3, V) {
					t.Errorf("%d rows of %d, row %d: shows %d, ties %v, want %d, %v", rows, V, i, p.ID, p.Ties, best, ties)
				}
				if math.Float64bits(p.LSE) != math.Float64bits(lse) && (p.LSE == p.LSE || lse == lse) {
					t.Errorf("%d rows of %d, row %d: log-sum-exp %x, want %x", rows, V, i, p.LSE, lse)
				}
				if &p.Logits[0] != &row[0] || len(p.Logits) != V {
					t.Errorf("%d rows of %d, row %d: not its logits", rows, V, i)
				}
			}
		}
	}
}
