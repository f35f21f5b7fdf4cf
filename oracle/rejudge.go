package oracle

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"sibyl/engine"
)

// still stands in for an engine whose views are already there: it has an Info and runs nothing.
type still struct{ info engine.Info }

func (s still) Info() engine.Info { return s.info }
func (s still) Close() error      { return nil }
func (s still) Score(context.Context, []engine.Prompt, engine.Want, func(*engine.Position) error) error {
	return engine.ErrNotShown
}
func (s still) Generate(context.Context, engine.Prompt, engine.Options, func(*engine.Token) error) error {
	return engine.ErrNotShown
}

// Info is what an engine.Info says of the judged things: describe without what only running needs.
func (e EngineInfo) Info() engine.Info {
	i := engine.Info{Engine: e.Engine, Subject: e.Subject, Contract: e.Contract, Scheme: e.Scheme, Mode: e.Mode,
		VocabSize: e.VocabSize, MaxPositions: e.MaxPositions, LogitsDType: e.LogitsDType, Threads: e.Threads,
		CallsMatter: e.CallsMatter, WeightsSHA256: e.WeightsSHA256, ConfigSHA256: e.ConfigSHA256, Fallbacks: e.Fallbacks}
	for _, name := range strings.Split(e.Shows, ", ") {
		for s := engine.IDs; s <= engine.TakeState; s <<= 1 {
			if s.String() == name {
				i.Shows |= s
			}
		}
	}
	return i
}

// rejudge judges the evidence again, by the code that judged it first: only what the engines showed, the protocol,
// and how each part ended are taken from the record. The problems say what is not there to be judged.
func (e *TranscriptEvidence) rejudge() (*GateResult, []string) {
	rec := e.Result
	s := Setup{Ref: still{rec.Ref.Info()}, Test: still{rec.Test.Info()}}
	for _, c := range rec.Controls {
		s.Controls = append(s.Controls, Control{Kind: c.Kind, Label: c.Label, Expected: c.Expected, Noisy: c.Noisy, Same: c.Same, Engine: still{c.Engine.Info()}})
	}
	for _, q := range rec.Prompts {
		s.Prompts = append(s.Prompts, Prompt{Name: q.Name, Text: q.Text, IDs: q.IDs})
	}
	g := newGate(s, rec.Protocol)
	for i := range g.res.Parts {
		p := &rec.Parts[i]
		g.res.Parts[i].Status, g.res.Parts[i].Note = p.Status, p.Note
		if p.Status == PartBroke {
			g.res.Reasons = append(g.res.Reasons, "an engine is not available: "+p.Note)
		}
	}
	for k, c := range rec.Controls {
		if c.Note != "" {
			g.res.Controls[k].Note = c.Note
			g.res.Reasons = append(g.res.Reasons, "an engine is not available: "+c.Note)
		}
	}
	problems := e.restore(g)
	if g.ref != nil {
		g.checkRef()
		g.measureNoise()
		for i := range e.Shown {
			problems = append(problems, g.judgeShown(&e.Shown[i])...)
		}
	}
	g.count()
	g.decide()
	return g.res, problems
}

// restore puts back what REF and the controls showed. g.ref stays nil if REF did not get that far.
func (e *TranscriptEvidence) restore(g *gate) (problems []string) {
	n := len(g.res.Prompts)
	g.gen = make([][]Seen, n)
	ref, ctls, steps := make([][]Seen, n), make([][][]Seen, len(g.Controls)), make([][][]Seen, len(g.Controls))
	for k := range ctls {
		ctls[k], steps[k] = make([][]Seen, n), make([][]Seen, n)
	}
	for i := range e.Shown {
		s := &e.Shown[i]
		switch {
		case s.By == RoleRef && s.Part == TeacherForced:
			ref[s.Prompt] = s.Seen
		case s.By == RoleRef && s.Part == Rollout:
			g.gen[s.Prompt] = s.Seen
		case s.By == RoleControl && s.Part != StateStep:
			k := slices.IndexFunc(g.Controls, func(c Control) bool { return c.Label == s.Control })
			if k < 0 {
				problems = append(problems, fmt.Sprintf("sibyl.shown[%d]: control %.60q is none of the result's", i, s.Control))
				continue
			}
			if s.Part == Rollout {
				steps[k][s.Prompt] = s.Seen
			} else {
				ctls[k][s.Prompt] = s.Seen
			}
		}
	}
	complete := true
	for i := range g.res.Prompts {
		q, rec := &g.res.Prompts[i], &e.Result.Prompts[i]
		q.RefIDs = rec.RefIDs
		for k, s := range g.gen[i] {
			q.RefLogitGap, q.RefProbGap = append(q.RefLogitGap, shown(s.LogitGap)), append(q.RefProbGap, shown(s.ProbGap))
			if s.ID != q.RefIDs[k] {
				problems = append(problems, fmt.Sprintf("prompt %d (%s), token %d: REF's id is recorded as %d, its evidence has %d", i, q.Name, k, q.RefIDs[k], s.ID))
			}
		}
		want := TeacherForced.positions(q)
		if missing := len(ref[i]) != want || len(g.gen[i]) != len(q.RefIDs); missing {
			complete = false
		}
	}
	if complete {
		g.ref, g.ctls, g.steps = ref, ctls, steps
	} else if g.res.part(Qualification).Status == PartRan {
		problems = append(problems, "the evidence of REF is not complete, though the record says that part 1 ran")
	}
	return problems
}

