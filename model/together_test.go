package model

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"testing"

	"sibyl/engine"
)

// TestGenerateAll: prompts that go on together show the bits that each shows alone: in every arithmetic, of every stored form, on
// every path; with prompts that stop, that are forced, of one token, and more of them than go together.
func TestGenerateAll(t *testing.T) {
	t.Parallel()
	specs := []engine.Spec{{Mode: "exact"}, {Mode: "fast"}, {Mode: "fast", Contract: "coreai-fp16"}, {Mode: "fast", Contract: "hf-bf16"},
		{Mode: "fast", Scheme: "int8hu"}, {Mode: "fast", Scheme: "int4lin"}, {Mode: "fast", Contract: "coreai-fp16", Scheme: "int8hu-sym"},
		{Mode: "fast", Contract: "coreai-bf16", Scheme: "u4-minval"}, {Mode: "exact", Contract: "coreai-bf16"}, {Contract: "coreai-cpu"},
		{Mode: "noise:3", Contract: "coreai-fp16"}, {Mode: "fast", Delta: "chunk"}}
	for _, name := range []string{"", "tiny-asym", "tiny-dense-tied", "tiny-realdims", "tiny-moe"} {
		for i, spec := range specs {
			if testing.Short() && i%4 > 1 || spec.Contract == "coreai-cpu" && name != "tiny-asym" {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s,%s,%s", name, spec.Contract, spec.Mode, spec.Scheme), func(t *testing.T) {
				t.Parallel()
				spec := spec
				if spec.Threads = 1 + i%2; name != "" {
					spec.Model = filepath.Join("..", "testdata", "goldens", name)
				}
				generateAll(t, spec)
			})
		}
	}
}

func generateAll(t *testing.T, spec engine.Spec) {
	e, err := engine.Open(t.Context(), "cpu", spec)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	paths := []engine.Path{{}, {Chunk: 2, Last: true}}
	if testing.Short() {
		paths = paths[:1]
	}
	for _, path := range paths {
		opt := engine.Options{TopK: 5, Path: path}
		var all []engine.Continuation
		for i := range callSeqs + 3 {
			c := engine.Continuation{MaxTokens: 2 + i%3}
			for j := range 1 + 5*i%9 {
				c.Prompt.IDs = append(c.Prompt.IDs, int32((17*i+5*j*j)%90))
			}
			if i%3 == 1 {
				c.Force = []int32{int32(i), 80, 3, int32(2 * i)}
			}
			all = append(all, c)
		}
		by := func(c engine.Continuation) []engine.Token {
			o := opt
			o.MaxTokens, o.Force = c.MaxTokens, c.Force
			return tokensOf(t, func(each func(*engine.Token) error) error { return e.Generate(t.Context(), c.Prompt, o, each) })[0]
		}
		opt.Stop = []int32{by(all[2])[1].ID} // the third stops after its second token
		alone := make([][]engine.Token, len(all))
		for i, c := range all {
			alone[i] = by(c)
		}
		together := tokensOf(t, func(each func(*engine.Token) error) error {
			return e.(engine.Batcher).GenerateAll(t.Context(), all, opt, each)
		})
		for i := range all {
			if got, want := together[i], alone[i]; !reflect.DeepEqual(got, want) {
				t.Fatalf("path %s, prompt %d of %d: together %+v\nalone %+v", path, i, len(all), got, want)
			}
		}
	}
}

// tokensOf gives what is shown, by prompt, with Seq left out; a NaN would not be equal to itself.
func tokensOf(t *testing.T, run func(each func(*engine.Token) error) error) map[int][]engine.Token {
	t.Helper()
	out := map[int][]engine.Token{}
	err := run(func(tok *engine.Token) error {
		u, seq := *tok, tok.Seq
		if u.Seq = 0; u.LSE-u.LSE != 0 {
			u.LSE = math.MaxFloat64
		}
		out[seq] = append(out[seq], u)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestGenerateAllRefuses: what is wrong with one prompt is said of it, before any is run.
func TestGenerateAllRefuses(t *testing.T) {
	t.Parallel()
	e, err := engine.Open(t.Context(), "cpu", engine.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ok := engine.Continuation{Prompt: engine.Prompt{IDs: []int32{1, 2}}, MaxTokens: 2}
	for _, bad := range []engine.Continuation{{MaxTokens: 2}, {Prompt: engine.Prompt{IDs: []int32{99999}}, MaxTokens: 2}, {Prompt: ok.Prompt, Force: []int32{1, -1}},
		{Prompt: ok.Prompt, MaxTokens: 1 << 30}} {
		err := e.(engine.Batcher).GenerateAll(t.Context(), []engine.Continuation{ok, ok, bad}, engine.Options{}, func(*engine.Token) error {
			t.Error("a token was shown")
			return nil
		})
		if one, is := err.(*engine.PromptError); !is || one.Seq != 2 {
			t.Errorf("%v: %v, want an error of prompt 2", bad, err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	shown := 0
	err = e.(engine.Batcher).GenerateAll(ctx, []engine.Continuation{ok, ok, ok}, engine.Options{}, func(*engine.Token) error {
		shown++
		stop()
		return nil
	})
	if err != context.Canceled || shown > 3 {
		t.Errorf("stopped at its first token: %v after %d tokens", err, shown)
	}
}
