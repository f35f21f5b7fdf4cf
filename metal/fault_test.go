package metal_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sibyl/engine"
	"sibyl/internal/goldens"
)

// TestChangedWhileOpen: weights that were cut are an error before a kernel reads them, and so are those that somebody wrote to.
func TestChangedWhileOpen(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(path string) error{
		"has 0 now": func(path string) error { return os.Truncate(path, 0) },
		"another program writes to it": func(path string) error {
			later := time.Now().Add(time.Hour)
			return os.Chtimes(path, later, later)
		},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(goldens.Root()+"/tiny-asym")); err != nil {
			t.Fatal(err)
		}
		e := open(t, "metal-cpu", engine.Spec{Model: dir})
		if err := change(filepath.Join(dir, "model.safetensors")); err != nil {
			t.Fatal(err)
		}
		prompt := engine.Prompt{IDs: []int32{1, 2}}
		for verb, err := range map[string]error{
			"Score":    e.Score(t.Context(), []engine.Prompt{prompt}, engine.Want{}, func(*engine.Position) error { return nil }),
			"Generate": e.Generate(t.Context(), prompt, engine.Options{MaxTokens: 1}, func(*engine.Token) error { return nil }),
		} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", verb, err, want)
			}
		}
	}
}
