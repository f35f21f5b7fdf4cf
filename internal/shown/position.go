// Package shown reduces rows of float32 logits to what engines show of a position.
package shown

import (
	"cmp"
	"math"
	"slices"

	"sibyl/engine"
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

// Largest gives the k first candidates in order, by insertion: k is small.
func Largest(logits []float32, k int) []engine.Candidate {
	k = min(k, len(logits))
	top := make([]engine.Candidate, 0, k+1)
	for i, v := range logits {
		c := engine.Candidate{ID: int32(i), Logit: float64(v)}
		if len(top) == k && above(top[k-1], c) < 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(top, c, above)
		top = slices.Insert(top, at, c)
		top = top[:min(k, len(top))]
	}
	return top
}

// logSumExp is log(sum exp(logits)) in float64, in index order: the same bits on every machine.
func logSumExp(logits []float32) float64 {
	m := float32(math.Inf(-1))
	for _, v := range logits {
		if v != v {
			return math.NaN()
		}
		m = max(m, v)
	}
	if math.IsInf(float64(m), 0) {
		return float64(m)
	}
	var s float64
	for _, v := range logits {
		s += precision.Exp64(float64(v) - float64(m))
	}
	return float64(m) + precision.Log64(s)
}
