package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"sibyl/engine"
)

// Role is whose view something is.
type Role string

// The roles.
const (
	RoleRef     Role = "REF"
	RoleTest    Role = "TEST"
	RoleControl Role = "control"
)

// Shown is what one engine showed of one prompt in one part of a gate: enough to judge it again, or to stand in for
// the engine, without running anything. REF and the controls have their teacher-forced view (TeacherForced) and REF
// its decode path (Rollout), as have controls whose calls matter; TEST has all parts that ran.
type Shown struct {
	By      Role
	Control string // the control's label
	Part    PartName
	Prompt  int // index into GateResult.Prompts
	From    int // index of the last token consumed at Seen[0]; the others follow
	// Calls are the calls in which the tokens were consumed (engine.Path.Calls); "" in transcripts before it was recorded.
	Calls string
	Seen  []Seen
}

// shownJSON is Shown by columns, which is short and can be read: one line of ids, one of log-sum-exps.
type shownJSON struct {
	By      Role     `json:"by"`
	Control string   `json:"control,omitempty"`
	Part    PartName `json:"part"`
	Prompt  int      `json:"prompt"`
	From    int      `json:"from"`
	Calls   string   `json:"calls,omitempty"`

	IDs       []int32         `json:"ids"`
	Ties      map[int][]int32 `json:"ties,omitempty"`       // by index, where there are more than the id itself
	TopIDs    [][]int32       `json:"top_ids,omitempty"`    // largest first
	TopLogits [][]lossless    `json:"top_logits,omitempty"` // of the same ids
	LSE       []lossless      `json:"log_sum_exp,omitempty"`
	Faults    map[int]string  `json:"faults,omitempty"` // by index: what is not finite
}

// lossless is a float64 that comes back from JSON bit for bit (but for a NaN's payload): numbers in their shortest
// digits, NaN and the infinities as strings, which JSON's numbers do not have.
type lossless float64

// MarshalJSON implements json.Marshaler.
func (x lossless) MarshalJSON() ([]byte, error) {
	text := strconv.FormatFloat(float64(x), 'g', -1, 64)
	if !finite(float64(x)) {
		text = strconv.Quote(text)
	}
	return []byte(text), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (x *lossless) UnmarshalJSON(b []byte) error {
	switch text := string(b); text {
	case `"NaN"`:
		*x = lossless(math.NaN())
	case `"+Inf"`:
		*x = lossless(math.Inf(1))
	case `"-Inf"`:
		*x = lossless(math.Inf(-1))
	default:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || !finite(f) {
			return fmt.Errorf("found %.40s, want a number, \"NaN\", \"+Inf\" or \"-Inf\"", text)
		}
		*x = lossless(f)
	}
	return nil
}

// MarshalJSON writes s by columns. Columns that the engine shows nothing of are left out.
func (s Shown) MarshalJSON() ([]byte, error) {
	out := shownJSON{By: s.By, Control: s.Control, Part: s.Part, Prompt: s.Prompt, From: s.From, Calls: s.Calls, IDs: []int32{}}
	top := slices.ContainsFunc(s.Seen, func(x Seen) bool { return len(x.Top) > 0 })
	lse := slices.ContainsFunc(s.Seen, func(x Seen) bool { return !math.IsNaN(x.LSE) })
	for i, x := range s.Seen {
		out.IDs = append(out.IDs, x.ID)
		if len(x.Ties) != 1 || x.Ties[0] != x.ID {
			put(&out.Ties, i, x.Ties)
		}
		if x.Fault != "" {
			put(&out.Faults, i, x.Fault)
		}
		if lse {
			out.LSE = append(out.LSE, lossless(x.LSE))
		}
		if !top {
			continue
		}
		ids, logits := make([]int32, len(x.Top)), make([]lossless, len(x.Top))
		for k, c := range x.Top {
			ids[k], logits[k] = c.ID, lossless(c.Logit)
		}
		out.TopIDs, out.TopLogits = append(out.TopIDs, ids), append(out.TopLogits, logits)
	}
	return json.Marshal(out)
}

func put[T any](m *map[int]T, i int, v T) {
	if *m == nil {
		*m = map[int]T{}
	}
	(*m)[i] = v
}

// UnmarshalJSON reads what MarshalJSON writes and refuses columns that do not fit each other.
func (s *Shown) UnmarshalJSON(b []byte) error {
	if err := s.unmarshal(b); err != nil {
		return fmt.Errorf("sibyl.shown: %w", err)
	}
	return nil
}

func (s *Shown) unmarshal(b []byte) error {
	var in shownJSON
	if err := json.Unmarshal(b, &in); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%s: found a %s, want %s", e.Field, e.Value, jsonKind(e.Type.String()))
		}
		return err
	}
	n := len(in.IDs)
	switch {
	case in.By != RoleRef && in.By != RoleTest && in.By != RoleControl:
		return fmt.Errorf("by: found %.40q, want REF, TEST or control", in.By)
	case in.Part != TeacherForced && in.Part != StateStep && in.Part != Rollout:
		return fmt.Errorf("part: found %.40q, want teacher_forced, state_step or rollout", in.Part)
	case in.Prompt < 0 || in.From < 0 || in.From > math.MaxInt32:
		return errors.New("prompt or from: found a number below 0 or too large")
	case in.TopIDs != nil && len(in.TopIDs) != n, len(in.TopLogits) != len(in.TopIDs), in.LSE != nil && len(in.LSE) != n:
		return fmt.Errorf("columns: found %d ids, %d top_ids, %d top_logits, %d log_sum_exp, want one for each id",
			n, len(in.TopIDs), len(in.TopLogits), len(in.LSE))
	}
	*s = Shown{By: in.By, Control: in.Control, Part: in.Part, Prompt: in.Prompt, From: in.From, Calls: in.Calls, Seen: make([]Seen, n)}
	for i := range s.Seen {
		x := &s.Seen[i]
		x.ID, x.LSE, x.Ties, x.Fault = in.IDs[i], math.NaN(), []int32{in.IDs[i]}, in.Faults[i]
		if ties, ok := in.Ties[i]; ok {
			x.Ties = ties
		}
		if in.LSE != nil {
			x.LSE = float64(in.LSE[i])
		}
		if in.TopIDs != nil {
			if len(in.TopIDs[i]) != len(in.TopLogits[i]) || len(in.TopIDs[i]) > maxTopK {
				return fmt.Errorf("position %d: found %d top_ids and %d top_logits, want as many, at most %d",
					i, len(in.TopIDs[i]), len(in.TopLogits[i]), maxTopK)
			}
			for k, id := range in.TopIDs[i] {
				x.Top = append(x.Top, engine.Candidate{ID: id, Logit: float64(in.TopLogits[i][k])})
			}
		}
		if err := x.check(); err != nil {
			return fmt.Errorf("position %d: %w", i, err)
		}
		p := engine.Position{Top: x.Top, LSE: x.LSE}
		x.LogitGap, x.ProbGap = p.LogitGap(), p.ProbGap()
	}
	for i := range in.Ties {
		if i < 0 || i >= n {
			return fmt.Errorf("ties: found position %d of %d", i, n)
		}
	}
	return nil
}

