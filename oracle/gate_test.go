package oracle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/engine/enginetest"
)

// gateRows is a script for enginetest: at every position one id leads by 2 and another is second; edit changes the row.
func gateRows(edit func(at enginetest.At, row []float64)) func(enginetest.At) []float64 {
	return func(at enginetest.At) []float64 {
		row := make([]float64, enginetest.TinyConfig().VocabSize)
		for i := range row {
			row[i] = -float64(i%7) - 4
		}
		lead := gateLead(at.Prefix)
		row[lead], row[gateSecond(lead)] = 4, 2
		if edit != nil {
			edit(at, row)
		}
		return row
	}
}

// gateLead is the id that leads after prefix; gateSecond the one behind it.
func gateLead(prefix []int32) int {
	sum := len(prefix)
	for _, id := range prefix {
		sum += 3 * int(id)
	}
	return sum % enginetest.TinyConfig().VocabSize
}

func gateSecond(lead int) int { return (lead + 1) % enginetest.TinyConfig().VocabSize }

// gateAt says whether at is the position after n tokens of the prompt that begins with first, by one of the doors.
func gateAt(at enginetest.At, first int32, n int, doors ...enginetest.Call) bool {
	return at.Prefix[0] == first && len(at.Prefix) == n && (len(doors) == 0 || slices.Contains(doors, at.Call))
}

// gateFlip makes the second id win by lead.
func gateFlip(prefix []int32, row []float64, by float64) {
	row[gateSecond(gateLead(prefix))] = 4 + by
}

// gatePrompts has three and two tokens; with three generated tokens each there are 5 and 4 positions.
var gatePrompts = []Prompt{{Name: "a", IDs: []int32{1, 2, 3}}, {Name: "b", IDs: []int32{20, 5}}}

type gateCase struct {
	name, why string
	ref, test func(at enginetest.At, row []float64)
	change    func(s *Setup, p *Protocol)
	decision  Decision
	headline  string                       // exact
	verdicts  map[Verdict]int              // exact, over all parts
	check     func(r *GateResult) []string // complaints
}

// gateAll is how many positions the parts judge between them: 9 teacher-forced, 2 steps, 6 rollout.
const gateAll = 17

func fake(s engine.Engine) *enginetest.Fake { return s.(*enginetest.Fake) }

func control(kind ControlKind, edit func(at enginetest.At, row []float64)) Control {
	return Control{Kind: kind, Label: "the " + string(kind), Engine: enginetest.New(gateRows(edit))}
}

