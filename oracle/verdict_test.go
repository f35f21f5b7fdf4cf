package oracle

import (
	"math"
	"strings"
	"testing"

	"sibyl/engine"
)

// saw is what an engine shows whose largest logits are these, as id, logit, id, logit, ... largest first.
func saw(pairs ...float64) Seen {
	p := engine.Position{ID: int32(pairs[0])}
	for i := 0; i < len(pairs); i += 2 {
		p.Top = append(p.Top, engine.Candidate{ID: int32(pairs[i]), Logit: pairs[i+1]})
		if pairs[i+1] == pairs[1] {
			p.Ties = append(p.Ties, int32(pairs[i]))
		}
	}
	return see(&p, engine.IDs|engine.TopK)
}

func TestVerdictTable(t *testing.T) {
	t.Parallel()
	ref := saw(3, 5, 4, 4) // REF says 3; its margin is 1
	for _, tt := range []struct {
		name, why string
		c         Case
		want      Verdict
		because   string
	}{
		{"identical", "the same id needs no explanation", Case{Test: saw(3, 5, 4, 4)}, Identical, "same id"},
		{"identical-before-tie", "a tie that resolves to REF's id is not worth a word", Case{Test: saw(3, 5, 4, 5)}, Identical, "same id"},
		{"tie", "TEST's maxima hold both ids: whichever it names is right", Case{Test: saw(2, 5, 3, 5)}, Tie, "maxima of TEST"},
		{"tie-of-others", "TEST's maxima must hold REF's id, not only its own", Case{Test: saw(2, 5, 4, 5)}, Defect, "nothing"},
		{"tie-from-E", "TEST shows no set, the expected conversion's stands in", Case{Test: saw(4, 5), E: []Seen{saw(3, 5, 4, 5)}}, Tie, "expected conversion"},
		{"tie-not-from-E", "TEST shows its set, and in it nothing ties: E's tie gives another reason", Case{Test: saw(4, 5, 3, 4), E: []Seen{saw(3, 5, 4, 5)}}, Defect, "nothing"},
		{"quant", "TEST's weights alone give TEST's id", Case{Test: saw(4, 5), Q: []Seen{saw(4, 6)}}, Quant, "TEST's weights"},
		{"quant-before-rounding", "the first row that holds names the cause", Case{Test: saw(4, 5), Q: []Seen{saw(4, 6)}, C: []Seen{saw(4, 6)}}, Quant, "TEST's weights"},
		{"rounding", "TEST's contract alone gives TEST's id", Case{Test: saw(4, 5), Q: []Seen{saw(3, 6)}, C: []Seen{saw(4, 6)}}, Rounding, "TEST's contract"},
		{"quant-rounding", "only both together give it", Case{Test: saw(4, 5), Q: []Seen{saw(3, 6)}, C: []Seen{saw(3, 6)}, E: []Seen{saw(3, 6), saw(4, 6)}}, QuantRounding, "expected conversion"},
		{"control-of-nan", "a control that is not finite explains nothing", Case{Test: saw(4, 5), Q: []Seen{{ID: 4, Fault: "NaN"}}}, Defect, "nothing"},
		{"control-says-third", "a control with another wrong id is no cause", Case{Test: saw(4, 5), Q: []Seen{saw(5, 6)}}, Defect, "nothing"},
		{"near", "below the floor REF itself is not sure", Case{Test: saw(4, 5), Margin: 0.0999, Floor: 0.1}, Near, "below the floor"},
		{"at-the-floor", "a margin equal to the floor is judged", Case{Test: saw(4, 5), Margin: 0.1, Floor: 0.1}, Defect, "nothing"},
		{"no-margin", "REF shows none: nobody can say it was sure", Case{Test: saw(4, 5), Margin: math.NaN()}, Near, "no finite margin"},
		{"near-by-spread", "E's gap of 0.5 is within twice the 0.25 by which its realisations differ",
			Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 4, 5.5), saw(3, 6, 4, 5.25)}}, Near, "realisations"},
		{"beyond-spread", "E's gap of 0.625 is more than twice 0.25",
			Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 4, 5.375), saw(3, 6, 4, 5.125)}}, Defect, "nothing"},
		{"one-realisation", "one realisation has no distance to itself",
			Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 4, 6-1e-9)}}, Defect, "nothing"},
		{"spread-not-shown", "E does not show TEST's id among its candidates",
			Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 5, 5.9), saw(3, 7, 5, 5)}}, Defect, "nothing"},
		{"near-by-noise", "a noisy realisation gives TEST's id, which is near and no cause: its roundings are nobody's",
			Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 4, 5)}, Noisy: []Seen{saw(4, 6, 3, 5)}}, Near, "one unit off, the expected conversion gives the same"},
		{"near-half-the-way", "the gap of 0.5 is twice the 0.25 that a noisy one takes from it",
			Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 4, 5.5)}, Noisy: []Seen{saw(3, 6, 4, 5.5), saw(3, 6, 4, 5.75)}}, Near, "one unit off, the expected conversion comes half the way"},
		{"beyond-noise", "the gap of 0.75 is more than twice 0.25", Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 4, 5.25)}, Noisy: []Seen{saw(3, 6, 4, 5.5)}}, Defect, "nothing"},
		{"noise-away", "noise that widens the gap explains nothing", Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 4, 5.5)}, Noisy: []Seen{saw(3, 8, 4, 5)}}, Defect, "nothing"},
		{"noise-of-others", "other ids that move by more are no measure of the gap", Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 4, 5, 5, 4)}, Noisy: []Seen{saw(3, 6, 4, 5, 5, 1)}}, Defect, "nothing"},
		{"noise-of-a-third", "E itself prefers neither r to t", Case{Test: saw(4, 5), E: []Seen{saw(5, 7, 4, 6, 3, 5)}, Noisy: []Seen{saw(5, 7, 4, 6, 3, 5)}}, Defect, "nothing"},
		{"noise-not-shown", "a noisy one that does not show t among its candidates", Case{Test: saw(4, 5), E: []Seen{saw(3, 6, 4, 5.9)}, Noisy: []Seen{saw(3, 6, 5, 5)}}, Defect, "nothing"},
		{"noise-of-nan", "a noisy one that is not finite explains nothing", Case{Test: saw(4, 5), Noisy: []Seen{{ID: 4, Fault: "NaN"}}}, Defect, "nothing"},
		{"no-noise-needed", "a row before it holds", Case{Test: saw(4, 5), E: []Seen{saw(4, 6)}, Noisy: []Seen{saw(4, 6)}}, QuantRounding, "expected conversion"},
		{"nan-same-id", "logits that are not numbers have no argmax, whatever id is named", Case{Test: Seen{ID: 3, Fault: "log-sum-exp of the logits is NaN"}}, Defect, "log-sum-exp of the logits is NaN"},
		{"nan-below-floor", "no margin excuses NaN", Case{Test: Seen{ID: 4, Fault: "logit of id 4 is NaN"}, Margin: 0.01, Floor: 0.1}, Defect, "logit of id 4 is NaN"},
		{"nan-despite-control", "no control excuses NaN", Case{Test: Seen{ID: 4, Fault: "x"}, Q: []Seen{saw(4, 6)}}, Defect, "TEST's x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := tt.c
			c.Ref = ref
			c.TestShowsTies = len(c.Test.Top) != 1
			if c.Floor == 0 && !math.IsNaN(c.Margin) {
				c.Margin, c.Floor = 1, 0.1
			}
			v, why := c.Judge()
			if v != tt.want || !strings.Contains(why, tt.because) {
				t.Errorf("Judge = %s, %q; want %s, %q\nwhy: %s", v, why, tt.want, tt.because, tt.why)
			}
		})
	}
}

