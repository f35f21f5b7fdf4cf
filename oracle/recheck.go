package oracle

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"sibyl/engine"
	"sibyl/internal/inputerr"
)

// Live are the engines a transcript is run again with. Nil: not at hand, for the reason beside it.
type Live struct {
	Ref, Test       engine.Engine
	RefWhy, TestWhy string
	// Control, if not nil, opens a control again, or gives the reason why it cannot.
	Control  func(ctx context.Context, c ControlInfo) (e engine.Engine, why string, err error)
	Progress func(stage string, done, total int)
}

// RecheckResult says whether a transcript's claims hold.
type RecheckResult struct {
	Schema    string   `json:"schema"` // "sibyl-gate-recheck/1"
	File      string   `json:"file"`
	Confirmed bool     `json:"confirmed"`
	Headline  string   `json:"headline"`
	Recorded  string   `json:"recorded"`           // the transcript's result
	Evidence  Decision `json:"evidence"`           // what its evidence gives
	Sentence  string   `json:"sentence,omitempty"` // the recorded one, for a model card
	Problems  []string `json:"problems"`           // what the evidence contradicts
	// Checks are the runs: REF and TEST in each part.
	Checks []RecheckCheck `json:"checks"`
}

// RecheckCheck compares one side of the transcript in one part with the same engine now.
type RecheckCheck struct {
	By        Role     `json:"by"`
	Control   string   `json:"control,omitempty"` // its label
	Part      PartName `json:"part"`
	Status    string   `json:"status"` // "agrees", "differs", "not run"
	Note      string   `json:"note,omitempty"`
	Positions int      `json:"positions"`
	Differ    int      `json:"differ"` // positions whose id, ties or margins are apart by more than the tolerance
	Close     int      `json:"close"`  // positions whose ids differ where the tolerance bridges their logits
	// Tolerance is how far a logit may be away, in units of max(1, the largest logit there); margins twice that.
	Tolerance     float64  `json:"tolerance"`
	WorstLogitGap *float64 `json:"worst_logit_gap_difference"` // null: the transcript holds no logit gaps
	WorstProbGap  *float64 `json:"worst_prob_gap_difference"`
	First         string   `json:"first_difference,omitempty"`
}

// ExitCode is 1 if a claim does not hold, else that of the transcript's own decision.
func (r *RecheckResult) ExitCode() int {
	if !r.Confirmed {
		return Fail.ExitCode()
	}
	return r.Evidence.ExitCode()
}

// Replay judges the evidence again and runs the engines that are at hand again over the same ids: every id and margin
// that is recorded is compared. The error is of bad input or of ctx; an engine that fails is a check that was not run.
func (t *Transcript) Replay(ctx context.Context, live Live) (*RecheckResult, error) {
	r := &RecheckResult{Schema: "sibyl-gate-recheck/1", File: t.file, Recorded: t.Result, Checks: []RecheckCheck{}}
	r.Evidence, r.Problems = t.CheckEvidence()
	if r.Problems == nil {
		r.Problems = []string{}
	}
	for _, side := range []struct {
		by  Role
		e   engine.Engine
		why string
	}{{RoleRef, live.Ref, live.RefWhy}, {RoleTest, live.Test, live.TestWhy}} {
		if err := t.checkEngine(side.by, side.e); err != nil {
			return nil, err
		}
		for _, part := range partOrder[1:] {
			c := RecheckCheck{By: side.by, Part: part, Note: side.why}
			if err := r.check(ctx, t, c, side.e, live); err != nil {
				return nil, err
			}
		}
	}
	if t.Sibyl != nil && live.Control != nil {
		for _, info := range t.Sibyl.Result.Controls {
			if err := r.control(ctx, t, info, live); err != nil {
				return nil, err
			}
		}
	}
	r.conclude(t)
	return r, nil
}

// control opens a control again and checks its views.
func (r *RecheckResult) control(ctx context.Context, t *Transcript, info ControlInfo, live Live) error {
	var checks []RecheckCheck
	for _, part := range []PartName{TeacherForced, Rollout} {
		if c := (RecheckCheck{By: RoleControl, Control: info.Label, Part: part}); len(t.of(c)) > 0 {
			checks = append(checks, c)
		}
	}
	if len(checks) == 0 {
		return nil
	}
	e, why, err := live.Control(ctx, info)
	if err != nil {
		return err
	}
	for _, c := range checks {
		c.Note = why
		if err := r.check(ctx, t, c, e, live); err != nil {
			return err
		}
	}
	return nil
}

// check runs one side in one part again, if something is recorded of it and the engine is there.
func (r *RecheckResult) check(ctx context.Context, t *Transcript, c RecheckCheck, e engine.Engine, live Live) error {
	recorded := t.of(c)
	if len(recorded) == 0 {
		return nil
	}
	c.Status = "not run"
	if e != nil {
		run := &recheck{t: t, c: &c, recorded: recorded, e: e, ref: live.Ref, progress: live.Progress}
		if err := run.part(ctx); err != nil {
			return err
		}
	}
	r.Checks = append(r.Checks, c)
	return nil
}