var gateCases = []gateCase{
	{name: "same", why: "nothing differs anywhere", decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll},
		check: func(r *GateResult) (bad []string) {
			for _, p := range r.Parts {
				if p.Status != PartRan || p.Qualified != p.Positions {
					bad = append(bad, fmt.Sprintf("part %+v", p))
				}
			}
			if tf := r.part(TeacherForced); tf.Agree != 9 || tf.Positions != 9 {
				bad = append(bad, "teacher forcing is not 9/9")
			}
			return bad
		}},
	{name: "flip-in-prefill", why: "teacher forcing sees a confident flip that decode does not have",
		test: func(at enginetest.At, row []float64) {
			if gateAt(at, 1, 2, enginetest.Score) {
				gateFlip(at.Prefix, row, 1)
			}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 1, Defect: 1},
		check: func(r *GateResult) []string {
			if tf, ro := r.part(TeacherForced), r.part(Rollout); tf.Confident != 1 || tf.Agree != 8 || ro.Flips != 0 {
				return []string{fmt.Sprintf("parts %+v %+v", tf, ro)}
			}
			return nil
		}},
	{name: "flips-in-decode", why: "the rollout is re-anchored: two flips are two, the positions after them are judged on REF's ids",
		test: func(at enginetest.At, row []float64) {
			if gateAt(at, 1, 3, enginetest.Generate) || gateAt(at, 1, 4, enginetest.Generate) {
				gateFlip(at.Prefix, row, 1)
			}
		},
		decision: Fail, headline: "DO NOT SHIP: 2 confident flips, 2 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 2, Defect: 2},
		check: func(r *GateResult) []string {
			if ro := r.part(Rollout); ro.Flips != 2 || ro.Positions != 6 || r.part(TeacherForced).Flips != 0 {
				return []string{fmt.Sprintf("rollout %+v", ro)}
			}
			return nil
		}},
	{name: "flip-in-step", why: "part 3 alone: TEST's step from REF's state",
		test: func(at enginetest.At, row []float64) {
			if at.Call == enginetest.Step && at.Prefix[0] == 20 {
				gateFlip(at.Prefix, row, 1)
			}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 1, Defect: 1}},
	{name: "one-position-thrice", why: "the same position met by three parts is one flip in the headline",
		test: func(at enginetest.At, row []float64) {
			if gateAt(at, 1, 4) {
				gateFlip(at.Prefix, row, 1)
			}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 3, Defect: 3}},
	{name: "tie", why: "an exact tie in TEST that names the other id is not a flip",
		test: func(at enginetest.At, row []float64) {
			if gateAt(at, 1, 2) {
				row[gateSecond(gateLead(at.Prefix))] = 4
				row[0], row[gateLead(at.Prefix)] = 4, 4
			}
		},
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll - 1, Tie: 1},
		check: func(r *GateResult) []string {
			if tf := r.part(TeacherForced); tf.Ties != 1 || tf.Flips != 0 || tf.Agree != 9 {
				return []string{fmt.Sprintf("teacher forcing %+v", tf)}
			}
			return nil
		}},
	{name: "near", why: "where REF's margin is 0.05 a flip is reported, not judged",
		ref: gateMargin(0.05), test: gateFlipAll(1, 2),
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll - 1, Near: 1},
		check: func(r *GateResult) []string {
			if one := r.part(Qualification); one.Positions != 9 || one.Qualified != 8 {
				return []string{fmt.Sprintf("qualification %+v", one)}
			}
			return nil
		}},
	{name: "at-the-floor", why: "a margin of exactly the floor is judged", ref: gateMargin(0.125), test: gateFlipAll(1, 2),
		change:   func(_ *Setup, p *Protocol) { p.Margin = 0.125 },
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 1, Defect: 1}},
	{name: "prob-floor", why: "the same margin of 0.125 logits is a probability gap below 0.1 and does not qualify", ref: gateMargin(0.125), test: gateFlipAll(1, 2),
		change:   func(_ *Setup, p *Protocol) { p.Unit = ProbGap },
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll - 1, Near: 1}},
	{name: "nan", why: "NaN in TEST's logits fails even where REF is not sure and the id is REF's",
		ref: gateMargin(0.05), test: func(at enginetest.At, row []float64) {
			if gateAt(at, 1, 2) {
				row[9] = math.NaN()
			}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 position with logits that are not finite", verdicts: map[Verdict]int{Identical: gateAll - 1, Defect: 1},
		check: func(r *GateResult) []string {
			if e := r.ConfidentFlips()[0]; e.TestFault == "" || !strings.Contains(e.Why, "NaN") || e.Pos != 1 {
				return []string{fmt.Sprintf("evidence %+v", e)}
			}
			return nil
		}},
	{name: "inf", why: "an overflow in TEST is named beside another flip",
		test: func(at enginetest.At, row []float64) {
			if gateAt(at, 1, 2) {
				row[9] = math.Inf(1)
			}
			if gateAt(at, 1, 1) {
				gateFlip(at.Prefix, row, 1)
			}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 position with logits that are not finite, 1 unexplained",
		verdicts: map[Verdict]int{Identical: gateAll - 2, Defect: 2}},
	{name: "nan-in-reference", why: "a reference that is not finite is sure of nothing there, and the reader is told",
		ref: func(at enginetest.At, row []float64) {
			if gateAt(at, 1, 2) {
				row[9] = math.NaN()
			}
		}, test: gateFlipAll(1, 2),
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll - 1, Near: 1},
		check: func(r *GateResult) []string {
			if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "reference's logits are not finite at 1 positions (prompt 1, position 1") {
				return r.Warnings
			}
			return nil
		}},
	{name: "few-qualify", why: "five of nine positions are below the floor: fewer than half qualify",
		ref: gateMarginFirst(1, 0.05), decision: Inconclusive,
		headline: "INCONCLUSIVE: only 4 of 9 positions qualify (REF's logit_gap >= 0.1), 50 % are needed", verdicts: map[Verdict]int{Identical: gateAll}},
	{name: "few-but-enough", why: "the same, with a smaller share asked for", ref: gateMarginFirst(1, 0.05),
		change:   func(_ *Setup, p *Protocol) { p.MinQualified = 4.0 / 9 },
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll}},
	{name: "none-qualify", why: "no position qualifies: nothing was judged, even if no share is asked for",
		change:   func(_ *Setup, p *Protocol) { p.MinQualified, p.Margin = 0, 100 },
		decision: Inconclusive, headline: "INCONCLUSIVE: only 0 of 9 positions qualify (REF's logit_gap >= 100), 0 % are needed", verdicts: map[Verdict]int{Identical: gateAll}},
	{name: "few-and-a-flip", why: "a confident flip stands however few positions qualify: FAIL goes before INCONCLUSIVE",
		ref: gateMarginFirst(1, 0.05), test: gateFlipAll(20, 1), decision: Fail,
		headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 1, Defect: 1}},
	{name: "strict", why: "the field's rule: one generated token of REF's below the floor and the prompt is no use",
		ref: gateMarginAt(1, 3, 0.05), change: func(_ *Setup, p *Protocol) { p.StrictPrompt = true },
		decision: Inconclusive, headline: "INCONCLUSIVE: strict prompt: REF's margin is below the floor at prompt a, position 2", verdicts: map[Verdict]int{Identical: gateAll}},
	{name: "strict-prompt-text", why: "what precedes the generated tokens is no margin of the field's transcripts",
		ref: gateMarginAt(1, 2, 0.05), change: func(_ *Setup, p *Protocol) { p.StrictPrompt = true },
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll}},
	{name: "quant", why: "a confident flip with a cause is a failure with a cause", test: gateFlipAll(1, 2),
		change:   func(s *Setup, _ *Protocol) { s.Controls = []Control{control(ControlQ, gateFlipAll(1, 2))} },
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 explained by int8hu-sym", verdicts: map[Verdict]int{Identical: gateAll - 1, Quant: 1},
		check: func(r *GateResult) []string {
			e := r.ConfidentFlips()[0]
			if got, ok := e.Controls["the Q"]; !ok || got != e.TestID {
				return []string{fmt.Sprintf("the control's id is not kept: %+v", e)}
			}
			return nil
		}},
	{name: "quant-accepted", why: "--accept quant makes it a note", test: gateFlipAll(1, 2),
		change: func(s *Setup, p *Protocol) {
			s.Controls, p.Accept = []Control{control(ControlQ, gateFlipAll(1, 2))}, []Verdict{Quant}
		},
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll - 1, Quant: 1},
		check: func(r *GateResult) []string {
			if !strings.Contains(r.Sentence, "1 flip accepted as QUANT") {
				return []string{r.Sentence}
			}
			return nil
		}},
	{name: "rounding", why: "accepting quant does not accept rounding", test: gateFlipAll(1, 2),
		change: func(s *Setup, p *Protocol) {
			s.Controls, p.Accept = []Control{control(ControlQ, nil), control(ControlC, gateFlipAll(1, 2))}, []Verdict{Quant}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 explained by the rounding of coreai-fp16", verdicts: map[Verdict]int{Identical: gateAll - 1, Rounding: 1}},
	{name: "both-one-accepted", why: "a flip that needs both causes needs both accepted", test: gateFlipAll(1, 2),
		change: func(s *Setup, p *Protocol) {
			s.Controls, p.Accept = []Control{control(ControlE, gateFlipAll(1, 2))}, []Verdict{Rounding}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 explained by int8hu-sym and the rounding of coreai-fp16 together",
		verdicts: map[Verdict]int{Identical: gateAll - 1, QuantRounding: 1}},
	{name: "both-accepted", why: "and passes with both", test: gateFlipAll(1, 2),
		change: func(s *Setup, p *Protocol) {
			s.Controls, p.Accept = []Control{control(ControlE, gateFlipAll(1, 2))}, []Verdict{Rounding, Quant}
		},
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll - 1, QuantRounding: 1}},
	{name: "near-above-the-floor", why: "E's own spread names a flip NEAR, but REF was sure of it: still a failure", test: gateFlipAll(1, 2),
		change: func(s *Setup, _ *Protocol) {
			closer := func(by float64) func(enginetest.At, []float64) {
				return func(at enginetest.At, row []float64) {
					if gateAt(at, 1, 2) {
						row[gateSecond(gateLead(at.Prefix))] = 4 - by
					}
				}
			}
			a, b := control(ControlE, closer(0.5)), control(ControlE, closer(0.25))
			b.Label = "the other E"
			s.Controls = []Control{a, b}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 within the expected conversion's own noise", verdicts: map[Verdict]int{Identical: gateAll - 1, Near: 1}},
	{name: "worst-verdict-counts", why: "explained in prefill, a defect in decode: the position is unexplained", test: gateFlipAll(1, 4),
		change: func(s *Setup, _ *Protocol) {
			s.Controls = []Control{control(ControlQ, gateFlipAll(1, 4))}
			fake(s.Test).Row = gateRows(func(at enginetest.At, row []float64) {
				if gateAt(at, 1, 4) {
					gateFlip(at.Prefix, row, 1)
				}
				if gateAt(at, 1, 4, enginetest.Generate) {
					row[(gateLead(at.Prefix)+2)%len(row)] = 9
				}
			})
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 3, Quant: 2, Defect: 1}},
	{name: "engine-dies", why: "an engine that fails in decode leaves the question open, and its message stays on one line",
		change: func(s *Setup, _ *Protocol) {
			fake(s.Test).Fail = func(at enginetest.At) error {
				if at.Call == enginetest.Generate {
					return errors.New("worker\nexited")
				}
				return nil
			}
		},
		decision: Inconclusive, headline: "INCONCLUSIVE: an engine is not available: the test engine, decoding after prompt a: worker exited",
		verdicts: map[Verdict]int{Identical: 11},
		check: func(r *GateResult) []string {
			if r.part(Rollout).Status != PartBroke || r.part(TeacherForced).Status != PartRan {
				return []string{fmt.Sprint(r.Parts)}
			}
			return nil
		}},
	{name: "engine-dies-after-a-flip", why: "what was seen before it died stands", test: gateFlipAll(1, 2),
		change: func(s *Setup, _ *Protocol) {
			fake(s.Test).Fail = func(at enginetest.At) error {
				if at.Call == enginetest.Generate {
					return errors.New("worker exited")
				}
				return nil
			}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: 10, Defect: 1}},
	{name: "reference-dies", why: "without a reference nothing is judged",
		change: func(s *Setup, _ *Protocol) {
			fake(s.Ref).Fail = func(at enginetest.At) error { return errors.New("out of breath") }
		},
		decision: Inconclusive, headline: "INCONCLUSIVE: an engine is not available: the reference, decoding after prompt a: out of breath", verdicts: map[Verdict]int{},
		check: func(r *GateResult) []string {
			if p := r.part(Rollout); p.Status != PartNotRun || p.Note == "" {
				return []string{fmt.Sprint(r.Parts)}
			}
			return nil
		}},
	{name: "control-dies", why: "with a control missing, the cause of a flip could be missed", ref: gateMargin(0.05), test: gateFlipAll(1, 2),
		change: func(s *Setup, _ *Protocol) {
			c := control(ControlQ, nil)
			fake(c.Engine).Fail = func(enginetest.At) error { return errors.New("gone") }
			s.Controls = []Control{c}
		},
		decision: Inconclusive, headline: "INCONCLUSIVE: an engine is not available: control the Q, teacher forcing: gone", verdicts: map[Verdict]int{Identical: gateAll - 1, Near: 1},
		check: func(r *GateResult) []string {
			if !strings.Contains(r.Controls[0].Note, "gone") {
				return []string{fmt.Sprintf("the control is %+v", r.Controls[0])}
			}
			return nil
		}},
	{name: "control-not-needed", why: "without a flip there is nothing to explain: no control is opened",
		change: func(s *Setup, _ *Protocol) {
			s.Controls = []Control{{Kind: ControlE, Label: "E", Open: func(context.Context) (engine.Engine, error) { return nil, errors.New("opened") }}}
		},
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll}},
	{name: "control-opened", why: "a flip opens it, closes it, and asks it no further than the last flip", test: gateFlipAll(1, 2),
		change: func(s *Setup, _ *Protocol) {
			e := enginetest.New(gateRows(gateFlipAll(1, 2)))
			s.Controls = []Control{{Kind: ControlE, Label: "E", Open: func(context.Context) (engine.Engine, error) { return e, nil }}}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 explained by int8hu-sym and the rounding of coreai-fp16 together", verdicts: map[Verdict]int{Identical: gateAll - 1, QuantRounding: 1},
		check: func(r *GateResult) (bad []string) {
			if c := r.Controls[0]; c.Positions != 2 || c.Engine.Engine != "fake" {
				bad = append(bad, fmt.Sprintf("the control is %+v, want a fake run over 2 positions", c))
			}
			for _, e := range r.Positions {
				if _, ok := e.Controls["E"]; ok != (e.Prompt == 0 && e.Pos < 2) {
					bad = append(bad, fmt.Sprintf("evidence at %d/%d: %v", e.Prompt, e.Pos, e.Controls))
				}
			}
			return bad
		}},
	{name: "noise-is-asked-last", why: "of two prompts that flip one is explained without it: it is asked about the other alone, and says near",
		test: func(at enginetest.At, row []float64) {
			gateFlipAll(1, 2)(at, row)
			gateFlipAll(20, 3)(at, row)
		},
		change: func(s *Setup, _ *Protocol) {
			noisy := control(ControlE, gateFlipAll(20, 3))
			noisy.Noisy, noisy.Label = true, "noise"
			s.Controls = []Control{noisy, control(ControlQ, gateFlipAll(1, 2))}
		},
		decision: Fail, headline: "DO NOT SHIP: 2 confident flips, 1 explained by int8hu-sym, 1 within the expected conversion's own noise",
		verdicts: map[Verdict]int{Identical: gateAll - 4, Quant: 1, Near: 3},
		check: func(r *GateResult) (bad []string) {
			for _, e := range r.Positions {
				if _, ok := e.Controls["noise"]; ok && e.Prompt == 0 {
					bad = append(bad, fmt.Sprintf("evidence at %d/%d: %v", e.Prompt, e.Pos, e.Controls))
				}
				if e.Verdict == Near && !strings.Contains(e.Why, "one unit off") {
					bad = append(bad, e.Why)
				}
			}
			if c := r.Controls; c[0].Positions == 0 || !c[0].Noisy || c[1].AsTest != c[1].Positions-1 || c[1].AsRef != c[1].Positions-1 || c[1].KLMean == nil {
				bad = append(bad, fmt.Sprintf("the controls are %+v", c))
			}
			return bad
		}},
	{name: "noise-not-needed", why: "what is explained is not put to it", test: gateFlipAll(1, 2),
		change: func(s *Setup, _ *Protocol) {
			s.Controls = []Control{control(ControlQ, gateFlipAll(1, 2)), {Kind: ControlE, Label: "E", Noisy: true,
				Open: func(context.Context) (engine.Engine, error) { return nil, errors.New("opened") }}}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 explained by int8hu-sym", verdicts: map[Verdict]int{Identical: gateAll - 1, Quant: 1}},
	{name: "controls-everywhere", why: "asked for, they give evidence at every position",
		change: func(s *Setup, p *Protocol) {
			s.Controls, p.Controls = []Control{control(ControlC, nil)}, ControlsEverywhere
		},
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll},
		check: func(r *GateResult) (bad []string) {
			for _, e := range r.Positions {
				if e.Controls["the C"] != e.RefID {
					bad = append(bad, fmt.Sprintf("evidence at %d/%d: %v", e.Prompt, e.Pos, e.Controls))
				}
			}
			return bad
		}},
	{name: "control-is-test", why: "TEST is itself the expected conversion: its flips are explained by what it is, and it is not run twice", test: gateFlipAll(1, 2),
		change:   func(s *Setup, _ *Protocol) { s.Controls = []Control{{Kind: ControlE, Label: "E", Same: RoleTest}} },
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 explained by int8hu-sym and the rounding of coreai-fp16 together", verdicts: map[Verdict]int{Identical: gateAll - 1, QuantRounding: 1}},
	{name: "control-is-ref", why: "a control that REF is explains no flip", test: gateFlipAll(1, 2),
		change:   func(s *Setup, _ *Protocol) { s.Controls = []Control{{Kind: ControlC, Label: "C", Same: RoleRef}} },
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 1, Defect: 1}},
	{name: "test-defects-on-its-way", why: "TEST's decode path is held to what the same spec says in teacher forcing",
		test: func(at enginetest.At, row []float64) {
			if gateAt(at, 1, 4, enginetest.Generate) {
				gateFlip(at.Prefix, row, 1)
			}
		},
		change:   func(s *Setup, _ *Protocol) { s.Controls = []Control{{Kind: ControlE, Label: "E", Same: RoleTest}} },
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 1, Defect: 1}},
	{name: "expected-stands-for-E", why: "C in its realisations is the expected conversion where the weights are REF's: their spread makes a flip NEAR",
		test: gateFlipAll(1, 2),
		change: func(s *Setup, _ *Protocol) {
			for _, by := range []float64{0.5, 0.25} {
				c := control(ControlC, func(at enginetest.At, row []float64) {
					if gateAt(at, 1, 2) {
						row[gateSecond(gateLead(at.Prefix))] = 4 - by
					}
				})
				c.Label, c.Expected = fmt.Sprint("C", by), true
				s.Controls = append(s.Controls, c)
			}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 within the expected conversion's own noise", verdicts: map[Verdict]int{Identical: gateAll - 1, Near: 1}},
	{name: "no-state-taken", why: "an engine that takes no state: part 3 is not shown, and that is no failure",
		change:   func(s *Setup, _ *Protocol) { fake(s.Test).Describes.Shows &^= engine.TakeState },
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: 15}, check: gateStepNotShown("the test engine takes no state")},
	{name: "no-state-methods", why: "the same for an engine without the methods",
		change:   func(s *Setup, _ *Protocol) { s.Test = struct{ engine.Engine }{s.Test} },
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: 15}, check: gateStepNotShown("the test engine takes no state")},
	{name: "no-state-read", why: "nor is it a failure that REF's state cannot be read",
		change:   func(s *Setup, _ *Protocol) { fake(s.Ref).Describes.Shows &^= engine.ReadState },
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: 15}, check: gateStepNotShown("the reference's state cannot be read")},
	{name: "reference-of-ids", why: "a reference without margins is sure of nothing",
		change:   gateIDsOnly(func(s *Setup) *enginetest.Fake { return fake(s.Ref) }),
		decision: Inconclusive, headline: "INCONCLUSIVE: only 0 of 9 positions qualify (REF's logit_gap >= 0.1), 50 % are needed", verdicts: map[Verdict]int{Identical: gateAll}},
	{name: "test-of-ids", why: "ids are enough of TEST", test: gateFlipAll(1, 2),
		change:   gateIDsOnly(func(s *Setup) *enginetest.Fake { return fake(s.Test) }),
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 1, Defect: 1}},
	{name: "test-of-ids-tie", why: "TEST of ids alone shows no set of maxima: E's stands in", test: gateFlipAll(1, 2),
		change: func(s *Setup, p *Protocol) {
			gateIDsOnly(func(s *Setup) *enginetest.Fake { return fake(s.Test) })(s, p)
			s.Controls = []Control{control(ControlE, func(at enginetest.At, row []float64) {
				if gateAt(at, 1, 2) {
					gateFlip(at.Prefix, row, 0)
				}
			})}
		},
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: gateAll - 1, Tie: 1}},
	{name: "no-rollout", why: "no generated tokens: teacher forcing over the prompts alone decides",
		change:   func(_ *Setup, p *Protocol) { p.MaxTokens = 0 },
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: 5}},
	{name: "stop-id", why: "REF's generation ends after a stop id, and TEST is asked for no more than that",
		change: func(_ *Setup, p *Protocol) {
			p.Stop = []int32{int32(gateLead(gatePrompts[0].IDs)), int32(gateLead(gatePrompts[1].IDs))}
		},
		decision: Pass, headline: "SHIP", verdicts: map[Verdict]int{Identical: 5 + 2}},
	{name: "reference-contradicts-itself", why: "a reference whose prefill and decode differ is worth a warning",
		ref: func(at enginetest.At, row []float64) {
			if gateAt(at, 1, 3, enginetest.Score) {
				gateFlip(at.Prefix, row, 1)
			}
		},
		decision: Fail, headline: "DO NOT SHIP: 1 confident flip, 1 unexplained", verdicts: map[Verdict]int{Identical: gateAll - 1, Defect: 1},
		check: func(r *GateResult) []string {
			if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "contradicts itself between prefill and decode at 1 positions") {
				return []string{fmt.Sprint(r.Warnings)}
			}
			return nil
		}},
}