// check refuses a view that no engine gives: ids below 0, candidates out of order, an argmax that is not the first.
func (s *Seen) check() error {
	if s.ID < 0 || len(s.Ties) == 0 || slices.Min(s.Ties) < 0 {
		return fmt.Errorf("found id %d with ties %v, want ids of 0 or more", s.ID, s.Ties)
	}
	for k, c := range s.Top {
		switch {
		case c.ID < 0:
			return fmt.Errorf("found candidate id %d, want 0 or more", c.ID)
		case k == 0 && c.ID != s.ID && !math.IsNaN(c.Logit):
			return fmt.Errorf("found id %d and first candidate %d, want the same", s.ID, c.ID)
		case k > 0 && (c.Logit > s.Top[k-1].Logit || c.Logit == s.Top[k-1].Logit && c.ID <= s.Top[k-1].ID):
			return fmt.Errorf("found candidate %d after a smaller one, want the largest first, ties by id", c.ID)
		}
	}
	return nil
}

// keep adds one position of TEST to what it showed.
func (g *gate) keep(part PartName, prompt, pos int, s Seen) {
	for i := len(g.tested) - 1; i >= 0; i-- {
		if t := &g.tested[i]; t.Part == part && t.Prompt == prompt {
			t.Seen = append(t.Seen, s)
			return
		}
	}
	g.tested = append(g.tested, Shown{By: RoleTest, Part: part, Prompt: prompt, From: pos, Seen: []Seen{s}})
}

// shown gathers what every engine showed, REF first, then TEST, then the controls.
func (g *gate) shown() []Shown {
	var out []Shown
	for i, row := range g.ref {
		out = append(out, Shown{By: RoleRef, Part: TeacherForced, Prompt: i, Seen: row})
	}
	for i, row := range g.gen {
		out = append(out, Shown{By: RoleRef, Part: Rollout, Prompt: i, From: len(g.res.Prompts[i].IDs) - 1, Seen: row})
	}
	out = append(out, g.tested...)
	for k, c := range g.Controls {
		for i, row := range g.ctls[k] {
			if len(row) == 0 {
				continue // it was not needed there
			}
			out = append(out, Shown{By: RoleControl, Control: c.Label, Part: TeacherForced, Prompt: i, Seen: row})
		}
		for i, row := range g.steps[k] {
			if len(row) > 0 {
				out = append(out, Shown{By: RoleControl, Control: c.Label, Part: Rollout, Prompt: i, From: len(g.res.Prompts[i].IDs) - 1, Seen: row})
			}
		}
	}
	for i := range out {
		out[i].Calls = out[i].calls(g.p.Path, &g.res.Prompts[out[i].Prompt])
	}
	return out
}

// calls are those in which the tokens of the view reached the engine on a path.
func (s *Shown) calls(p engine.Path, q *PromptResult) string {
	switch s.Part {
	case StateStep: // REF's, up to the state; then TEST's
		return p.Calls(len(q.IDs), len(s.Seen))
	case Rollout:
		return p.Calls(len(q.IDs), len(s.Seen)-1)
	}
	return p.Calls(len(s.Seen), 0)
}
