package oracle

import (
	"cmp"
	"fmt"
	"slices"

	"sibyl/engine"
)

// Decision is what a gate says in the end.
type Decision string

// The decisions and, in ExitCode, their exit codes.
const (
	Pass         Decision = "PASS"
	Fail         Decision = "FAIL"
	Inconclusive Decision = "INCONCLUSIVE"
)

// ExitCode is 0 for PASS, 1 for FAIL, 3 for INCONCLUSIVE.
func (d Decision) ExitCode() int {
	switch d {
	case Pass:
		return 0
	case Fail:
		return 1
	}
	return 3
}

// PartName is one of the gate's four parts.
type PartName string

// The parts, in the order they are run.
const (
	Qualification PartName = "qualification"  // REF alone: which positions it is sure of
	TeacherForced PartName = "teacher_forced" // top-1 at every position of prompt and REF's continuation
	StateStep     PartName = "state_step"     // one decode step from REF's state after the prompt
	Rollout       PartName = "rollout"        // greedy along TEST's decode path, re-anchored on REF's ids
)

// PartStatus says how a part ended.
type PartStatus string

// The states of a part. Only PartRan is evidence; the others carry a note that says why.
const (
	PartRan      PartStatus = "ran"
	PartNotShown PartStatus = "not shown" // an engine cannot show what the part needs: no failure
	PartNotRun   PartStatus = "not run"   // left out by the protocol, or an earlier part broke off
	PartBroke    PartStatus = "broke off" // an engine failed in it
)

// Part is the count of one part. Flips are positions whose verdict is neither IDENTICAL nor TIE.
type Part struct {
	Name      PartName   `json:"name"`
	Status    PartStatus `json:"status"`
	Note      string     `json:"note,omitempty"`
	Positions int        `json:"positions"`
	Qualified int        `json:"qualified"`       // REF's margin is at least the floor
	Agree     int        `json:"agree"`           // of the qualified: IDENTICAL or TIE
	Ties      int        `json:"ties"`            // of all
	Flips     int        `json:"flips"`           // of all
	Confident int        `json:"confident_flips"` // of the qualified, plus every DEFECT
}

// Evidence is everything known of one position, kept whatever the verdict. A number that an engine does not
// show, or that is not finite, is null.
type Evidence struct {
	Part    PartName `json:"part"`
	Prompt  int      `json:"prompt"` // index into GateResult.Prompts
	Pos     int      `json:"pos"`    // index of the last token consumed
	Verdict Verdict  `json:"verdict"`
	Why     string   `json:"why"`
	// Qualified: REF's margin is at least the floor. Accepted: a flip whose cause the protocol accepts.
	Qualified bool `json:"qualified"`
	Accepted  bool `json:"accepted,omitempty"`

	RefID    int32   `json:"ref_id"`
	TestID   int32   `json:"test_id"`
	RefTies  []int32 `json:"ref_ties"`
	TestTies []int32 `json:"test_ties"`

	// REF's margin, in both units; in ULPs of TEST's logits dtype at REF's largest logit; and in units of the
	// rms distance of REF's own logits between fp32 and fp64.
	LogitGap *float64 `json:"ref_logit_gap"`
	ProbGap  *float64 `json:"ref_prob_gap"`
	GapULPs  *float64 `json:"ref_logit_gap_test_ulps"`
	GapNoise *float64 `json:"ref_logit_gap_noise_units"`
	// TEST's own view: its margin, and its logit of its own id less its logit of REF's id (0: a tie).
	TestLogitGap *float64 `json:"test_logit_gap"`
	TestProbGap  *float64 `json:"test_prob_gap"`
	TestOverRef  *float64 `json:"test_logit_of_test_id_minus_ref_id"`
	TestFault    string   `json:"test_fault,omitempty"`

	// Controls holds what each control chose here, by its label.
	Controls map[string]int32 `json:"controls,omitempty"`
}

// Confident says whether the position counts against TEST: a flip that REF was sure of and that no accepted
// cause explains, or a DEFECT anywhere.
func (e *Evidence) Confident() bool {
	return e.Verdict == Defect || e.Verdict.Flip() && e.Qualified && !e.Accepted
}

// PromptResult is one prompt with REF's greedy continuation and its margins.
type PromptResult struct {
	Name        string     `json:"name"`
	Text        string     `json:"text,omitempty"`
	IDs         []int32    `json:"ids"`
	RefIDs      []int32    `json:"ref_generated_ids"`
	TestIDs     []int32    `json:"test_rollout_ids"` // TEST's choices, each after REF's ids before it
	RefLogitGap []*float64 `json:"ref_generated_logit_gaps"`
	RefProbGap  []*float64 `json:"ref_generated_prob_gaps"`
}

// Noise is REF's own distance between fp32 and fp64, if a control measured it.
type Noise struct {
	LogitRMS *float64 `json:"logit_rms"` // over the candidates both show; null: not measured
	Source   string   `json:"source"`    // which two engines, or why it is not known
}

