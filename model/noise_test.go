package model

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/goldens"
)

// TestNoisyMode: a noisy mode is one engine, whose bits depend neither on threads nor on the path; another seed is another,
// and none is far from the exact one.
func TestNoisyMode(t *testing.T) {
	t.Parallel()
	ids := []int32{5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7}
	logits := func(mode string, threads, chunk int) map[engine.Candidate]bool {
		e, err := engine.Open(context.Background(), "cpu", engine.Spec{Model: filepath.Join(goldens.Root(), "tiny-moe"), Contract: "coreai-fp16", Mode: mode, Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if info := e.Info(); info.Mode != mode || !strings.HasSuffix(info.Subject, "@cpu,coreai-fp16,"+mode) {
			t.Errorf("the engine is %q of mode %q, want %s", info.Subject, info.Mode, mode)
		}
		out := map[engine.Candidate]bool{}
		err = e.Score(context.Background(), []engine.Prompt{{IDs: ids}}, engine.Want{TopK: 8, Path: engine.Path{Chunk: chunk}}, func(p *engine.Position) error {
			for _, c := range p.Top {
				out[engine.Candidate{ID: int32(p.Pos)<<16 | c.ID, Logit: c.Logit}] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	one := logits("noise:1", 1, 0)
	for name, other := range map[string]map[engine.Candidate]bool{"two threads": logits("noise:1", 2, 0), "steps": logits("noise:1", 1, 1), "chunks": logits("noise:1", 2, 5)} {
		if !maps.Equal(one, other) {
			t.Errorf("%s change the bits of noise:1", name)
		}
	}
	for _, mode := range []string{"noise:2", "exact"} {
		if maps.Equal(one, logits(mode, 1, 0)) {
			t.Errorf("%s has the bits of noise:1", mode)
		}
	}
}

// TestNoisyModeRefused: a seed that is none, and contracts that are not one grid.
func TestNoisyModeRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "mixed.yaml")
	if err := os.WriteFile(file, []byte("name: mixed\nbase: coreai-fp16\nat:\n  - layers: \"0\"\n    contract: hf-fp32\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []engine.Spec{
		{Mode: "noise:"}, {Mode: "noise:-1"}, {Mode: "noise:01"}, {Mode: "noise:1000000"}, {Mode: "noise:x"}, {Mode: "noise"},
		{Mode: "noise:1", Contract: "contract:" + file}, {Mode: "noise:1", Contract: "coreai-cpu"},
	} {
		_, err := engine.Open(context.Background(), "cpu", spec)
		if err == nil || !slices.ContainsFunc([]string{"mode: found", "want exact, fast, or noise: and a seed", "its own order of roundings"}, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			t.Errorf("Open(%+v) = %v, want the mode refused", spec, err)
		}
	}
}
