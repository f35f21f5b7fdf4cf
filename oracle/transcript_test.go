package oracle

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"sibyl/engine/enginetest"
	"sibyl/internal/inputerr"
)

func TestTranscript(t *testing.T) {
	t.Parallel()
	s, p := gateSetup(nil, func(at enginetest.At, row []float64) {
		if gateAt(at, 1, 4, enginetest.Generate) {
			gateFlip(at.Prefix, row, 1)
		}
	})
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := NewTranscript(r, TranscriptOptions{Arch: "qwen3_5", At: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC), File: "t.json"})
	if err != nil {
		t.Fatal(err)
	}
	if tr.Match.ExactPrefix != 1 || tr.Match.Of != 3 || tr.Match.FirstDivergence == nil || *tr.Match.FirstDivergence != 1 {
		t.Errorf("match = %+v, want a prefix of 1 of 3", tr.Match)
	}
	var b bytes.Buffer
	if err := tr.Write(&b); err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	if err := json.Unmarshal(b.Bytes(), &top); err != nil {
		t.Fatal(err)
	}
	// The names are the field's; a reader of theirs must find them.
	for _, key := range []string{"schema", "generated_at", "result", "arch", "bundle", "source_model", "protocol", "input_ids", "oracle", "engine", "match", "environment", "sibyl"} {
		if top[key] == nil {
			t.Errorf("%q is missing", key)
		}
	}
	o := top["oracle"].(map[string]any)
	if got := o["top2_margins"].([]any); len(got) != 3 || got[0].(float64) >= 1 {
		t.Errorf("top2_margins = %v, want three gaps of probability", got)
	}
	if top["schema"] != TranscriptSchema || top["result"] != "FAIL" || top["generated_at"] != "2026-11-22T01:02:03Z" {
		t.Errorf("schema %v, result %v, generated_at %v", top["schema"], top["result"], top["generated_at"])
	}
	same, err := NewTranscript(r, TranscriptOptions{Prompt: 1, Arch: "qwen3_5"})
	if err != nil || same.Match.FirstDivergence != nil || same.Match.ExactPrefix != 3 || !slices.Equal(same.InputIDs, gatePrompts[1].IDs) {
		t.Errorf("prompt b: %+v, %v; want no divergence", same.Match, err)
	}
	var bad *inputerr.Error
	if _, err := NewTranscript(r, TranscriptOptions{Prompt: 2}); !errors.As(err, &bad) {
		t.Errorf("a prompt that is not there: %v, want an input error", err)
	}
}
