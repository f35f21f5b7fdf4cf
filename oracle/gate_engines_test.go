package oracle_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sibyl/engine"
	_ "sibyl/model"
	"sibyl/oracle"
	_ "sibyl/plain64"
)

// opticksPrompts are the golden prompts of the demo model: ids, and the greedy ids Hugging Face gave in fp32.
func opticksPrompts(t *testing.T) (prompts []oracle.Prompt, greedy [][]int32, texts map[string]bool) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "testdata", "goldens", "opticks-2m", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Results struct {
			Greedy []struct {
				Prompt string
				IDs    []int32
				Greedy []int32
			}
		}
	}
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	texts = map[string]bool{}
	for i, p := range g.Results.Greedy {
		prompts = append(prompts, oracle.Prompt{Name: fmt.Sprint("g", i), Text: p.Prompt, IDs: p.IDs})
		greedy = append(greedy, p.Greedy)
		texts[p.Prompt] = true
	}
	return prompts, greedy, texts
}

func openEngine(t *testing.T, name string, spec engine.Spec) engine.Engine {
	t.Helper()
	e, err := engine.Open(t.Context(), name, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// TestGateOfTheDemo is the project's main job: fp64 against fast on the embedded model. Every position that
// qualifies agrees, REF's continuation is Hugging Face's, and the exact engine beside it measures REF's noise.
func TestGateOfTheDemo(t *testing.T) {
	t.Parallel()
	prompts, greedy, texts := opticksPrompts(t)
	for _, p := range oracle.DemoPrompts() {
		if !texts[p.Text] {
			t.Errorf("demo prompt %q has no recorded continuation", p.Name)
		}
	}
	ref := openEngine(t, "fp64", engine.Spec{})
	test := openEngine(t, "cpu", engine.Spec{Mode: "fast"})
	noise := openEngine(t, "cpu", engine.Spec{Mode: "exact"})
	p := oracle.DefaultProtocol()
	r, err := oracle.Gate(t.Context(), oracle.Setup{Ref: ref, Test: test, Prompts: prompts[:3],
		Controls: []oracle.Control{{Kind: oracle.ControlNoise, Label: "fp32", Engine: noise}}}, p)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := r.Render(&b, nil); err != nil {
		t.Fatal(err)
	}
	t.Log(b.String())
	if r.Decision != oracle.Pass || r.Headline != "SHIP" {
		t.Errorf("%s", r.Headline)
	}
	for _, part := range r.Parts {
		if part.Status != oracle.PartRan || part.Confident != 0 {
			t.Errorf("part %+v", part)
		}
	}
	for i, q := range r.Prompts {
		if fmt.Sprint(q.RefIDs) != fmt.Sprint(greedy[i][:p.MaxTokens]) {
			t.Errorf("prompt %s: REF continues %v, Hugging Face %v", q.Name, q.RefIDs, greedy[i][:p.MaxTokens])
		}
	}
	if !strings.HasPrefix(r.Sentence, "the demo model (@cpu,hf-fp32,fast) chooses the same greedy token as the demo model (@fp64): ") {
		t.Errorf("the sentence for a model card is %q", r.Sentence)
	}
	// Hugging Face's fp32 logits are 8e-6 (largest) from its fp64 ones on this model; ours must be of that kind.
	if rms := r.Noise.LogitRMS; rms == nil || *rms <= 0 || *rms > 1e-5 {
		t.Errorf("REF's fp32-to-fp64 noise is %+v, want an rms between 0 and 1e-5", r.Noise)
	}
}

// TestGateCatchesAnotherModel: the same prompts on a model whose layers are another's do not pass.
func TestGateCatchesAnotherModel(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "testdata", "goldens")
	ref := openEngine(t, "fp64", engine.Spec{Model: filepath.Join(dir, "edge-decay")})
	test := openEngine(t, "cpu", engine.Spec{Model: filepath.Join(dir, "edge-cancel"), Mode: "fast"})
	p := oracle.DefaultProtocol()
	p.MaxTokens = 4
	r, err := oracle.Gate(t.Context(), oracle.Setup{Ref: ref, Test: test, Prompts: []oracle.Prompt{{IDs: []int32{4, 5, 84, 85, 10, 90}}}}, p)
	if err != nil {
		t.Fatal(err)
	}
	if r.ExitCode() != 1 || !strings.HasPrefix(r.Headline, "DO NOT SHIP: ") || r.Verdicts[oracle.Defect] == 0 {
		t.Errorf("%s, exit %d, %v; want a refusal with defects", r.Headline, r.ExitCode(), r.Verdicts)
	}
}

// TestGateStreamedSubjects: REF, TEST and all controls that go through the layers together give, position by position, the
// evidence that each gives alone in memory.
func TestGateStreamedSubjects(t *testing.T) {
	t.Parallel()
	prompts, _, _ := opticksPrompts(t)
	side := oracle.Side{Engine: "cpu", Contract: "hf-bf16", Scheme: "int4lin", Mode: "exact"}
	run := func(stream bool) (*oracle.GateResult, string) {
		specs, err := oracle.Controls(oracle.Side{Engine: "cpu"}, side)
		if err != nil {
			t.Fatal(err)
		}
		s := oracle.Setup{Prompts: prompts[:4], Ref: openEngine(t, "cpu", engine.Spec{Mode: "exact", Threads: 2, Stream: stream}),
			Test: openEngine(t, "cpu", engine.Spec{Mode: "exact", Contract: side.Contract, Scheme: side.Scheme, Threads: 2, Stream: stream})}
		for _, c := range specs {
			if c.Same == "" {
				spec := c.Spec
				spec.Threads, spec.Stream = 2, stream
				c.Open = func(ctx context.Context) (engine.Engine, error) { return engine.Open(ctx, "cpu", spec) }
			}
			s.Controls = append(s.Controls, c.Control)
		}
		p := oracle.DefaultProtocol()
		p.MaxTokens = 3
		r, err := oracle.Gate(t.Context(), s, p)
		if err != nil {
			t.Fatal(err)
		}
		var of []oracle.Evidence
		for _, e := range r.Positions {
			if e.Part == oracle.TeacherForced {
				of = append(of, e)
			}
		}
		text, err := json.MarshalIndent(map[string]any{"positions": of, "metrics": r.Metrics, "prompts": r.Prompts[0].RefIDs}, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return r, string(text)
	}
	plain, want := run(false)
	if flips := len(plain.ConfidentFlips()); flips == 0 {
		t.Error("no flip: the controls have nothing to explain")
	}
	_, got := run(true)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-plain +streamed):\n%s", d)
	}
}
