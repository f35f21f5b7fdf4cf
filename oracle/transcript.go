package oracle

import (
	"fmt"
	"path"
	"strings"
	"time"

	"sibyl/internal/inputerr"
)

// TranscriptSchema is the field's own name of the transcript's form.
const TranscriptSchema = "coreai-gate-transcript/1"

// Transcript is one prompt of a gate in the field's schema, with the whole gate under the key "sibyl". The schema's
// fields are about a single prompt; what they cannot say (several prompts, verdicts, both margins, what the controls
// showed) is ours. Transcripts that others wrote have no such key, and may leave out or nil what is nil here.
type Transcript struct {
	Result      string              `json:"result"`   // ours: PASS, FAIL, INCONCLUSIVE; the field's: PASS, PASS_TIE, FAIL, ERROR
	Arch        string              `json:"arch"`     // ours: config.json's model_type
	Bundle      string              `json:"bundle"`   // TEST, without the folders before its name
	Artifact    *string             `json:"artifact"` // what was published, as owner/repo@revision; null if not known
	SourceModel TranscriptSource    `json:"source_model"`
	Protocol    TranscriptProtocol  `json:"protocol"`
	InputIDs    []int32             `json:"input_ids"`
	Oracle      TranscriptOracle    `json:"oracle"`
	Engine      TranscriptEngine    `json:"engine"`
	Match       TranscriptMatch     `json:"match"`
	Schema      string              `json:"schema"`
	GeneratedAt string              `json:"generated_at"` // RFC 3339
	Environment map[string]any      `json:"environment"`
	Recheck     map[string]any      `json:"recheck"` // what to run to check it again
	Sibyl       *TranscriptEvidence `json:"sibyl,omitempty"`

	file string // where it was read from, for messages
}

// TranscriptSource is the model REF was made of.
type TranscriptSource struct {
	HFID          string  `json:"hf_id"`
	Revision      *string `json:"revision"`
	WeightsPinned bool    `json:"weights_pinned"` // ours: the hash of the weights is under "sibyl"
	Note          string  `json:"note"`
}

// TranscriptProtocol says how the tokens were made.
type TranscriptProtocol struct {
	Prompt        string         `json:"prompt"`
	MaxNewTokens  int            `json:"max_new_tokens"`
	Greedy        bool           `json:"greedy"`
	OracleDType   string         `json:"oracle_dtype"` // ours: REF's contract
	EngineVariant string         `json:"engine_variant"`
	Warmup        string         `json:"warmup"`
	Env           map[string]any `json:"env"`
	TieRule       string         `json:"tie_rule"`
}

// TranscriptOracle is REF's side: its greedy ids and, for each, its top-2 margin as a gap of probability, which is
// the schema's unit (null: not shown). There may be fewer margins than ids.
type TranscriptOracle struct {
	GenIDs      []int32    `json:"gen_ids"`
	GenText     string     `json:"gen_text"`
	Top2Margins []*float64 `json:"top2_margins"`
}

// TranscriptEngine is TEST's side. The field writes the ids only where the texts differ, and free-running; ours are
// TEST's choices, each made after REF's ids before it.
type TranscriptEngine struct {
	GenText *string `json:"gen_text"` // null: the engine gave nothing
	GenIDs  []int32 `json:"gen_ids,omitempty"`
}

// TranscriptMatch says how far both agree. FirstDivergence is an index into oracle.gen_ids, null if there is none;
// the two below it are there only if there is one.
type TranscriptMatch struct {
	ExactPrefix        int      `json:"exact_prefix"`
	Of                 int      `json:"of"`
	FirstDivergence    *int     `json:"first_divergence"`
	MarginAtDivergence *float64 `json:"margin_at_divergence,omitempty"` // REF's, a gap of probability
	Tie                *bool    `json:"tie,omitempty"`                  // ours: the verdict there is no confident flip
}

// TranscriptEvidence is what the schema has no place for.
type TranscriptEvidence struct {
	MarginUnit Unit        `json:"top2_margins_unit"` // prob_gap
	Prompt     int         `json:"prompt"`            // which of result.prompts the schema's own fields are about
	Result     *GateResult `json:"result"`
	Shown      []Shown     `json:"shown"`
}

// TranscriptOptions is what a transcript says beside the result. All of it may be left out.
type TranscriptOptions struct {
	Prompt      int    // index of the prompt of the schema's own fields
	Arch        string // the model type of the config
	Artifact    string // owner/repo@revision
	Revision    string // of the source model
	At          time.Time
	Environment map[string]any
	Text        func([]int32) string // ids to text
	File        string               // its name, for the commands under "recheck"
}

