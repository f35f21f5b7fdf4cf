package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/internal/strictjson"
	"sibyl/internal/userfile"
)

// maxTranscript bounds what is read: the evidence of 100,000 positions of six engines, eight candidates each.
const maxTranscript = 256 << 20

// OpenTranscript reads the transcript in a file. The error is an *inputerr.Error.
func OpenTranscript(file string) (*Transcript, error) {
	data, err := userfile.Read(file, maxTranscript)
	var in *inputerr.Error
	if errors.As(err, &in) {
		in.Want, in.Do = "a transcript ("+TranscriptSchema+")", "give the file of a transcript"
	}
	if err != nil {
		return nil, err
	}
	return ParseTranscript(file, data)
}

// ParseTranscript reads a transcript, ours or the field's, and refuses what no gate writes. file is for messages. That
// a transcript can be read does not mean that its claims hold: see Check.
func ParseTranscript(file string, data []byte) (*Transcript, error) {
	if len(data) > maxTranscript {
		return nil, &inputerr.Error{File: file, Found: fmt.Sprintf("%d bytes or more", len(data)), Want: fmt.Sprintf("at most %d", maxTranscript)}
	}
	if err := strict(data); err != nil {
		return nil, &inputerr.Error{File: file, Err: err, Do: "give a transcript (" + TranscriptSchema + ")"}
	}
	var named struct {
		Schema any `json:"schema"`
	}
	if err := json.Unmarshal(data, &named); err != nil {
		return nil, &inputerr.Error{File: file, Err: err, Do: "give a transcript (" + TranscriptSchema + ")"}
	}
	if named.Schema != TranscriptSchema {
		found := "nothing"
		if named.Schema != nil {
			found = inputerr.Clip(fmt.Sprint(named.Schema), 60)
		}
		return nil, &inputerr.Error{File: file, Field: "schema", Found: found, Want: TranscriptSchema, Do: "sibyl gate -o FILE writes such a file"}
	}
	t := &Transcript{file: file}
	if err := json.Unmarshal(data, t); err != nil {
		bad := &inputerr.Error{File: file, Err: err}
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			bad = &inputerr.Error{File: file, Field: e.Field, Found: "a " + e.Value, Want: jsonKind(e.Type.String())}
		}
		return nil, bad
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// strict refuses what encoding/json lets pass: keys that come twice, bad UTF-8, bytes after the end, deep nesting.
func strict(data []byte) error {
	s, err := strictjson.New(data)
	if err != nil {
		return err
	}
	if k := s.Kind(); k != strictjson.Object {
		return fmt.Errorf("found %s, want an object", k)
	}
	if err := s.Skip(); err != nil {
		return err
	}
	return s.End()
}

// jsonKind names a Go type as JSON does.
func jsonKind(goType string) string {
	switch goType {
	case "int32":
		return "a token id"
	case "int":
		return "a whole number"
	case "float64":
		return "a number"
	case "bool":
		return "true or false"
	case "string":
		return "a string"
	}
	if goType[0] == '[' {
		return "a list"
	}
	return "an object"
}

// UnmarshalJSON reads the object; a plain string is the name alone.
func (s *TranscriptSource) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		return json.Unmarshal(b, &s.HFID)
	}
	type plain TranscriptSource
	return json.Unmarshal(b, (*plain)(s))
}

// check refuses ids and margins that cannot be, and evidence whose parts do not fit together.
func (t *Transcript) check() error {
	for _, list := range []struct {
		name  string
		ids   []int32
		empty bool // may be
	}{{"input_ids", t.InputIDs, false}, {"oracle.gen_ids", t.Oracle.GenIDs, true}, {"engine.gen_ids", t.Engine.GenIDs, true}} {
		if len(list.ids) == 0 && !list.empty {
			return t.bad(list.name, "no token", "at least one")
		}
		if err := notNegative(list.ids); err != nil {
			return t.bad(list.name, err.Error(), "ids of 0 or more")
		}
	}
	if n := len(t.Oracle.Top2Margins); n > len(t.Oracle.GenIDs) {
		return t.bad("oracle.top2_margins", fmt.Sprint(n)+" margins", fmt.Sprintf("at most %d, one for each of gen_ids", len(t.Oracle.GenIDs)))
	}
	for i, m := range t.Oracle.Top2Margins {
		// Rounding of a sum of 248,320 exponentials may leave a gap just above 1.
		if m != nil && !(*m >= 0 && *m <= 1+1e-6) {
			return t.bad(fmt.Sprintf("oracle.top2_margins[%d]", i), fmt.Sprint(*m), "a gap of probability, 0..1, as the schema has it")
		}
	}
	if t.Sibyl == nil {
		return nil
	}
	return t.checkEvidence()
}

func notNegative(ids []int32) error {
	if i := slices.IndexFunc(ids, func(id int32) bool { return id < 0 }); i >= 0 {
		return fmt.Errorf("%d at index %d", ids[i], i)
	}
	return nil
}

func (t *Transcript) bad(field, found, want string) error {
	return &inputerr.Error{File: t.file, Field: field, Found: found, Want: want}
}