func TestVerdictFlips(t *testing.T) {
	t.Parallel()
	for v, want := range map[Verdict]bool{Identical: false, Tie: false, Quant: true, Rounding: true, QuantRounding: true, Near: true, Defect: true} {
		if v.Flip() != want {
			t.Errorf("%s.Flip() = %v, want %v", v, !want, want)
		}
	}
	for _, r := range verdictTable {
		if !strings.Contains(strings.Join(verdictNames(), " "), string(r.verdict)) {
			t.Errorf("the table gives %s, which Verdicts does not list", r.verdict)
		}
	}
}

func verdictNames() (s []string) {
	for _, v := range Verdicts {
		s = append(s, string(v))
	}
	return s
}

func TestFault(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	all, ids, topK := engine.IDs|engine.TopK|engine.Logits, engine.IDs, engine.IDs|engine.TopK
	for _, tt := range []struct {
		name, why string
		p         engine.Position
		shows     engine.Shows
		want      string
	}{
		{"finite", "the usual case", engine.Position{Top: []engine.Candidate{{ID: 1, Logit: 2}, {ID: 2, Logit: 1}}, LSE: 3}, all, ""},
		{"nan-on-top", "an engine may sort NaN first", engine.Position{Top: []engine.Candidate{{ID: 7, Logit: nan}}, LSE: nan}, all, "logit of id 7 is NaN"},
		{"nan-lower", "or among the others", engine.Position{Top: []engine.Candidate{{ID: 7, Logit: 1}, {ID: 8, Logit: nan}}, LSE: nan}, topK, "logit of id 8 is NaN"},
		{"nan-unseen", "or leave it out of the candidates: the sum over the row tells", engine.Position{Top: []engine.Candidate{{ID: 7, Logit: 1}}, LSE: nan}, all, "log-sum-exp of the logits is NaN"},
		{"inf", "an overflow", engine.Position{Top: []engine.Candidate{{ID: 7, Logit: inf}}, LSE: inf}, all, "logit of id 7 is +Inf"},
		{"all-masked", "no id is possible", engine.Position{Top: []engine.Candidate{{ID: 0, Logit: -inf}}, LSE: -inf}, all, "logit of id 0 is -Inf"},
		{"masked-tail", "padding is masked with -Inf in the field: no fault", engine.Position{Top: []engine.Candidate{{ID: 0, Logit: 1}, {ID: 1, Logit: -inf}}, LSE: 1}, all, ""},
		{"lse-not-shown", "an engine without rows may not know the sum", engine.Position{Top: []engine.Candidate{{ID: 7, Logit: 1}}, LSE: nan}, topK, ""},
		{"ids-only", "nothing but ids is shown", engine.Position{LSE: nan}, ids, ""},
	} {
		if got := fault(&tt.p, tt.shows); got != tt.want {
			t.Errorf("%s: fault = %q, want %q\nwhy: %s", tt.name, got, tt.want, tt.why)
		}
	}
}

func TestULP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		dtype   string
		x, want float64
	}{
		{"F16", 16.5, 0x1p-6}, {"F16", 15.99, 0x1p-7}, {"F16", -16.5, 0x1p-6}, {"F16", 0, 0x1p-24}, {"F16", 0x1p-20, 0x1p-24},
		{"BF16", 1, 0x1p-7}, {"F32", 1, 0x1p-23}, {"F64", 1, 0x1p-52}, {"F32", 2, 0x1p-22},
		{"F8", 1, math.NaN()}, {"F32", math.Inf(1), math.NaN()}, {"F32", math.NaN(), math.NaN()},
	} {
		if got := ulp(tt.dtype, tt.x); got != tt.want && !(math.IsNaN(got) && math.IsNaN(tt.want)) {
			t.Errorf("ulp(%s, %v) = %v, want %v", tt.dtype, tt.x, got, tt.want)
		}
	}
}