// NewTranscript is the transcript of a gate that was run.
func NewTranscript(r *GateResult, o TranscriptOptions) (*Transcript, error) {
	if o.Prompt < 0 || o.Prompt >= len(r.Prompts) {
		return nil, &inputerr.Error{File: "transcript", Field: "prompt", Found: fmt.Sprint(o.Prompt), Want: fmt.Sprintf("0..%d", len(r.Prompts)-1)}
	}
	text := o.Text
	if text == nil {
		text = func([]int32) string { return "" }
	}
	q := r.Prompts[o.Prompt]
	tested := text(q.TestIDs)
	t := &Transcript{Schema: TranscriptSchema, Result: string(r.Decision), Arch: o.Arch, Bundle: publicName(r.Test.Subject),
		Artifact: orNull(o.Artifact), InputIDs: q.IDs, Environment: o.Environment,
		SourceModel: TranscriptSource{HFID: sourceModel(r.Ref.Subject), Revision: orNull(o.Revision), WeightsPinned: r.Ref.WeightsSHA256 != "",
			Note: "REF is " + publicName(r.Ref.Subject) + "; hashes of config and weights are under sibyl.result.ref"},
		Protocol: TranscriptProtocol{Prompt: q.Text, MaxNewTokens: r.Protocol.MaxTokens, Greedy: true, OracleDType: r.Ref.Contract,
			EngineVariant: r.Test.Engine, Warmup: "none", Env: map[string]any{}, TieRule: tieRule(r.Protocol)},
		Oracle: TranscriptOracle{GenIDs: notNil(q.RefIDs), GenText: text(q.RefIDs), Top2Margins: notNil(q.RefProbGap)},
		Engine: TranscriptEngine{GenIDs: notNil(q.TestIDs), GenText: &tested},
		Recheck: map[string]any{
			"evidence":         "sibyl gate --replay " + o.File + " judges what is under \"sibyl\" again, and runs REF and TEST again where their models are at hand.",
			"engine_side_only": "Feed input_ids to TEST, then oracle.gen_ids one by one: what it chooses before each must be engine.gen_ids. Compare ids, never text.",
			"full_gate":        fmt.Sprintf("sibyl gate --replay %s %s %s", o.File, publicName(r.Ref.Subject), publicName(r.Test.Subject)),
		},
		Sibyl: &TranscriptEvidence{MarginUnit: ProbGap, Prompt: o.Prompt, Result: r, Shown: r.shown},
	}
	if !o.At.IsZero() {
		t.GeneratedAt = o.At.UTC().Format(time.RFC3339)
	}
	if t.Environment == nil {
		t.Environment = map[string]any{}
	}
	t.Match = r.match(o.Prompt)
	return t, nil
}

// match says how far TEST's rollout of a prompt follows REF's ids.
func (r *GateResult) match(prompt int) TranscriptMatch {
	q := &r.Prompts[prompt]
	n := commonPrefix(q.RefIDs, q.TestIDs)
	m := TranscriptMatch{ExactPrefix: n, Of: len(q.RefIDs)}
	if n == len(q.RefIDs) {
		return m
	}
	m.FirstDivergence = &n
	if n < len(q.RefProbGap) {
		m.MarginAtDivergence = q.RefProbGap[n]
	}
	for i := range r.Positions {
		if e := &r.Positions[i]; e.Part == Rollout && e.Prompt == prompt && e.Pos == len(q.IDs)-1+n {
			tie := !e.Confident()
			m.Tie = &tie
		}
	}
	return m
}

// tieRule is the protocol's, in words.
func tieRule(p Protocol) string {
	return fmt.Sprintf("a flip counts where REF's %s is at least %g; an exact tie in TEST is no flip; a DEFECT counts anywhere", p.Unit, p.Margin)
}

// publicName is a subject without the folders before its model's name, which mean nothing on another machine. An id
// of a hub (org/name) is kept.
func publicName(subject string) string {
	model, parts := subject, ""
	if at := strings.LastIndexByte(subject, '@'); at >= 0 {
		model, parts = subject[:at], subject[at:]
	}
	model = strings.ReplaceAll(model, `\`, "/")
	if strings.Count(model, "/") > 1 || strings.HasPrefix(model, "/") || strings.HasPrefix(model, ".") {
		model = path.Base(model)
	}
	return model + parts
}

// sourceModel is the MODEL of a subject.
func sourceModel(subject string) string {
	model, _, _ := strings.Cut(publicName(subject), "@")
	if model == "" {
		return "the demo model of sibyl"
	}
	return model
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// commonPrefix is how many ids both lists begin with.
func commonPrefix(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// notNil gives an empty list for nil, so that JSON has [] and not null.
func notNil[T any](x []T) []T {
	return append([]T{}, x...)
}