// checkEvidence checks that every index in the evidence points somewhere, so that nothing after it can panic.
func (t *Transcript) checkEvidence() error {
	e := t.Sibyl
	r := e.Result
	switch {
	case r == nil || r.Schema != gateSchema:
		return t.bad("sibyl.result.schema", "none or another", gateSchema)
	case e.MarginUnit != ProbGap:
		return t.bad("sibyl.top2_margins_unit", inputerr.Clip(string(e.MarginUnit), 40), string(ProbGap))
	case e.Prompt < 0 || e.Prompt >= len(r.Prompts):
		return t.bad("sibyl.prompt", fmt.Sprint(e.Prompt), fmt.Sprintf("an index into its %d prompts", len(r.Prompts)))
	}
	var err error
	if r.Protocol.Path, err = engine.ParsePath(r.Protocol.PathName); err != nil {
		return t.bad("sibyl.result.protocol.path", inputerr.Clip(r.Protocol.PathName, 40), engine.PathSyntax)
	}
	if err := r.Protocol.check(); err != nil {
		return &inputerr.Error{File: t.file, Field: "sibyl.result.protocol", Err: err}
	}
	var names []PartName
	for _, p := range r.Parts {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, partOrder) {
		return t.bad("sibyl.result.parts", fmt.Sprintf("%.80q", names), fmt.Sprint(partOrder))
	}
	for i, q := range r.Prompts {
		if len(q.IDs) == 0 || notNegative(q.IDs) != nil || notNegative(q.RefIDs) != nil || notNegative(q.TestIDs) != nil {
			return t.bad(fmt.Sprintf("sibyl.result.prompts[%d]", i), "ids that are none or below 0", "at least one token, ids of 0 or more")
		}
	}
	for i, p := range r.Positions {
		if p.Prompt < 0 || p.Prompt >= len(r.Prompts) {
			return t.bad(fmt.Sprintf("sibyl.result.positions[%d].prompt", i), fmt.Sprint(p.Prompt), fmt.Sprintf("0..%d", len(r.Prompts)-1))
		}
	}
	for i, s := range e.Shown {
		if s.Prompt >= len(r.Prompts) {
			return t.bad(fmt.Sprintf("sibyl.shown[%d].prompt", i), fmt.Sprint(s.Prompt), fmt.Sprintf("0..%d", len(r.Prompts)-1))
		}
		q := &r.Prompts[s.Prompt]
		if want := s.Part.first(q); s.From != want || len(s.Seen) > s.Part.positions(q) {
			return t.bad(fmt.Sprintf("sibyl.shown[%d]", i), fmt.Sprintf("%d positions from %d", len(s.Seen), s.From),
				fmt.Sprintf("at most %d from %d", s.Part.positions(q), want))
		}
		if want := s.calls(r.Protocol.Path, q); s.Calls != "" && s.Calls != want {
			return t.bad(fmt.Sprintf("sibyl.shown[%d].calls", i), inputerr.Clip(s.Calls, 60)+": a prompt split at other call boundaries than its path's",
				inputerr.Clip(want, 60)+", the calls of path "+r.Protocol.PathName)
		}
	}
	return nil
}

// partOrder is the order of the parts.
var partOrder = []PartName{Qualification, TeacherForced, StateStep, Rollout}

// first is the index of the last token consumed at the part's first position of a prompt.
func (n PartName) first(q *PromptResult) int {
	switch n {
	case StateStep:
		return len(q.IDs)
	case Rollout:
		return len(q.IDs) - 1
	}
	return 0
}

// positions is how many positions of a prompt the part has if it ran to its end.
func (n PartName) positions(q *PromptResult) int {
	switch n {
	case StateStep:
		return min(1, len(q.RefIDs))
	case Rollout:
		return len(q.RefIDs)
	}
	return len(q.IDs) + max(0, len(q.RefIDs)-1)
}

// text is the ids the last position of s was shown after: the prompt and REF's ids.
func (t *Transcript) text(s *Shown) []int32 {
	q := &t.Sibyl.Result.Prompts[s.Prompt]
	return slices.Concat(q.IDs, q.RefIDs)[:s.From+len(s.Seen)]
}

// File is where the transcript was read from.
func (t *Transcript) File() string { return t.file }

// Views lists what REF or TEST showed, and for each view the tokens consumed up to its last position. The field's
// transcripts hold the greedy ids of REF after one prompt, and at most TEST's, which ran freely.
func (t *Transcript) Views(side Role) (views []Shown, ids [][]int32) {
	for _, part := range partOrder {
		for _, s := range t.of(RecheckCheck{By: side, Part: part}) {
			views = append(views, s)
			switch {
			case t.Sibyl != nil:
				ids = append(ids, t.text(&s))
			case side == RoleTest:
				ids = append(ids, slices.Concat(t.InputIDs, t.Engine.GenIDs[:len(s.Seen)-1]))
			default:
				ids = append(ids, slices.Concat(t.InputIDs, t.Oracle.GenIDs[:len(s.Seen)-1]))
			}
		}
	}
	return views, ids
}

// Info describes the engine that was REF or TEST. Of the field's transcripts only ids can be relied on.
func (t *Transcript) Info(side Role) engine.Info {
	switch {
	case t.Sibyl == nil && side == RoleRef:
		return engine.Info{Contract: orUnknown(t.Protocol.OracleDType), Scheme: "unknown", Shows: engine.IDs}
	case t.Sibyl == nil:
		return engine.Info{Contract: orUnknown(t.Protocol.EngineVariant), Scheme: "unknown", Shows: engine.IDs}
	case side == RoleRef:
		return t.Sibyl.Result.Ref.Info()
	}
	return t.Sibyl.Result.Test.Info()
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
