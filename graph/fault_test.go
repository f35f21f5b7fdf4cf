//go:build linux

package graph

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sibyl/bundle/aicode"
	"sibyl/engine"
	"sibyl/internal/kernels"
)

// TestTruncatedWhileOpen: a program that shrinks under the engine is an error that says so.
func TestTruncatedWhileOpen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "x.aimodel")
	if err := os.CopyFS(dir, os.DirFS("../testdata/bundles/tiny-dense-tied-fp16/tiny-dense-tied-fp16.aimodel")); err != nil {
		t.Fatal(err)
	}
	e := open(t, dir, "")
	if err := os.Truncate(filepath.Join(dir, "main.mlirb"), 4096); err != nil {
		t.Fatal(err)
	}
	err := e.Score(t.Context(), []engine.Prompt{{IDs: []int32{1, 2}}}, engine.Want{}, func(*engine.Position) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "main.mlirb: byte ") || !strings.Contains(err.Error(), "found a file of 4096 bytes, want the ") {
		t.Errorf("Score: %v", err)
	}
}

// TestWrittenWhileOpen: a program that somebody wrote to meanwhile is an error, though nothing faults.
func TestWrittenWhileOpen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "x.aimodel")
	if err := os.CopyFS(dir, os.DirFS("../testdata/bundles/tiny-dense-tied-fp16/tiny-dense-tied-fp16.aimodel")); err != nil {
		t.Fatal(err)
	}
	e := open(t, dir, "")
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "main.mlirb"), later, later); err != nil { // what writing does
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

// TestStopsInsideAnOperation: a context that ends while an operation is at work ends it there.
func TestStopsInsideAnOperation(t *testing.T) {
	t.Parallel()
	e := open(t, "../testdata/bundles/tiny-dense-tied-fp16/tiny-dense-tied-fp16.aimodel", "")
	ctx, cancel := context.WithCancel(t.Context())
	own := *e.m.arith
	products, matMul := 0, own.MatMul
	own.MatMul = func(p *kernels.Pool, out, x []float32, rows int, w *kernels.Matrix, kind aicode.Kind, spread bool) {
		if products++; products == 3 {
			cancel()
		}
		matMul(p, out, x, rows, w, kind, spread)
		if products >= 3 {
			t.Errorf("product %d was made after the end of the context", products)
		}
	}
	e.m.arith = &own
	err := e.Score(ctx, []engine.Prompt{{IDs: []int32{1, 2}}}, engine.Want{}, func(*engine.Position) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Score: %v", err)
	}
}