// judgeShown judges what TEST showed of a prompt in a part.
func (g *gate) judgeShown(s *Shown) (problems []string) {
	if s.By != RoleTest {
		return nil
	}
	q := &g.res.Prompts[s.Prompt]
	for i, test := range s.Seen {
		var ref Seen
		switch s.Part {
		case TeacherForced:
			ref = g.ref[s.Prompt][i]
		case Rollout:
			ref = g.gen[s.Prompt][i]
			q.TestIDs = append(q.TestIDs, test.ID)
		case StateStep:
			if len(g.gen[s.Prompt]) < 2 {
				return []string{fmt.Sprintf("prompt %d (%s): a step from REF's state, of which REF says nothing", s.Prompt, q.Name)}
			}
			ref = g.gen[s.Prompt][1]
		}
		g.keep(s.Part, s.Prompt, s.From+i, test)
		g.judge(s.Part, s.Prompt, s.From+i, ref, test)
	}
	return nil
}

// CheckEvidence recomputes the decision from the evidence and compares it, and all it rests on, with what is recorded.
// The schema's own fields are compared with the evidence, or, where there is none, with each other. No problem means
// that the transcript says nothing its evidence does not say.
func (t *Transcript) CheckEvidence() (Decision, []string) {
	if t.Sibyl == nil {
		return t.checkField()
	}
	rec := t.Sibyl.Result
	got, problems := t.Sibyl.rejudge()
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if got.Decision != rec.Decision {
		add("sibyl.result.decision: recorded %s, the evidence gives %s (%s)", rec.Decision, got.Decision, got.Headline)
	}
	if t.Result != string(rec.Decision) {
		add("result: recorded %.20q, sibyl.result.decision %s", t.Result, rec.Decision)
	}
	for i, p := range got.Parts {
		p.Note, p.Status = rec.Parts[i].Note, rec.Parts[i].Status
		if p != rec.Parts[i] {
			add("sibyl.result.parts: %s: recorded %+v, the evidence gives %+v", p.Name, rec.Parts[i], p)
		}
	}
	problems = append(problems, comparePositions(rec, got)...)
	for i := range rec.Prompts {
		a, b := &rec.Prompts[i], &got.Prompts[i]
		switch {
		case !slices.Equal(a.TestIDs, b.TestIDs):
			add("sibyl.result.prompts[%d].test_rollout_ids: not those of the evidence", i)
		case !sameMargins(a.RefLogitGap, b.RefLogitGap), !sameMargins(a.RefProbGap, b.RefProbGap):
			add("sibyl.result.prompts[%d]: REF's margins are not those of the evidence", i)
		}
	}
	q := &got.Prompts[t.Sibyl.Prompt]
	want := got.match(t.Sibyl.Prompt)
	switch {
	case !slices.Equal(t.InputIDs, q.IDs):
		add("input_ids: not those of prompt %d under sibyl", t.Sibyl.Prompt)
	case !slices.Equal(t.Oracle.GenIDs, q.RefIDs):
		add("oracle.gen_ids: not those of prompt %d under sibyl", t.Sibyl.Prompt)
	case !sameMargins(t.Oracle.Top2Margins, q.RefProbGap):
		add("oracle.top2_margins: not those of prompt %d under sibyl, as gaps of probability", t.Sibyl.Prompt)
	case !slices.Equal(t.Engine.GenIDs, q.TestIDs):
		add("engine.gen_ids: not those of prompt %d under sibyl", t.Sibyl.Prompt)
	case t.Match.ExactPrefix != want.ExactPrefix || t.Match.Of != want.Of:
		add("match: recorded %d of %d, the ids give %d of %d", t.Match.ExactPrefix, t.Match.Of, want.ExactPrefix, want.Of)
	}
	return got.Decision, problems
}

