package oracle

import (
	"math"
	"slices"
)

// Verdict says why TEST's id at a position is what it is, beside REF's.
type Verdict string

// The verdicts. IDENTICAL and TIE are never flips; the others are.
const (
	Identical     Verdict = "IDENTICAL"
	Tie           Verdict = "TIE"
	Quant         Verdict = "QUANT"
	Rounding      Verdict = "ROUNDING"
	QuantRounding Verdict = "QUANT+ROUNDING"
	Near          Verdict = "NEAR"
	Defect        Verdict = "DEFECT"
)

// Verdicts lists them in the order of the table.
var Verdicts = []Verdict{Identical, Tie, Quant, Rounding, QuantRounding, Near, Defect}

// Flip says whether the verdict is of a position where TEST chose another id than REF.
func (v Verdict) Flip() bool { return v != Identical && v != Tie }

// ControlKind says what a control shares with REF and with TEST.
type ControlKind string

// The controls. Each answers what a correct engine would have said.
const (
	ControlQ     ControlKind = "Q"     // REF's contract with TEST's weights
	ControlC     ControlKind = "C"     // TEST's contract with REF's weights
	ControlE     ControlKind = "E"     // both: one realisation of the expected conversion
	ControlNoise ControlKind = "noise" // REF in the other of fp32 and fp64: how far rounding moves REF itself
)

// Case is one position with all that the table may ask.
type Case struct {
	Ref, Test Seen
	// TestShowsTies: TEST's set of maxima can be relied on (it shows top-k); else E's stand in.
	TestShowsTies bool
	Q, C, E       []Seen  // what the controls showed here, one per engine; none until such engines are given
	Noisy         []Seen  // what noisy realisations of E showed; they are asked where no row before theirs holds
	Margin        float64 // REF's margin in the floor's unit; NaN if REF shows none or is not finite
	Floor         float64
}

// rule is one row of the table; the first whose test holds gives the verdict.
type rule struct {
	verdict Verdict
	when    string // as printed beside the verdict
	holds   func(c *Case) bool
}

// verdictTable is DESIGN section 6, with a row before it: logits that are not numbers have no argmax to judge.
var verdictTable = []rule{
	{Defect, "TEST's logits are not finite", func(c *Case) bool { return c.Test.Fault != "" }},
	{Identical, "same id", func(c *Case) bool { return c.Test.ID == c.Ref.ID }},
	{Tie, "both ids are among the maxima of TEST", func(c *Case) bool { return c.TestShowsTies && c.ties(&c.Test) }},
	{Tie, "both ids are among the maxima of the expected conversion", func(c *Case) bool {
		return !c.TestShowsTies && slices.ContainsFunc(c.E, func(e Seen) bool { return c.ties(&e) })
	}},
	{Quant, "REF's contract with TEST's weights gives the same", func(c *Case) bool { return c.given(c.Q) }},
	{Rounding, "TEST's contract with REF's weights gives the same", func(c *Case) bool { return c.given(c.C) }},
	{QuantRounding, "the expected conversion gives the same", func(c *Case) bool { return c.given(c.E) }},
	{Near, "REF shows no finite margin", func(c *Case) bool { return math.IsNaN(c.Margin) }},
	{Near, "REF's margin is below the floor", func(c *Case) bool { return c.Margin < c.Floor }},
	{Near, "the expected conversion's own realisations differ by as much", (*Case).withinSpread},
	{Near, "with roundings one unit off, the expected conversion gives the same", func(c *Case) bool { return c.given(c.Noisy) }},
	{Near, "with roundings one unit off, the expected conversion comes half the way there", (*Case).withinNoise},
	{Defect, "nothing explains it", func(*Case) bool { return true }},
}

// Judge gives the verdict and the reason of the row that gave it. A DEFECT of logits that are not finite names them.
func (c *Case) Judge() (v Verdict, why string) {
	for _, r := range verdictTable {
		if !r.holds(c) {
			continue
		}
		if r.verdict == Defect && c.Test.Fault != "" {
			return Defect, "TEST's " + c.Test.Fault
		}
		return r.verdict, r.when
	}
	panic("oracle: the last row of the verdict table always holds")
}

// Qualified says whether REF alone is sure enough of this position to judge by it.
func (c *Case) Qualified() bool { return c.Margin >= c.Floor }

// ties says whether s's set of maxima holds both REF's and TEST's id.
func (c *Case) ties(s *Seen) bool {
	return slices.Contains(s.Ties, c.Ref.ID) && slices.Contains(s.Ties, c.Test.ID)
}

// given says whether one of the controls chose TEST's id.
func (c *Case) given(controls []Seen) bool {
	return slices.ContainsFunc(controls, func(s Seen) bool { return s.ID == c.Test.ID && s.Fault == "" })
}

// withinSpread: the smallest gap between r and t in any realisation of E is at most twice the largest distance
// between two realisations' logits of one id. Needs two realisations that show both ids.
func (c *Case) withinSpread() bool {
	gap, spread := math.Inf(1), 0.0
	for i := range c.E {
		if g := math.Abs(c.E[i].between(c.Ref.ID, c.Test.ID)); g < gap { // false for NaN: not shown
			gap = g
		}
		for j := range i {
			distances(&c.E[i], &c.E[j], func(d float64) { spread = max(spread, d) })
		}
	}
	return len(c.E) >= 2 && gap <= 2*spread
}

// withinNoise: the gap by which E, in its first realisation, prefers r to t is at most twice what the noise of one of the
// noisy ones takes from it. Only the gap itself counts, and only towards t: their noise is wider than a right engine's, and
// the distance of any two logits would be too generous a measure of it.
func (c *Case) withinNoise() bool {
	if len(c.E) == 0 {
		return false
	}
	gap := c.E[0].between(c.Ref.ID, c.Test.ID)
	return gap > 0 && slices.ContainsFunc(c.Noisy, func(s Seen) bool {
		return s.Fault == "" && gap <= 2*(gap-s.between(c.Ref.ID, c.Test.ID)) // false for NaN: not shown
	})
}