// EngineInfo is engine.Info as it goes into results.
type EngineInfo struct {
	Subject       string           `json:"subject"`
	Engine        string           `json:"engine"`
	Contract      string           `json:"contract"`
	Scheme        string           `json:"scheme"`
	Mode          string           `json:"mode,omitempty"`
	Shows         string           `json:"shows"`
	VocabSize     int              `json:"vocab_size"`
	MaxPositions  int              `json:"max_positions"`
	LogitsDType   string           `json:"logits_dtype"`
	StateDTypes   string           `json:"state_dtypes"`
	CallsMatter   bool             `json:"calls_matter,omitempty"` // results depend on where calls end
	Threads       int              `json:"threads"`
	WeightsSHA256 string           `json:"weights_sha256,omitempty"`
	ConfigSHA256  string           `json:"config_sha256,omitempty"`
	Fallbacks     map[string]int64 `json:"fallbacks,omitempty"`
}

// describe is an engine's Info for a result.
func describe(i engine.Info) EngineInfo {
	return EngineInfo{Subject: i.Subject, Engine: i.Engine, Contract: i.Contract, Scheme: i.Scheme, Mode: i.Mode,
		Shows: i.Shows.String(), VocabSize: i.VocabSize, MaxPositions: i.MaxPositions, LogitsDType: i.LogitsDType, Threads: i.Threads,
		CallsMatter:   i.CallsMatter,
		StateDTypes:   fmt.Sprintf("recurrent %s, conv %s, KV %s", i.StateDTypes.Recurrent, i.StateDTypes.Conv, i.StateDTypes.KV),
		WeightsSHA256: i.WeightsSHA256, ConfigSHA256: i.ConfigSHA256, Fallbacks: i.Fallbacks}
}

// ControlInfo describes one control. Engine is empty if it was never needed.
type ControlInfo struct {
	Kind      ControlKind `json:"kind"`
	Label     string      `json:"label"`
	Expected  bool        `json:"expected_conversion"` // one of its realisations
	Noisy     bool        `json:"noisy,omitempty"`     // with roundings one unit off; asked where nothing else explains
	Same      Role        `json:"same_as,omitempty"`   // REF or TEST: it would only repeat that side
	Positions int         `json:"positions"`           // how many it was run over
	AsRef     int         `json:"agrees_with_ref"`     // at how many of them it chose REF's id
	AsTest    int         `json:"agrees_with_test"`    // and TEST's teacher-forced id
	// KLMean is a lower bound of the mean KL divergence from REF to it, in nats, by the candidates that both show; nil if
	// neither shows any.
	KLMean *float64   `json:"kl_from_ref_at_least_mean_nats,omitempty"`
	Note   string     `json:"note,omitempty"` // how it failed
	Engine EngineInfo `json:"engine"`
}

// gateSchema names the form of a GateResult.
const gateSchema = "sibyl-gate/1"

// GateResult is the gate's answer with all its evidence.
type GateResult struct {
	Schema   string   `json:"schema"` // "sibyl-gate/1"
	Decision Decision `json:"decision"`
	Headline string   `json:"headline"` // SHIP, DO NOT SHIP: why, or INCONCLUSIVE: why
	Sentence string   `json:"sentence"` // for a model card
	Reasons  []string `json:"reasons"`  // why not PASS, one each
	Warnings []string `json:"warnings"` // what a reader should know beside the decision

	Ref      EngineInfo    `json:"ref"`
	Test     EngineInfo    `json:"test"`
	Controls []ControlInfo `json:"controls"`
	Protocol Protocol      `json:"protocol"`

	Parts    []Part          `json:"parts"`
	Verdicts map[Verdict]int `json:"verdicts"` // over all positions of all parts
	Noise    Noise           `json:"ref_noise"`
	// RefPasses is how often a streamed reference's weights were read to find its continuations; 0 if it decoded them.
	RefPasses int            `json:"ref_passes,omitempty"`
	Metrics   Metrics        `json:"metrics"` // of the teacher-forced prompts and continuations
	Text      *TextResult    `json:"text,omitempty"`
	Prompts   []PromptResult `json:"prompts"`
	// Positions holds every judged position, by part, prompt and pos.
	Positions []Evidence `json:"positions"`

	shown []Shown // what each engine showed, for a transcript
}

// ExitCode is the decision's.
func (r *GateResult) ExitCode() int { return r.Decision.ExitCode() }

// part gives the part of that name.
func (r *GateResult) part(name PartName) *Part {
	for i := range r.Parts {
		if r.Parts[i].Name == name {
			return &r.Parts[i]
		}
	}
	panic("oracle: no part " + string(name))
}

// ConfidentFlips lists the positions that count against TEST, once each although several parts may have met
// them, with the worst verdict (the last in the table) of those parts; by prompt and pos.
func (r *GateResult) ConfidentFlips() []Evidence {
	type place struct{ prompt, pos int }
	at := map[place]int{}
	var out []Evidence
	for _, e := range r.Positions {
		if !e.Confident() {
			continue
		}
		p := place{e.Prompt, e.Pos}
		i, seen := at[p]
		switch {
		case !seen:
			at[p] = len(out)
			out = append(out, e)
		case slices.Index(Verdicts, e.Verdict) > slices.Index(Verdicts, out[i].Verdict):
			out[i] = e
		}
	}
	slices.SortFunc(out, func(a, b Evidence) int {
		return cmp.Or(cmp.Compare(a.Prompt, b.Prompt), cmp.Compare(a.Pos, b.Pos))
	})
	return out
}

// shown gives a pointer for JSON, nil for a number that is not finite.
func shown(x float64) *float64 {
	if !finite(x) {
		return nil
	}
	return &x
}
