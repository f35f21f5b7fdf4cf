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

// TestLargest: of few and of most of a row, the candidates are those of the whole row sorted: NaN first, ties by id.
func TestLargest(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(83, 84))
	for _, V := range []int{1, 2, 255, 600, 2048} {
		row := make([]float32, V)
		for i := range row {
			row[i] = float32(math.Round(r.NormFloat64() * 9))
			if r.IntN(50) == 0 {
				row[i] = [...]float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))}[r.IntN(3)]
			}
		}
		ids := make([]int32, V)
		for i := range ids {
			ids[i] = int32(i)
		}
		slices.SortStableFunc(ids, func(a, b int32) int {
			x, y := row[a], row[b]
			switch {
			case x != x && y == y, x > y:
				return -1
			case y != y && x == x, x < y:
				return 1
			}
			return 0
		})
		for _, k := range []int{1, 2, 8, max(1, V/4), V/4 + 1, V, V + 5} {
			top := Largest(row, k)
			if len(top) != min(k, V) {
				t.Fatalf("%d of %d: %d candidates", k, V, len(top))
			}
			for i, c := range top {
				if c.ID != ids[i] || math.Float64bits(c.Logit) != math.Float64bits(float64(row[c.ID])) {
					t.Errorf("%d of %d: candidate %d is %v, want id %d", k, V, i, c, ids[i])
				}
			}
		}
	}
}