// gateMargin sets REF's margin after two tokens of the first prompt.
func gateMargin(m float64) func(enginetest.At, []float64) { return gateMarginAt(1, 2, m) }

func gateMarginAt(first int32, n int, m float64) func(enginetest.At, []float64) {
	return func(at enginetest.At, row []float64) {
		if gateAt(at, first, n) {
			row[gateSecond(gateLead(at.Prefix))] = 4 - m
		}
	}
}

// gateMarginFirst sets it at every position of a prompt.
func gateMarginFirst(first int32, m float64) func(enginetest.At, []float64) {
	return func(at enginetest.At, row []float64) {
		if at.Prefix[0] == first {
			row[gateSecond(gateLead(at.Prefix))] = 4 - m
		}
	}
}

// gateFlipAll flips the position after n tokens of a prompt, by every door.
func gateFlipAll(first int32, n int) func(enginetest.At, []float64) {
	return func(at enginetest.At, row []float64) {
		if gateAt(at, first, n) {
			gateFlip(at.Prefix, row, 1)
		}
	}
}

func gateIDsOnly(which func(*Setup) *enginetest.Fake) func(*Setup, *Protocol) {
	return func(s *Setup, _ *Protocol) {
		f := which(s)
		f.Describes.Shows = engine.IDs | engine.ReadState | engine.TakeState
	}
}

