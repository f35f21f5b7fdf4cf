package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sibyl/coreai"
	"sibyl/oracle"
)

// TestGateCoreAI: the demo model against its shipped bundle in Apple's own runtime: the gate runs, and every flip has a
// cause: the runtime's rounding, the weights', or both. E is TEST's own contract, on the checkpoint's weights.
func TestGateCoreAI(t *testing.T) {
	if r, err := coreai.Doctor(t.Context(), ""); err != nil || !r.Well() {
		t.Skipf("needs Apple's runtime: %+v %v", r.Checks, err)
	}
	if testing.Short() {
		t.Skip("two hundred steps of Apple's runtime, 0.2 s each")
	}
	bundle := filepath.Join("..", "..", "testdata", "bundles", "opticks-2m-int8hu-sym") + "@coreai"
	start := time.Now()
	var out, errs bytes.Buffer
	// A process of its own: what this one once held in memory counts in the peak of every process it starts later.
	cmd := exec.Command("sibyl", "gate", "@hf-fp32", bundle, "--max-tokens", "6", "--json")
	cmd.Stdout, cmd.Stderr = &out, &errs
	code := exitOK
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		code = cmd.ProcessState.ExitCode()
	}
	took := time.Since(start)
	var r oracle.GateResult
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("exit %d: %v\n%s%s", code, err, out.String(), errs.String())
	}
	t.Logf("exit %d in %.0f s: %s; verdicts %v", code, took.Seconds(), r.Sentence, r.Verdicts)
	if (code != exitOK && code != exitMismatch) || r.Verdicts[oracle.Defect] > 0 {
		t.Errorf("exit %d, verdicts %v", code, r.Verdicts)
	}
	for label, want := range map[string]bool{"E coreai-cpu, int8hu-sym": true, "E coreai-fp16, int8hu-sym": true, "Q hf-fp32, int8hu-sym": true, "C coreai-cpu": true} {
		found := false
		for _, c := range r.Controls {
			found = found || c.Label == label
		}
		if found != want {
			t.Errorf("no control %s among %+v", label, r.Controls)
		}
	}
}
