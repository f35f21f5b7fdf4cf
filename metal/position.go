package metal

import (
	"cmp"
	"math"
	"slices"

	"sibyl/engine"
)

// describe fills a position from its whole row of logits. A NaN counts as the largest, so that it cannot hide; it ties with nothing.
func describe(p *engine.Position, logits []float32, k int, keep bool) {
	p.Top, p.LSE = largest(logits, k), logSumExp(logits)
	p.ID = p.Top[0].ID
	p.Ties = []int32{p.ID}
	for i := int(p.ID) + 1; i < len(logits); i++ {
		if logits[i] == logits[p.ID] {
			p.Ties = append(p.Ties, int32(i))
		}
	}
	if keep {
		p.Logits = logits
	}
}

// before orders candidates: NaN first, then the larger logit, then the lower id.
func before(a, b engine.Candidate) int {
	if an, bn := math.IsNaN(a.Logit), math.IsNaN(b.Logit); an != bn {
		if an {
			return -1
		}
		return 1
	} else if !an && a.Logit != b.Logit {
		return cmp.Compare(b.Logit, a.Logit)
	}
	return cmp.Compare(a.ID, b.ID)
}

func largest(logits []float32, k int) []engine.Candidate {
	top := make([]engine.Candidate, 0, k+1)
	for i, v := range logits {
		c := engine.Candidate{ID: int32(i), Logit: float64(v)}
		if len(top) == k && before(top[k-1], c) < 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(top, c, before)
		top = slices.Insert(top, at, c)
		top = top[:min(k, len(top))]
	}
	return top
}

func logSumExp(logits []float32) float64 {
	m := math.Inf(-1)
	for _, v := range logits {
		if v != v {
			return math.NaN()
		}
		m = max(m, float64(v))
	}
	if math.IsInf(m, 0) {
		return m
	}
	var s float64
	for _, v := range logits {
		s += math.Exp(float64(v) - m)
	}
	return m + math.Log(s)
}
