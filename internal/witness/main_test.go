package main

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"sibyl/coreai"
	"sibyl/metal/gpu/gputest"
	"sibyl/oracle"
)

// TestTable: each engine that runs here answers for every token asked of it, and what it says is the oracle's or has a cause that is
// no defect. The whole table takes Apple's runtime minutes: docs/metal.md has what it gave.
func TestTable(t *testing.T) {
	for _, c := range []struct {
		engine          string
		prompts, tokens int
		need            func(*testing.T)
	}{
		{"cpu", 2, 6, func(*testing.T) {}},
		{"graph", 2, 6, func(*testing.T) {}},
		{"metal-cpu", 2, 6, func(t *testing.T) { gputest.CPU(t) }},
		{"coreai", 1, 2, needRuntime},
	} {
		t.Run(c.engine, func(t *testing.T) {
			c.need(t)
			if testing.Short() {
				c.prompts, c.tokens = 1, 3
			}
			rows, err := witness(t.Context(), []string{c.engine}, c.prompts, c.tokens)
			if err != nil {
				t.Fatal(err)
			}
			r := rows[0]
			if r.IDs != c.prompts*c.tokens || r.Same+len(r.Flips) != r.IDs || r.Verdicts[oracle.Identical] < r.Same {
				t.Errorf("%d ids, %d identical, %d others, verdicts %v; %d were asked for", r.IDs, r.Same, len(r.Flips), r.Verdicts, c.prompts*c.tokens)
			}
			if r.Result.Decision == oracle.Inconclusive || r.Verdicts[oracle.Defect] > 0 {
				t.Errorf("%s: %v, %v", r.Result.Decision, r.Result.Reasons, r.Verdicts)
			}
			if got := r.Result.Test.Engine; got != c.engine {
				t.Errorf("%s answered", got)
			}
		})
	}
}

func needRuntime(t *testing.T) {
	t.Helper()
	if r, err := coreai.Doctor(t.Context(), ""); err != nil || !r.Well() {
		t.Skipf("needs Apple's runtime: %+v %v", r.Checks, err)
	}
	if testing.Short() {
		t.Skip("steps of Apple's runtime, 0.2 s each")
	}
}

// TestRender: flips stand below the table with margin, verdict and cause.
func TestRender(t *testing.T) {
	t.Parallel()
	margin := 0.0078
	flip := oracle.Evidence{Part: oracle.Rollout, Prompt: 2, Pos: 40, Verdict: oracle.Near, Why: "REF's margin is below the floor", RefID: 7, TestID: 9, LogitGap: &margin}
	r := &oracle.GateResult{Decision: oracle.Pass, Positions: []oracle.Evidence{
		{Part: oracle.TeacherForced, Verdict: oracle.Near}, {Part: oracle.Rollout, Verdict: oracle.Identical}, flip},
		Verdicts: map[oracle.Verdict]int{oracle.Identical: 1, oracle.Near: 2}}
	r.Test.Contract, r.Ref.Contract = "coreai-fp16", "coreai-fp16"
	var b bytes.Buffer
	if err := render(&b, []row{count("graph", r)}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| graph | coreai-fp16 | cpu, coreai-fp16 | 2 | 1 | 1 NEAR | 1 IDENTICAL, 2 NEAR | PASS |\n",
		"- graph: prompt 3, position 40: 9 where 7 was held to, margin 0.0078, below the floor: NEAR, REF's margin is below the floor\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s\nhas no %s", b.String(), want)
		}
	}
}

// TestUnknownEngine is an error: a row is never left out.
func TestUnknownEngine(t *testing.T) {
	t.Parallel()
	if rows, err := witness(context.Background(), []string{"cpu", "no-such"}, 1, 1); err == nil || !strings.Contains(err.Error(), "no-such") {
		t.Errorf("%v, %v", rows, err)
	}
}

// TestDocument: docs/metal.md holds a row for each of the four engines, as render writes them, and all of the 768 tokens.
func TestDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/metal.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, engine := range []string{"cpu", "graph", "metal-cpu", "coreai"} {
		if !regexp.MustCompile(`(?m)^\| ` + engine + ` \| [^|]+ \| [^|]+ \| 768 \| \d+ \| `).Match(text) {
			t.Errorf("no row of %s with 768 ids", engine)
		}
	}
}