func gateStepNotShown(note string) func(r *GateResult) []string {
	return func(r *GateResult) []string {
		if p := r.part(StateStep); p.Status != PartNotShown || !strings.Contains(p.Note, note) {
			return []string{fmt.Sprintf("part 3 is %+v, want not shown: %s", p, note)}
		}
		return nil
	}
}

// gateSetup is a gate of two fakes that agree but for the edits.
func gateSetup(ref, test func(at enginetest.At, row []float64)) (Setup, Protocol) {
	r, q := enginetest.New(gateRows(ref)), enginetest.New(gateRows(test))
	r.Describes.Subject, r.Describes.Contract, r.Describes.LogitsDType = "tiny@fp64", "float64", "F64"
	q.Describes.Subject, q.Describes.Contract, q.Describes.Scheme, q.Describes.LogitsDType = "tiny@coreai-fp16,int8hu-sym", "coreai-fp16", "int8hu-sym", "F16"
	p := DefaultProtocol()
	p.MaxTokens = 3
	return Setup{Ref: r, Test: q, Prompts: gatePrompts}, p
}

func TestGate(t *testing.T) {
	t.Parallel()
	for _, tt := range gateCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, p := gateSetup(tt.ref, tt.test)
			if tt.change != nil {
				tt.change(&s, &p)
			}
			r, err := Gate(t.Context(), s, p)
			if err != nil {
				t.Fatalf("Gate: %v\nwhy: %s", err, tt.why)
			}
			if r.Decision != tt.decision || r.Headline != tt.headline {
				t.Errorf("decision = %s, %q\nwant %s, %q\nwhy: %s", r.Decision, r.Headline, tt.decision, tt.headline, tt.why)
			}
			if fmt.Sprint(r.Verdicts) != fmt.Sprint(tt.verdicts) {
				t.Errorf("verdicts = %v, want %v\nwhy: %s", r.Verdicts, tt.verdicts, tt.why)
			}
			if tt.check != nil {
				for _, bad := range tt.check(r) {
					t.Errorf("%s\nwhy: %s", bad, tt.why)
				}
			}
			gateInvariants(t, r)
		})
	}
}

// gateInvariants holds for every result, whatever the decision.
func gateInvariants(t *testing.T, r *GateResult) {
	t.Helper()
	if want := map[Decision]int{Pass: 0, Fail: 1, Inconclusive: 3}[r.Decision]; r.ExitCode() != want {
		t.Errorf("exit code of %s = %d, want %d", r.Decision, r.ExitCode(), want)
	}
	if (r.Decision == Fail) != (len(r.ConfidentFlips()) > 0) || (r.Decision == Pass) != (len(r.Reasons) == 0) {
		t.Errorf("decision %s with %d confident flips and reasons %q", r.Decision, len(r.ConfidentFlips()), r.Reasons)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Errorf("the result has no JSON: %v", err)
	}
	var b bytes.Buffer
	if err := r.Render(&b, nil); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if lines[0] != r.Headline || lines[len(lines)-1] != r.Sentence || strings.ContainsAny(r.Sentence, "\n") {
		t.Errorf("the first line is %q and the last %q, want the decision and the sentence", lines[0], lines[len(lines)-1])
	}
	for _, c := range b.Bytes() {
		if c != '\n' && (c < ' ' || c > '~') {
			t.Fatalf("byte %#x in the rendering", c)
		}
	}
}