// conclude makes the first line.
func (r *RecheckResult) conclude(t *Transcript) {
	var bad, ran []string
	if n := len(r.Problems); n > 0 {
		bad = append(bad, plural(n, "contradiction")+" between the record and its evidence")
	}
	ran = append(ran, "the evidence judged again")
	for _, c := range r.Checks {
		switch c.Status {
		case "differs":
			bad = append(bad, fmt.Sprintf("%s differs at %d of %d positions (%s)", c.who(), c.Differ, c.Positions, strings.ReplaceAll(string(c.Part), "_", " ")))
		case "agrees":
			if what := c.who() + " run again"; !slices.Contains(ran, what) {
				ran = append(ran, what)
			}
		}
	}
	r.Confirmed = len(bad) == 0
	if !r.Confirmed {
		r.Headline = "NOT CONFIRMED: " + strings.Join(bad, "; ")
		return
	}
	what := t.Result
	if t.Sibyl != nil {
		what, r.Sentence = t.Sibyl.Result.Headline, t.Sibyl.Result.Sentence
	}
	r.Headline = fmt.Sprintf("CONFIRMED: %s (%s)", what, strings.Join(ran, ", "))
}

// who is whose check it is, as printed.
func (c *RecheckCheck) who() string {
	if c.By == RoleControl {
		return "control " + c.Control
	}
	return string(c.By)
}

// of lists what a side or control showed in a part. The field's transcripts hold the decode path of both sides at most.
func (t *Transcript) of(c RecheckCheck) (out []Shown) {
	by, part := c.By, c.Part
	if t.Sibyl != nil {
		for _, s := range t.Sibyl.Shown {
			if s.By == by && s.Control == c.Control && s.Part == part && len(s.Seen) > 0 {
				out = append(out, s)
			}
		}
		return out
	}
	ids, margins := t.Oracle.GenIDs, t.Oracle.Top2Margins
	if by == RoleTest {
		ids, margins = t.Engine.GenIDs, nil
	}
	if part != Rollout || len(ids) == 0 {
		return nil
	}
	s := Shown{By: by, Part: Rollout, From: len(t.InputIDs) - 1}
	for i, id := range ids {
		x := Seen{ID: id, Ties: []int32{id}, LSE: math.NaN(), LogitGap: math.NaN(), ProbGap: math.NaN()}
		if i < len(margins) && margins[i] != nil {
			x.ProbGap = *margins[i]
		}
		s.Seen = append(s.Seen, x)
	}
	return []Shown{s}
}

// checkEngine refuses to compare a side with an engine of another arithmetic or other weights.
func (t *Transcript) checkEngine(by Role, e engine.Engine) error {
	if e == nil || t.Sibyl == nil {
		return nil
	}
	was, field := t.Sibyl.Result.Ref, "sibyl.result.ref"
	if by == RoleTest {
		was, field = t.Sibyl.Result.Test, "sibyl.result.test"
	}
	now := e.Info()
	if was.Contract == now.Contract && was.Scheme == now.Scheme && was.Mode == now.Mode {
		return nil
	}
	words := func(e EngineInfo) string {
		return strings.TrimSuffix(e.Contract+", weights "+e.Scheme+", "+e.Mode, ", ")
	}
	return &inputerr.Error{File: t.file, Field: field, Found: inputerr.Clip(words(was), 120), Want: words(describe(now)) + ": that is " + now.Subject,
		Do: "run it again as it was recorded: " + inputerr.Clip(was.Subject, 120)}
}

// Prompts gives the prompts and the protocol that were run; of the field's transcripts, the one there is.
func (t *Transcript) Prompts() ([]Prompt, Protocol) {
	if t.Sibyl == nil {
		p := DefaultProtocol()
		p.MaxTokens = len(t.Oracle.GenIDs)
		return []Prompt{{Name: "input_ids", Text: t.Protocol.Prompt, IDs: t.InputIDs}}, p
	}
	var out []Prompt
	for _, q := range t.Sibyl.Result.Prompts {
		out = append(out, Prompt{Name: q.Name, Text: q.Text, IDs: q.IDs})
	}
	return out, t.Sibyl.Result.Protocol
}

// CheckEither is CheckModel for an engine that answers from the transcript: the model must be the one that REF or
// that TEST was.
func (t *Transcript) CheckEither(model, configSHA256, weightsSHA256 string, vocab int) error {
	err := t.CheckModel(RoleRef, model, configSHA256, weightsSHA256, vocab)
	if err != nil && t.Sibyl != nil && t.Sibyl.Result.Test.ConfigSHA256 != "" &&
		t.CheckModel(RoleTest, model, configSHA256, weightsSHA256, vocab) == nil {
		return nil
	}
	return err
}

// CheckModel refuses to run a side of the transcript with another model than it was made of: the hashes of config and
// weights ("" if not known, then not compared) and, of the field's transcripts, which have none, the vocabulary.
func (t *Transcript) CheckModel(by Role, model, configSHA256, weightsSHA256 string, vocab int) error {
	do := "it is a transcript of another model: name the model it was made of"
	if t.Sibyl == nil {
		for _, ids := range [][]int32{t.InputIDs, t.Oracle.GenIDs} {
			if id := slices.Max(append([]int32{0}, ids...)); int(id) >= vocab {
				return &inputerr.Error{File: t.file, Field: "ids", Found: fmt.Sprintf("token %d", id),
					Want: fmt.Sprintf("ids of %s, 0..%d", model, vocab-1), Do: do}
			}
		}
		return nil
	}
	side, field := t.Sibyl.Result.Ref, "sibyl.result.ref."
	switch by {
	case RoleTest:
		side, field = t.Sibyl.Result.Test, "sibyl.result.test."
	case RoleControl:
		return nil // a control is of REF's or of TEST's weights
	}
	for _, h := range []struct{ name, was, now string }{{"config_sha256", side.ConfigSHA256, configSHA256}, {"weights_sha256", side.WeightsSHA256, weightsSHA256}} {
		if h.was != "" && h.now != "" && h.was != h.now {
			return &inputerr.Error{File: t.file, Field: field + h.name, Found: inputerr.Clip(h.was, 64), Want: h.now + ", that of " + model, Do: do}
		}
	}
	return nil
}
