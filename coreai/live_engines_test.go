package coreai

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"sibyl/engine"
	_ "sibyl/graph"
	_ "sibyl/model"
)

// TestLiveEngines: a sample without a recording, int8lin with debug information. The live runtime, the graph engine and
// the CPU engine under coreai-cpu say the same bits and the same 16 greedy tokens.
func TestLiveEngines(t *testing.T) {
	needRuntime(t)
	found, err := filepath.Glob(filepath.Join(samplePath("tiny-dense-tied-int8lin-debuginfo"), "*.aimodel"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	ids := readRecorded(t, "tiny-dense-tied-fp16").ints("p17.input_ids")
	var first []float32
	var greedy []int32
	for _, name := range []string{"coreai", "graph", "cpu"} {
		spec := engine.Spec{Model: found[0]}
		if name != "coreai" {
			spec.Contract = "coreai-cpu"
		}
		e, err := engine.Open(t.Context(), name, spec)
		if err != nil {
			t.Fatal(err)
		}
		rows, tokens, err := walk(t, e, ids, 16)
		if closeErr := e.Close(); err != nil || closeErr != nil {
			t.Fatal(name, err, closeErr)
		}
		if name == "coreai" {
			first, greedy = rows, tokens
			continue
		}
		var c tally
		c.add(t, name, rows, first)
		t.Logf("%s: %d of %d logits have the live runtime's bits, greedy %v", name, c.same, c.all, tokens)
		if c.same != c.all || !slices.Equal(tokens, greedy) {
			t.Errorf("%s: %d of %d logits differ from the live runtime's; greedy %v, live %v", name, c.all-c.same, c.all, tokens, greedy)
		}
	}
}

// walk gives the logits of every position of ids, and n greedy tokens after them.
func walk(t *testing.T, e engine.Engine, ids []int32, n int) (rows []float32, tokens []int32, err error) {
	var end engine.State
	last := int32(-1)
	err = e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true, Path: engine.Path{Chunk: 1}, FinalState: &end}, func(p *engine.Position) error {
		rows, last = append(rows, p.Logits...), p.ID
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("forcing: %w", err)
	}
	tokens = []int32{last}
	err = e.Generate(t.Context(), engine.Prompt{IDs: []int32{last}}, engine.Options{MaxTokens: n - 1, State: &end}, func(tok *engine.Token) error {
		tokens = append(tokens, tok.ID)
		return nil
	})
	return rows, tokens, err
}
