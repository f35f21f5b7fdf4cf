package model

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/safetensors"
)

// TestShippedRuntime: the CPU engine on a bundle's own bits under coreai-cpu is Apple's CPU runtime on that bundle: every
// bit of the logits it recorded, token by token and in one call, and 16 greedy tokens.
func TestShippedRuntime(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(shippedDir, "*", "runtime.safetensors"))
	if err != nil || len(files) != 9 {
		t.Fatalf("found %d recordings (%v), want 9", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && name != "tiny-dense-tied-int4lin" && name != "tiny-dense-gva-apple-q35-bf16" {
				t.Skip("one bundle of each profile is enough for -short: this arithmetic is slow")
			}
			f, err := safetensors.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			e, err := driver{}.Open(context.Background(), engine.Spec{Model: shippedPath(t, name), Contract: "coreai-cpu"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = e.Close() }()
			checked := 0
			for _, ids := range f.Tensors() {
				prompt, ok := strings.CutSuffix(ids.Name, ".input_ids")
				if !ok || testing.Short() && ids.Shape[0] > 20 {
					continue
				}
				checked++
				againstRuntime(t, e, f, prompt)
			}
			if checked == 0 {
				t.Error("no prompt was compared")
			}
		})
	}
}

// againstRuntime compares one prompt's recordings.
func againstRuntime(t *testing.T, e engine.Engine, f *safetensors.File, prompt string) {
	t.Helper()
	ids, _ := f.Tensor(prompt + ".input_ids")
	p := engine.Prompt{IDs: int32s(ids)}
	decode := prompt
	if _, ok := f.Tensor(prompt + ".decode.logits"); ok {
		decode += ".decode"
	}
	for tensor, path := range map[string]engine.Path{decode + ".logits": {Chunk: 1}, prompt + ".main_whole.logits": {}} {
		want, ok := f.Tensor(tensor)
		if !ok {
			continue // zoo-s1 takes one token a call
		}
		logits := f16s(want)
		err := e.Score(context.Background(), []engine.Prompt{p}, engine.Want{Logits: true, Path: path}, func(pos *engine.Position) error {
			for j, x := range pos.Logits {
				if w := logits[pos.Pos*len(pos.Logits)+j]; x != w {
					t.Errorf("%s: logit %d at position %d is %v, the runtime's %v", tensor, j, pos.Pos, x, w)
					break
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want, ok := f.Tensor(decode + ".greedy.ids")
	if !ok {
		t.Fatalf("no %s.greedy.ids", decode)
	}
	var got []int32
	err := e.Generate(context.Background(), p, engine.Options{MaxTokens: len(want.Data) / 4, Path: engine.Path{Chunk: 1}}, func(tok *engine.Token) error {
		got = append(got, tok.ID)
		return nil
	})
	if err != nil || !slices.Equal(got, int32s(want)) {
		t.Errorf("%s: greedy ids %v (%v), the runtime's %v", prompt, got, err, int32s(want))
	}
}

func int32s(t safetensors.Tensor) (out []int32) {
	for b := t.Data; len(b) >= 4; b = b[4:] {
		out = append(out, int32(b[0])|int32(b[1])<<8|int32(b[2])<<16|int32(b[3])<<24)
	}
	return out
}

func f16s(t safetensors.Tensor) []float32 {
	return bundle.Tensor{Name: t.Name, DType: t.DType, Shape: t.Shape, Data: t.Data}.Float32s(nil)
}
