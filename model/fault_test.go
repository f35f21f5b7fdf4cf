//go:build linux

package model

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sibyl/config"
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

// TestDiskError: pages that cannot be had, as those of a disk with an error, in the middle of a pass, are an error that names
// the file and the place, streamed or not, on one thread and on several, fast and exact; the engine closes.
func TestDiskError(t *testing.T) {
	for _, mode := range []string{"exact", "fast"} {
		for _, threads := range []int{1, 4} {
			for _, stream := range []bool{false, true} {
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS(filepath.Join(goldens.Root(), "tiny-dense-tied"))); err != nil {
					t.Fatal(err)
				}
				e := openSpec(t, engine.Spec{Model: dir, Mode: mode, Threads: threads, Stream: stream})
				down, err := e.src.Tensor(config.DownProj, 5)
				if err != nil {
					t.Fatal(err)
				}
				page := uintptr(os.Getpagesize())
				lost := down.Data[-uintptr(unsafe.Pointer(&down.Data[0]))%page:][:4*page] // whole pages of it
				if err := unix.Mprotect(lost, unix.PROT_NONE); err != nil {
					t.Fatal(err)
				}
				last := ""
				err = e.Score(t.Context(), []engine.Prompt{{IDs: []int32{1, 2, 3}}}, engine.Want{Taps: heard{&last}}, func(*engine.Position) error { return nil })
				if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "model.safetensors")+": byte ") ||
					!strings.Contains(err.Error(), "found no data where the file was mapped, want the ") || !strings.Contains(err.Error(), "see whether its disk fails, and run again") {
					t.Errorf("%s, %d threads, stream %v: %v", mode, threads, stream, err)
				}
				if last != "layer5.post_attn_norm" {
					t.Errorf("%s, %d threads, stream %v: the last tap before the error was %s", mode, threads, stream, last)
				}
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// heard keeps the name of the last tap of a layer's sums.
type heard struct{ last *string }

func (h heard) Wants(name string) bool { return strings.HasSuffix(name, "post_attn_norm") }

func (h heard) Put(name string, _, _, _ int, _ []float32) error { *h.last = name; return nil }
