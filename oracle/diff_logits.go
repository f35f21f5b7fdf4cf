package oracle

import (
	"cmp"
	"math"
	"slices"

	"sibyl/trace"
)

// LogitStats compares the two distributions over the next token, position by position.
type LogitStats struct {
	Positions int `json:"positions"`
	// Skipped positions hold a NaN or an infinity on either side; they enter nothing below.
	Skipped int `json:"skipped_non_finite"`
	// Top1Agree counts positions with the same argmax (the lowest id of a tie). Top1Ties counts those that do not
	// agree although both ids are maxima of TEST.
	Top1Agree    int   `json:"top1_agree"`
	Top1Ties     int   `json:"top1_ties"`
	FirstFlip    int   `json:"first_flip"` // first position that neither agrees nor ties, -1 if none
	FirstFlipIDs []int `json:"first_flip_ids"`
	// KL is sum p_ref * ln(p_ref / p_test) in nats, softmax at temperature 1 over the full vocabulary, in float64;
	// null where only ids were compared.
	KLMean    Number `json:"kl_mean_nats"`
	KLWorst   Number `json:"kl_worst_nats"`
	KLWorstAt int    `json:"kl_worst_at"` // position, -1 without KL
	// TopK is k, TopKOverlap the mean share of REF's k largest that are among TEST's k largest.
	TopK        int    `json:"top_k"`
	TopKOverlap Number `json:"top_k_overlap"`
}

// defaultTopK is the k of the top-k overlap where none was asked for.
const defaultTopK = 5

// logits reads the logit rows once more, one position at a time; nil if they were not both recorded.
func (d *differ) logits() (*LogitStats, error) {
	c := d.lookup(trace.Logits, -1)
	if c == nil {
		return nil, nil
	}
	k := d.opt.TopK
	if k <= 0 {
		k = defaultTopK
	}
	s := newLogitStats(min(k, c.width))
	err := d.blocks(c.info.Name, c.n, c.width, func(_ int, a, b []float32) { s.add(a, b) })
	s.close()
	return s, err
}

func newLogitStats(k int) *LogitStats {
	return &LogitStats{FirstFlip: -1, KLWorstAt: -1, TopK: k, KLWorst: Number(math.NaN()), KLMean: 0, TopKOverlap: 0}
}

// add takes one position's logit rows.
func (s *LogitStats) add(a, b []float32) {
	pos := s.Positions
	s.Positions++
	if !allFinite(a) || !allFinite(b) {
		s.Skipped++
		return
	}
	ta, tb := argmax(a), argmax(b)
	s.top1(pos, ta, tb, b[ta] == b[tb])
	kl := divergence(a, b)
	s.KLMean += Number(kl)
	if s.KLWorstAt < 0 || kl > float64(s.KLWorst) {
		s.KLWorst, s.KLWorstAt = Number(kl), pos
	}
	s.TopKOverlap += Number(overlap(largest(a, s.TopK), largest(b, s.TopK)))
}

// top1 counts one position's choices.
func (s *LogitStats) top1(pos, ref, test int, tie bool) {
	switch {
	case ref == test:
		s.Top1Agree++
	case tie:
		s.Top1Ties++
	case s.FirstFlip < 0:
		s.FirstFlip, s.FirstFlipIDs = pos, []int{ref, test}
	}
}

// close turns sums into means.
func (s *LogitStats) close() {
	n := Number(s.Positions - s.Skipped) // 0/0 is NaN: null
	s.KLMean /= n
	s.TopKOverlap /= n
}

func allFinite(x []float32) bool {
	for _, v := range x {
		if !finite(float64(v)) {
			return false
		}
	}
	return true
}

// argmax is the lowest index of the largest value.
func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// divergence is KL(a||b) of the softmaxes of two logit rows, in nats; +Inf where b excludes (-Inf) what a does not.
// Rounding can make a sum of nearly nothing negative; it is then 0.
func divergence(a, b []float32) float64 { return divergenceFrom(a, b, logSumExp(a), logSumExp(b)) }

// divergenceFrom is divergence with the log-sum-exp of both rows, which must be finite.
func divergenceFrom(a, b []float32, la, lb float64) float64 {
	sum := 0.0
	for i := range a {
		pa := float64(a[i]) - la
		if p := math.Exp(pa); p > 0 { // a masked id (-Inf) adds nothing
			sum += float64(p * (pa - (float64(b[i]) - lb)))
		}
	}
	return max(sum, 0)
}

// logSumExp is log(sum exp(x)); NaN if x holds NaN or +Inf, or nothing but -Inf.
func logSumExp(x []float32) float64 {
	top, sum := float64(x[argmax(x)]), 0.0
	for _, v := range x {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum)
}

// largest gives the ids of the k largest values, ties by id, ascending by id.
func largest(x []float32, k int) []int {
	var top []int // descending by value
	for i, v := range x {
		if len(top) == k && (k == 0 || x[top[k-1]] >= v) {
			continue
		}
		at, _ := slices.BinarySearchFunc(top, v, func(j int, v float32) int {
			if x[j] >= v { // equal values stand in the order of their ids
				return -1
			}
			return 1
		})
		top = slices.Insert(top, at, i)[:min(len(top)+1, k)]
	}
	slices.SortFunc(top, cmp.Compare)
	return top
}

// overlap is the share of a, ascending, that is in b, ascending.
func overlap(a, b []int) float64 {
	n := 0
	for _, x := range a {
		if _, ok := slices.BinarySearch(b, x); ok {
			n++
		}
	}
	return float64(n) / float64(max(len(a), 1))
}