// place names one judged position.
type place struct {
	part        PartName
	prompt, pos int
}

// comparePositions compares every judged position of the record with the same one judged again.
func comparePositions(rec, got *GateResult) (problems []string) {
	at := make(map[place]*Evidence, len(got.Positions))
	for i := range got.Positions {
		e := &got.Positions[i]
		at[place{e.Part, e.Prompt, e.Pos}] = e
	}
	seen := make(map[place]bool, len(rec.Positions))
	for i := range rec.Positions {
		a := &rec.Positions[i]
		p := place{a.Part, a.Prompt, a.Pos}
		b := at[p]
		where := fmt.Sprintf("prompt %d (%s), position %d, %s: ", a.Prompt, rec.Prompts[a.Prompt].Name, a.Pos, a.Part)
		switch {
		case seen[p]:
			problems = append(problems, where+"recorded twice")
		case b == nil:
			problems = append(problems, where+"recorded, but not in the evidence")
		case a.RefID != b.RefID || a.TestID != b.TestID:
			problems = append(problems, fmt.Sprintf("%srecorded REF %d, TEST %d, the evidence has %d, %d", where, a.RefID, a.TestID, b.RefID, b.TestID))
		case a.Verdict != b.Verdict || a.Qualified != b.Qualified || a.Accepted != b.Accepted:
			problems = append(problems, fmt.Sprintf("%srecorded %.20s, qualified %v, accepted %v, the evidence gives %s, %v, %v",
				where, a.Verdict, a.Qualified, a.Accepted, b.Verdict, b.Qualified, b.Accepted))
		case !sameMargins([]*float64{a.LogitGap, a.ProbGap}, []*float64{b.LogitGap, b.ProbGap}):
			problems = append(problems, where+"REF's margins are not those of the evidence")
		}
		seen[p] = true
	}
	if left := len(at) - len(seen); left > 0 {
		problems = append(problems, fmt.Sprintf("%d positions of the evidence are not recorded as judged", left))
	}
	return problems
}

// probNoise is how far a gap of probability may move with no logit changed: exp differs in its last bit between
// architectures, and a gap is a difference of two numbers of at most 1.
const probNoise = 1e-12

// sameMargins compares margins one by one; null is only equal to null.
func sameMargins(a, b []*float64) bool {
	return slices.EqualFunc(a, b, func(x, y *float64) bool {
		return x == nil && y == nil || x != nil && y != nil && math.Abs(*x-*y) <= probNoise
	})
}

// checkField recomputes the field's own decision: PASS if the texts are equal; else the first id that differs passes
// as a tie where REF's gap of probability is below 0.1; ERROR if the engine gave nothing.
func (t *Transcript) checkField() (Decision, []string) {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	ref, ids := t.Oracle.GenIDs, t.Engine.GenIDs
	want, decision := "FAIL", Fail
	switch first := t.Match.FirstDivergence; {
	case t.Engine.GenText == nil && ids == nil:
		want, decision = "ERROR", Inconclusive
	case ids == nil && *t.Engine.GenText == t.Oracle.GenText, ids != nil && slices.Equal(ids, ref):
		want, decision = "PASS", Pass
		if t.Match.ExactPrefix != len(ref) || t.Match.Of != len(ref) || first != nil {
			add("match: recorded %d of %d, both sides are the same over %d", t.Match.ExactPrefix, t.Match.Of, len(ref))
		}
	default:
		n := t.Match.ExactPrefix
		if ids != nil {
			n = commonPrefix(ids, ref)
		}
		if n != t.Match.ExactPrefix || t.Match.Of != len(ref) || first == nil || *first != n {
			add("match: recorded %d of %d, the ids give %d of %d", t.Match.ExactPrefix, t.Match.Of, n, len(ref))
		}
		if n >= 0 && n < len(t.Oracle.Top2Margins) && t.Oracle.Top2Margins[n] != nil && *t.Oracle.Top2Margins[n] < 0.1 {
			want, decision = "PASS_TIE", Pass
		}
	}
	if t.Result != want {
		add("result: recorded %.20q, its own ids and margins give %s", t.Result, want)
	}
	return decision, problems
}
