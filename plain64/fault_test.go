//go:build linux

package plain64

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"sibyl/engine"
)

// TestTruncatedWhileOpen: weights that shrink under the engine are an error that says so.
func TestTruncatedWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(checkpointOf("tiny-dense-tied"))); err != nil {
		t.Fatal(err)
	}
	e, err := driver{}.Open(t.Context(), engine.Spec{Model: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := os.Truncate(dir+"/model.safetensors", 0); err != nil {
		t.Fatal(err)
	}
	err = e.Score(t.Context(), []engine.Prompt{{IDs: []int32{1, 2}}}, engine.Want{}, func(*engine.Position) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "model.safetensors: byte ") || !strings.Contains(err.Error(), "found a file of 0 bytes, want the ") {
		t.Errorf("Score: %v", err)
	}
}

// TestWrittenWhileOpen: weights that somebody wrote to meanwhile are an error, though nothing faults.
func TestWrittenWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(checkpointOf("tiny-dense-tied"))); err != nil {
		t.Fatal(err)
	}
	e, err := driver{}.Open(t.Context(), engine.Spec{Model: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(dir+"/model.safetensors", later, later); err != nil { // what writing does
		t.Fatal(err)
	}
	prompt := engine.Prompt{IDs: []int32{1, 2}}
	for what, err := range map[string]error{
		"Score":    e.Score(t.Context(), []engine.Prompt{prompt}, engine.Want{}, func(*engine.Position) error { return nil }),
		"Generate": e.Generate(t.Context(), prompt, engine.Options{MaxTokens: 1}, func(*engine.Token) error { return nil }),
	} {
		if err == nil || !strings.Contains(err.Error(), "another program writes to it") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestStopsInsideAProduct: a context that ends while a matrix is multiplied ends the pass, and what is left of the product
// is not made.
func TestStopsInsideAProduct(t *testing.T) {
	t.Parallel()
	e := open(t, "tiny-dense-tied")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e.d.run.ctx = ctx
	x := make([]float64, e.d.head.cols)
	x[0] = 1
	for i, v := range e.d.head.mul(x) {
		if v != 0 {
			t.Fatalf("element %d of a product after the end of the context is %v", i, v)
		}
	}
	end := tapped{at: "layer7.mlp_out", f: func() {}}
	ctx, end.f = context.WithCancel(t.Context())
	err := e.Score(ctx, []engine.Prompt{{IDs: []int32{1, 2}}}, engine.Want{Taps: end}, func(*engine.Position) error {
		t.Error("a position was shown")
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ended in the last layer: %v", err)
	}
}

// tapped calls f when a tap is put.
type tapped struct {
	at string
	f  func()
}

func (s tapped) Wants(name string) bool { return name == s.at }

func (s tapped) Put(string, int, int, int, []float32) error { s.f(); return nil }
