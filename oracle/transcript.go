package oracle

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"sibyl/internal/inputerr"
)

// TranscriptSchema is the field's own name of the transcript's form.
const TranscriptSchema = "coreai-gate-transcript/1"

// Transcript is one prompt of a gate in the field's schema, with the whole result under the key "sibyl". The
// schema's fields are about a single prompt; what they cannot say (several prompts, verdicts, both margins) is ours.
type Transcript struct {
	Schema      string             `json:"schema"`
	GeneratedAt string             `json:"generated_at,omitempty"` // RFC 3339
	Result      string             `json:"result"`                 // PASS, FAIL, INCONCLUSIVE
	Arch        string             `json:"arch"`
	Bundle      string             `json:"bundle"`       // TEST's subject
	SourceModel string             `json:"source_model"` // REF's subject
	Protocol    TranscriptProtocol `json:"protocol"`
	InputIDs    []int32            `json:"input_ids"`
	Oracle      TranscriptOracle   `json:"oracle"`
	Engine      TranscriptEngine   `json:"engine"`
	Match       TranscriptMatch    `json:"match"`
	Environment map[string]string  `json:"environment"`
	Sibyl       *GateResult        `json:"sibyl"`
}

// TranscriptProtocol says how the tokens were made. The schema's margins are gaps of probability.
type TranscriptProtocol struct {
	Prompt        string `json:"prompt"`
	MaxNewTokens  int    `json:"max_new_tokens"`
	Greedy        bool   `json:"greedy"`
	OracleDType   string `json:"oracle_dtype"` // REF's contract
	EngineVariant string `json:"engine_variant"`
	TieRule       string `json:"tie_rule"`
	MarginUnit    string `json:"top2_margin_unit"`
}

// TranscriptOracle is REF's side: its greedy ids and, for each, its gap of probability (null: not shown).
type TranscriptOracle struct {
	GenIDs      []int32    `json:"gen_ids"`
	GenText     string     `json:"gen_text"`
	Top2Margins []*float64 `json:"top2_margins"`
}

// TranscriptEngine is TEST's side: its choices, each made after REF's ids before it.
type TranscriptEngine struct {
	GenIDs  []int32 `json:"gen_ids"`
	GenText string  `json:"gen_text"`
}

// TranscriptMatch says how far both agree. FirstDivergence is an index into gen_ids, null if there is none.
type TranscriptMatch struct {
	ExactPrefix     int  `json:"exact_prefix"`
	Of              int  `json:"of"`
	FirstDivergence *int `json:"first_divergence"`
}

// NewTranscript is the transcript of prompt number prompt (from 0) of r. text turns ids into text and may be nil,
// as may env; arch is the model type of the config; at, if not zero, is when it was run.
func NewTranscript(r *GateResult, prompt int, arch string, at time.Time, env map[string]string, text func([]int32) string) (*Transcript, error) {
	if prompt < 0 || prompt >= len(r.Prompts) {
		return nil, &inputerr.Error{File: "transcript", Field: "prompt", Found: fmt.Sprint(prompt), Want: fmt.Sprintf("0..%d", len(r.Prompts)-1)}
	}
	if text == nil {
		text = func([]int32) string { return "" }
	}
	q := r.Prompts[prompt]
	t := &Transcript{Schema: TranscriptSchema, Result: string(r.Decision), Arch: arch, Bundle: r.Test.Subject, SourceModel: r.Ref.Subject,
		InputIDs: q.IDs, Environment: env, Sibyl: r,
		Protocol: TranscriptProtocol{Prompt: q.Text, MaxNewTokens: r.Protocol.MaxTokens, Greedy: true, OracleDType: r.Ref.Contract,
			EngineVariant: r.Test.Engine, TieRule: "lowest id", MarginUnit: string(ProbGap)},
		Oracle: TranscriptOracle{GenIDs: notNil(q.RefIDs), GenText: text(q.RefIDs), Top2Margins: notNil(q.RefProbGap)},
		Engine: TranscriptEngine{GenIDs: notNil(q.TestIDs), GenText: text(q.TestIDs)},
		Match:  TranscriptMatch{Of: len(q.RefIDs)},
	}
	if !at.IsZero() {
		t.GeneratedAt = at.UTC().Format(time.RFC3339)
	}
	if t.Environment == nil {
		t.Environment = map[string]string{}
	}
	n := 0
	for n < min(len(q.RefIDs), len(q.TestIDs)) && q.RefIDs[n] == q.TestIDs[n] {
		n++
	}
	t.Match.ExactPrefix = n
	if n < len(q.RefIDs) {
		t.Match.FirstDivergence = &n
	}
	return t, nil
}

// Write writes t as indented JSON.
func (t *Transcript) Write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(t)
}

// notNil gives an empty list for nil, so that JSON has [] and not null.
func notNil[T any](x []T) []T {
	return append([]T{}, x...)
}
