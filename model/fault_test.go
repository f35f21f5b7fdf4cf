//go:build linux

package model

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/goldens"
)

// TestTruncatedWhileOpen: weights that shrink under the engine are an error that says so, on one thread and on several.
func TestTruncatedWhileOpen(t *testing.T) {
	for _, threads := range []int{1, 4} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(goldens.Root(), "tiny-dense-tied"))); err != nil {
			t.Fatal(err)
		}
		e, err := engine.Open(context.Background(), "cpu", engine.Spec{Model: dir, Mode: "fast", Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "model*.safetensors"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no weights in %s (%v)", dir, err)
		}
		for _, f := range files {
			if err := os.Truncate(f, 0); err != nil {
				t.Fatal(err)
			}
		}
		score := e.Score(context.Background(), []engine.Prompt{{IDs: []int32{1, 2, 3}}}, engine.Want{}, func(*engine.Position) error { return nil })
		gen := e.Generate(context.Background(), engine.Prompt{IDs: []int32{1}}, engine.Options{MaxTokens: 2}, func(*engine.Token) error { return nil })
		for what, err := range map[string]error{"Score": score, "Generate": gen} {
			if err == nil || !strings.Contains(err.Error(), "found a file of 0 bytes, want the ") {
				t.Errorf("%s on %d threads: %v", what, threads, err)
			}
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}
