// Package shown reduces rows of float32 logits to what engines show of a position.
package shown

import (
	"cmp"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// Position reduces one logit row to what engines show. A NaN counts as the maximum, so that it cannot hide.
func Position(seq, pos int, logits []float32, topK int, rows bool) *engine.Position {
	p := &engine.Position{Seq: seq, Pos: pos, Top: Largest(logits, max(2, topK)), LSE: logSumExp(logits)}
	p.ID = p.Top[0].ID
	p.Ties = append(p.Ties, p.ID)
	for i := int(p.ID) + 1; i < len(logits); i++ {
		if logits[i] == logits[p.ID] {
			p.Ties = append(p.Ties, int32(i))
		}
	}
	if rows {
		p.Logits = logits
	}
	return p
}

// above orders candidates: NaN first, then the larger logit, then the lower id.
func above(a, b engine.Candidate) int {
	if an, bn := a.Logit != a.Logit, b.Logit != b.Logit; an || bn {
		if an != bn {
			if an {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.ID, b.ID)
	}
	return cmp.Or(cmp.Compare(b.Logit, a.Logit), cmp.Compare(a.ID, b.ID))
}

// Largest gives the k first candidates in order, by insertion: k is small. Stretches of the vocabulary without one are
// passed over by their maximum.
func Largest(logits []float32, k int) []engine.Candidate {
	k = min(k, len(logits))
	top := make([]engine.Candidate, 0, k+1)
	const stretch = 256
	for lo := 0; lo < len(logits); lo += stretch {
		part := logits[lo:min(lo+stretch, len(logits))]
		if len(top) == k {
			// A later id with the last one's logit stands behind it.
			if m, nan := kernels.Max(part); !nan && float64(m) <= top[k-1].Logit {
				continue
			}
		}
		for i, v := range part {
			c := engine.Candidate{ID: int32(lo + i), Logit: float64(v)}
			if len(top) == k && above(top[k-1], c) < 0 {
				continue
			}
			at, _ := slices.BinarySearchFunc(top, c, above)
			top = slices.Insert(top, at, c)
			top = top[:min(k, len(top))]
		}
	}
	return top
}

// logSumExp is log(sum exp(logits)) in float64, in index order: the same bits on every machine.
func logSumExp(logits []float32) float64 {
	top, nan := kernels.Max(logits)
	switch m := float64(top); {
	case nan:
		return math.NaN()
	case math.IsInf(m, 0):
		return m
	}
	var s float64
	e := make([]float64, min(len(logits), 1024))
	for x := logits; len(x) > 0; {
		n := min(len(x), len(e))
		kernels.ExpDiff(e[:n], x[:n], float64(top))
		for _, v := range e[:n] {
			s += v
		}
		x = x[n:]
	}
	return float64(top) + precision.Log64(s)
}
