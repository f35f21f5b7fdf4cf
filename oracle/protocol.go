package oracle

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"sibyl/engine"
	"sibyl/internal/inputerr"
)

// Unit is what a margin is measured in.
type Unit string

// The units. The field compares both with 0.1, so a margin is never given without one.
const (
	LogitGap Unit = "logit_gap" // largest minus second logit
	ProbGap  Unit = "prob_gap"  // p1 - p2 of the softmax at temperature 1 over the full vocabulary
)

// Protocol is how a gate is run and judged. It is part of the result: two results compare only under one protocol.
type Protocol struct {
	Margin       float64   `json:"margin"`        // the floor: positions where REF's margin is at least this are judged
	Unit         Unit      `json:"margin_unit"`   // what the floor applies to
	MinQualified float64   `json:"min_qualified"` // share of positions that must qualify, 0..1
	StrictPrompt bool      `json:"strict_prompt"` // every margin that leads to a generated token must qualify
	MaxTokens    int       `json:"max_tokens"`    // greedy tokens a prompt; 0 leaves out the rollout and its positions
	TopK         int       `json:"top_k"`         // candidates kept a position, at least 2
	PathName     string    `json:"path"`          // Path as text; the gate fills it in
	Accept       []Verdict `json:"accept"`        // QUANT, ROUNDING: flips with that cause become notes
	Stop         []int32   `json:"stop_ids"`      // ids after which REF's generation ends
	Controls     string    `json:"controls"`      // where the controls are run: ControlsAtFlips ("") or ControlsEverywhere

	Path engine.Path `json:"-"` // the calls in which texts are consumed: prefill, step, chunk=N
}

// Where controls are run.
const (
	ControlsAtFlips    = "at flips"   // over prompts with a flip, as far as the last: all that a verdict asks
	ControlsEverywhere = "everywhere" // over all positions: evidence also where there is nothing to explain
)

// DefaultProtocol is DESIGN section 6: floor 0.1 of the logit gap, half of the positions must qualify.
func DefaultProtocol() Protocol {
	return Protocol{Margin: 0.1, Unit: LogitGap, MinQualified: 0.5, MaxTokens: 32, TopK: 8, Controls: ControlsAtFlips}
}

// maxTopK bounds what is kept of each position.
const maxTopK = 1024

// check refuses a protocol that cannot be run; fields are named as the flags are.
func (p *Protocol) check() error {
	bad := func(field, found, want string) error {
		return &inputerr.Error{File: "gate", Field: field, Found: found, Want: want}
	}
	switch {
	case !(p.Margin >= 0) || math.IsInf(p.Margin, 0):
		return bad("--margin", strconv.FormatFloat(p.Margin, 'g', -1, 64), "a number >= 0")
	case p.Unit != LogitGap && p.Unit != ProbGap:
		return bad("--margin-unit", inputerr.Clip(string(p.Unit), 40), "logit_gap or prob_gap")
	case p.Unit == ProbGap && p.Margin > 1:
		return bad("--margin", strconv.FormatFloat(p.Margin, 'g', -1, 64), "at most 1: it is a difference of probabilities")
	case !(p.MinQualified >= 0 && p.MinQualified <= 1):
		return bad("--min-qualified", strconv.FormatFloat(p.MinQualified, 'g', -1, 64), "a share from 0 to 1")
	case p.MaxTokens < 0:
		return bad("--max-tokens", strconv.Itoa(p.MaxTokens), "a number >= 0")
	case p.TopK < 2 || p.TopK > maxTopK:
		return bad("top-k", strconv.Itoa(p.TopK), fmt.Sprintf("2 to %d: a margin needs two", maxTopK))
	}
	if p.Controls != "" && p.Controls != ControlsAtFlips && p.Controls != ControlsEverywhere {
		return bad("controls", inputerr.Clip(p.Controls, 40), ControlsAtFlips+" or "+ControlsEverywhere)
	}
	for _, v := range p.Accept {
		if v != Quant && v != Rounding {
			return bad("--accept", inputerr.Clip(string(v), 40), "quant, rounding or both: other flips have no cause to accept")
		}
	}
	return nil
}

// accepts says whether a flip of this verdict is a note; the mixed verdict needs both causes accepted.
func (p *Protocol) accepts(v Verdict) bool {
	if v == QuantRounding {
		return p.accepts(Quant) && p.accepts(Rounding)
	}
	return slices.Contains(p.Accept, v)
}

// margin is s's gap in the protocol's unit; NaN if not shown or not finite.
func (p *Protocol) margin(s *Seen) float64 {
	m := s.LogitGap
	if p.Unit == ProbGap {
		m = s.ProbGap
	}
	if s.Fault != "" {
		return math.NaN()
	}
	return m
}

// candidates is how many candidates to ask of an engine: none of one that shows only ids.
func (p *Protocol) candidates(shows engine.Shows) int {
	if !shows.Has(engine.TopK) {
		return 0
	}
	return p.TopK
}
