//go:build cgo && gnustep

package metal_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/progrium/darwinkit/objc"

	"sibyl/engine"
	"sibyl/internal/goldens"
)

// fake sends a message to the class that steers the stand-in for Metal (metal/darwin/fakemetal).
func fake[T any](selector string, args ...any) (v T) {
	objc.WithAutoreleasePool(func() { v = objc.Call[T](objc.GetClass("FakeMetal"), objc.Sel(selector), args...) })
	return v
}

// bridged opens engine metal, of which nothing may be alive after Close, and no rule of Metal's broken.
func bridged(t *testing.T, spec engine.Spec) (e engine.Engine, done func()) {
	t.Helper()
	live := fake[int]("live")
	e, err := engine.Open(t.Context(), "metal", spec)
	if err != nil {
		t.Fatal(err)
	}
	return e, func() {
		t.Helper()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if n := fake[int]("live") - live; n != 0 {
			t.Errorf("%d objects of Metal are alive after Close", n)
		}
		if s := fake[string]("faults"); s != "" {
			t.Errorf("Metal's validation would say: %s", s)
		}
		fake[objc.Void]("reset")
	}
}

// TestBridgeGoldens: the whole engine through Objective-C messages has the bits of the CPU device, tap by tap, state by state and token by
// token: weights wrapped in place, prefill and steps, every kind of layer, two contracts, a scheme. The CPU device is held to the goldens themselves
// by TestGoldens, and engine metal once more by the conformance suite.
func TestBridgeGoldens(t *testing.T) {
	type part struct{ contract, scheme string }
	for _, set := range []string{"tiny-asym", "tiny-moe", "tiny-dense-gva", "edge-ties", "opticks-2m"} {
		for _, p := range []part{{"hf-fp32", ""}, {"coreai-fp16", "int8hu-sym"}} {
			t.Run(fmt.Sprintf("%s/%s", set, p.contract), func(t *testing.T) {
				g := goldens.Load(t, set, "golden")
				spec := engine.Spec{Model: g.Model, Contract: p.contract, Scheme: p.scheme, Threads: 2}
				test, done := bridged(t, spec)
				defer done()
				ref := open(t, "metal-cpu", spec)
				prompts, tensors, tokens := 0, 0, 0
				for _, name := range slices.Sorted(maps.Keys(g.Prompts())) {
					ids := g.Prompts()[name]
					if len(ids) > 70 || prompts == 3 {
						continue
					}
					prompts++
					got, want := collect{}, collect{}
					score(t, test, engine.Want{Taps: got}, ids)
					score(t, ref, engine.Want{Taps: want}, ids)
					if len(got) != len(want) {
						t.Errorf("%s: %d taps, want %d", name, len(got), len(want))
					}
					for tap, x := range want {
						tensors++
						sameBits(t, name+" "+tap, got[tap], x)
					}
					a, b := generated(t, test, ids), generated(t, ref, ids)
					for i := range b {
						tokens++
						if a[i].ID != b[i].ID {
							t.Errorf("%s: token %d is %d, want %d", name, i, a[i].ID, b[i].ID)
						}
						sameBits(t, fmt.Sprintf("%s: logits of token %d", name, i), a[i].Logits, b[i].Logits)
					}
				}
				if prompts == 0 || tensors == 0 {
					t.Fatal("nothing was compared")
				}
				t.Logf("%d prompts: %d tensors and %d tokens, every bit", prompts, tensors, tokens)
			})
		}
	}
}

// generated decodes 12 tokens.
func generated(t *testing.T, e engine.Engine, ids []int32) (out []engine.Token) {
	t.Helper()
	err := e.Generate(t.Context(), engine.Prompt{IDs: ids}, engine.Options{MaxTokens: 12, Logits: true}, func(tok *engine.Token) error {
		x := *tok
		x.Logits = slices.Clone(tok.Logits)
		out = append(out, x)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Errorf("%s[%d] = %v, want %v", what, i, got[i], want[i])
			return
		}
	}
}

// TestBridgeFailedCommand: a command that times out ends the call with Metal's reason, and the engine says of itself that it is of no
// more use.
func TestBridgeFailedCommand(t *testing.T) {
	g := goldens.Load(t, "tiny-asym", "golden")
	e, done := bridged(t, engine.Spec{Model: g.Model})
	defer done()
	run := func() error {
		return e.Score(t.Context(), []engine.Prompt{{IDs: g.Prompts()["p9"]}}, engine.Want{TopK: 1}, func(*engine.Position) error { return nil })
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}
	fake[objc.Void]("failCommit:code:", 2, 2)
	if err := run(); err == nil || !strings.Contains(err.Error(), "metal: a command buffer of ") || !strings.Contains(err.Error(), "Caused GPU Timeout Error") {
		t.Errorf("a timeout: %v", err)
	}
	for range 2 {
		if err := run(); err == nil || !strings.Contains(err.Error(), "in doubt since an earlier command failed") || !strings.Contains(err.Error(), "Caused GPU Timeout Error") {
			t.Errorf("after a timeout: %v", err)
		}
	}
}

// TestBridgeWorkingSet: more than recommendedMaxWorkingSetSize is refused before it is allocated, with both numbers: the weights when they
// are opened, the states and activations when they are asked for.
func TestBridgeWorkingSet(t *testing.T) {
	g := goldens.Load(t, "tiny-asym", "golden")
	spec := engine.Spec{Model: g.Model}
	live := fake[int]("live")
	fake[objc.Void]("setWorkingSet:", uint64(100_000))
	_, err := engine.Open(t.Context(), "metal", spec)
	if err == nil || !strings.Contains(err.Error(), "memory: found a need of ") || !strings.Contains(err.Error(), "want at most 100000 (recommendedMaxWorkingSetSize)") {
		t.Errorf("weights: %v", err)
	}
	if n := fake[int]("live") - live; n != 0 {
		t.Errorf("a refusal left %d objects of Metal", n)
	}
	fake[objc.Void]("reset")

	// From what the weights alone take up to what 400 tokens need: a call is refused or right, and a refused one leaves the engine as it was.
	refused, ran := 0, 0
	for limit := int64(1_400_000); limit < 4_000_000; limit += 200_000 {
		fake[objc.Void]("setWorkingSet:", uint64(limit))
		e, done := bridged(t, spec)
		run := func(n int) error {
			t.Helper()
			err := e.Score(t.Context(), []engine.Prompt{{IDs: slices.Repeat([]int32{7}, n)}}, engine.Want{TopK: 1}, func(*engine.Position) error { return nil })
			if err == nil {
				ran++
			} else if refused++; !strings.Contains(err.Error(), "memory: found a need of ") || !strings.Contains(err.Error(), fmt.Sprintf("want at most %d (recommendedMaxWorkingSetSize)", limit)) {
				t.Errorf("%d bytes, %d tokens: %v", limit, n, err)
			}
			return err
		}
		first := run(4)
		_ = run(400)
		if again := run(4); (again == nil) != (first == nil) {
			t.Errorf("%d bytes: a short prompt gives %v, and after a long one %v", limit, first, again)
		}
		done()
	}
	if t.Logf("%d calls ran, %d were refused", ran, refused); ran == 0 || refused == 0 {
		t.Error("one of the two was not tried")
	}
}
