package oracle

import (
	"fmt"
	"math"
	"slices"

	"sibyl/engine"
)

// Seen is what one engine showed at one position: a copy of engine.Position without the logit row, so that a
// long input costs a few hundred bytes a position and not a vocabulary.
type Seen struct {
	ID   int32              // argmax, lowest id of a tie
	Ties []int32            // ids at the maximum, ascending
	Top  []engine.Candidate // largest first; nil if not shown
	LSE  float64            // log-sum-exp over the vocabulary; NaN if not shown

	LogitGap float64 // largest minus second logit; NaN if not shown
	ProbGap  float64 // p1 - p2 of the softmax at temperature 1; NaN if not shown
	Fault    string  // "" or what is not finite: "log-sum-exp is NaN"
}

// see copies p. shows is its engine's Info.Shows: an engine that can show whole rows always knows their
// log-sum-exp, so a NaN there means a NaN in the row and not "not shown".
func see(p *engine.Position, shows engine.Shows) Seen {
	s := Seen{ID: p.ID, Ties: slices.Clone(p.Ties), Top: slices.Clone(p.Top), LSE: p.LSE,
		LogitGap: p.LogitGap(), ProbGap: p.ProbGap(), Fault: fault(p, shows)}
	if !shows.Has(engine.TopK) {
		s.Top, s.LogitGap, s.ProbGap = nil, math.NaN(), math.NaN()
	}
	return s
}

// fault names what is not finite at a position, "" if nothing is. A -Inf among the smaller logits leaves the
// log-sum-exp finite and is no fault: padded vocabularies are masked that way.
func fault(p *engine.Position, shows engine.Shows) string {
	if shows.Has(engine.TopK) {
		for i, c := range p.Top {
			if math.IsNaN(c.Logit) || math.IsInf(c.Logit, 1) || i == 0 && math.IsInf(c.Logit, -1) {
				return fmt.Sprintf("logit of id %d is %v", c.ID, c.Logit)
			}
		}
	}
	switch {
	case math.IsInf(p.LSE, 0), math.IsNaN(p.LSE) && shows.Has(engine.Logits):
		return fmt.Sprintf("log-sum-exp of the logits is %v", p.LSE)
	}
	return ""
}

// logit is the logit of id, if it is among the candidates shown.
func (s *Seen) logit(id int32) (float64, bool) {
	for _, c := range s.Top {
		if c.ID == id {
			return c.Logit, true
		}
	}
	return math.NaN(), false
}

// between is logit(a) - logit(b); NaN if one of them is not among the candidates shown.
func (s *Seen) between(a, b int32) float64 {
	la, _ := s.logit(a)
	lb, _ := s.logit(b)
	return la - lb
}

// distances calls f with |x - y| for every id among the candidates of both.
func distances(x, y *Seen, f func(d float64)) {
	for _, c := range x.Top {
		if l, ok := y.logit(c.ID); ok {
			f(math.Abs(c.Logit - l))
		}
	}
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// dtypeGrid: significand bits after the leading one, and the exponent of the smallest subnormal.
var dtypeGrid = map[string]struct{ fraction, least int }{
	"F64": {52, -1074}, "F32": {23, -149}, "F16": {10, -24}, "BF16": {7, -133},
}

// ulp is the distance between neighbouring values of dtype at x; NaN for a dtype without a grid or x not finite.
func ulp(dtype string, x float64) float64 {
	g, ok := dtypeGrid[dtype]
	if !ok || !finite(x) {
		return math.NaN()
	}
	_, e := math.Frexp(x) // |x| in [2^(e-1), 2^e)
	if x == 0 {
		return math.Ldexp(1, g.least)
	}
	return math.Ldexp(1, max(e-1-g.fraction, g.least))
}
