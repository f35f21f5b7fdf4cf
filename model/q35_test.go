package model

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/precision"
	"sibyl/trace"
)

// q35Tensor is one tensor of a bit golden of Apple's own port.
type q35Tensor struct {
	DType, SHA256 string
	Shape         []int
	IDs           []int32
}

// readContracts reads a file of testdata/contracts.
func readContracts(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldens.Root(), "..", "contracts", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

// q35Sum is the sha256 of x as 2-byte values. A value that is not on the type's grid is a failure of its own: rounding it
// here would hide a rounding that is missing.
func q35Sum(t testing.TB, what string, x []float32, dtype string) string {
	t.Helper()
	grid, bits := precision.BF16, precision.F32ToBF16
	if dtype == "F16" {
		grid, bits = precision.F16, precision.F32ToF16
	}
	h := sha256.New()
	b := make([]byte, 0, 2*len(x))
	for i, v := range x {
		if v == v && grid.Value(v) != v {
			t.Fatalf("%s: value %d is %g, not a %s", what, i, v, dtype)
		}
		b = binary.LittleEndian.AppendUint16(b, bits(v))
	}
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))
}

// q35States arranges a state in the port's layouts: caches [layers, nKV, T, hd], convStates [layers, 4, channels],
// recurrentStates [layers, nV, dk, dv]; its dimension of 1 changes no bytes.
func q35States(c *config.Config, s *engine.State) map[string][]float32 {
	out := map[string][]float32{}
	add := func(name string, tap trace.Tap, l int) []float32 {
		x := s.Tensors[tap.Name(l)].Data
		out[name] = append(out[name], x...)
		return x
	}
	for l, kind := range c.Layers {
		if kind == config.FullAttention {
			add("keyCache", trace.CacheKey, l)
			add("valueCache", trace.CacheValue, l)
			continue
		}
		add("recurrentStates", trace.CacheRecurrentState, l)
		cols := s.Tensors[trace.CacheConvState.Name(l)].Data // [channels, 4]
		for j := range c.ConvKernel {
			for ch := range c.QKVDim() {
				out["convStates"] = append(out["convStates"], cols[ch*c.ConvKernel+j])
			}
		}
	}
	return out
}

// q35Run gives the logits of every position and the states after a prompt.
func q35Run(t testing.TB, e *Engine, ids []int32, path engine.Path) map[string][]float32 {
	t.Helper()
	var st engine.State
	var logits []float32
	err := e.Score(context.Background(), []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true, Path: path, FinalState: &st},
		func(p *engine.Position) error { logits = append(logits, p.Logits...); return nil })
	if err != nil {
		t.Fatal(err)
	}
	out := q35States(e.d.Config, &st)
	out["logits"] = logits
	return out
}

func q35Greedy(t testing.TB, e *Engine, prompt []int32, path engine.Path, want []int32, what string) {
	t.Helper()
	var got []int32
	err := e.Generate(context.Background(), engine.Prompt{IDs: prompt}, engine.Options{MaxTokens: len(want), Path: path},
		func(tok *engine.Token) error { got = append(got, tok.ID); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: greedy ids %v, want %v", what, got, want)
	}
}

// q35Hold compares what a run gave with the goldens under a prefix. Every golden there must be met.
func q35Hold(t testing.TB, got map[string][]float32, tensors map[string]q35Tensor, prefix string) (compared int) {
	t.Helper()
	for name, want := range tensors {
		tensor, ok := strings.CutPrefix(name, prefix)
		if !ok || want.DType == "I32" || strings.Contains(tensor, ".") {
			continue
		}
		x, ok := got[tensor]
		if !ok {
			t.Errorf("%s: nothing was computed for it", name)
			continue
		}
		compared++
		if have := q35Sum(t, name, x, want.DType); have != want.SHA256 {
			t.Errorf("%s: other bits (sha256 %.12s, want %.12s; %d numbers, shape %v)", name, have, want.SHA256, len(x), want.Shape)
		}
	}
	return compared
}

var q35Schemes = map[string]string{"u4": "u4-minval", "bf16": "stored"}

// TestCoreAIBF16 holds contract coreai-bf16 to its executable specification: every bit of the logits and of all four
// states, and greedy ids, where the tokens come one by one, all in one call, and in calls of 16.
func TestCoreAIBF16(t *testing.T) {
	t.Parallel()
	var file struct {
		Sets []struct {
			Set, Scheme string
			Prompts     map[string][]int32
			Tensors     map[string]q35Tensor
		}
	}
	readContracts(t, "q35-exact.json", &file)
	if len(file.Sets) < 8 {
		t.Fatalf("%d sets", len(file.Sets))
	}
	bundles := 0
	for _, s := range file.Sets {
		hold := func(e *Engine, way string, path engine.Path) func(t *testing.T) {
			return func(t *testing.T) {
				t.Parallel()
				compared := 0
				for prompt, ids := range s.Prompts {
					if testing.Short() && len(ids) > 20 && way != "chunk16" {
						continue
					}
					prefix := prompt + "." + way + "."
					compared += q35Hold(t, q35Run(t, e, ids, path), s.Tensors, prefix)
					q35Greedy(t, e, ids, path, s.Tensors[prefix+"greedy.ids"].IDs, prefix)
				}
				if compared < 5 {
					t.Errorf("only %d tensors were compared", compared)
				}
			}
		}
		name := s.Set + "/" + s.Scheme
		for way, path := range map[string]engine.Path{"decode": {Chunk: 1}, "whole": {}, "chunk16": {Chunk: 16}} {
			t.Run(name+"/"+way, hold(openContract(t, s.Set, "coreai-bf16", q35Schemes[s.Scheme], 2), way, path))
			if shipped, ok := q35Bundles[name]; ok {
				bundles++
				t.Run(name+"/"+way+"/bundle", hold(openQ35(t, shipped, "", "coreai-bf16"), way, path))
			}
		}
	}
	if bundles != 3*len(q35Bundles) {
		t.Errorf("%d of the bundles' runs have goldens", bundles)
	}
}

// q35Bundles are the samples exported from a set in a scheme.
var q35Bundles = map[string]string{"tiny-dense-gva/u4": "tiny-dense-gva-apple-q35", "tiny-dense-gva/bf16": "tiny-dense-gva-apple-q35-bf16",
	"tiny-moe/u4": "tiny-moe-apple-q35", "opticks-2m/u4": "opticks-2m-apple-q35"}

// openQ35 opens a bundle alone, without its checkpoint, under a contract as a person names it, and demands what that
// means on this profile.
func openQ35(t *testing.T, name, contract, means string) *Engine {
	t.Helper()
	e := openSpec(t, engine.Spec{Model: shippedPath(t, name), Contract: contract, Threads: 2})
	if i := e.Info(); i.Contract != means || !i.CallsMatter || i.LogitsDType != "BF16" {
		t.Errorf("%s@%s is %s, calls matter %v, logits %s; want %s, true, BF16", name, contract, i.Contract, i.CallsMatter, i.LogitsDType, means)
	}
	return e
}

// TestCoreAICPUBF16 holds contract coreai-cpu-bf16 to what Apple's own runtime for Linux computed from bundles of the same
// weights, on each of the ways they were run: token by token; all in one call; and as Apple's runner does, all but the
// last token in one call of the function without a head, the last in one of its own.
func TestCoreAICPUBF16(t *testing.T) {
	t.Parallel()
	all := map[string]map[string]q35Tensor{}
	readContracts(t, "runtime.json", &all)
	for _, sample := range []struct{ name, set, scheme string }{
		{"tiny-dense-gva-apple-q35", "tiny-dense-gva", "u4-minval"},
		{"tiny-dense-gva-apple-q35-bf16", "tiny-dense-gva", "stored"},
		{"tiny-moe-apple-q35", "tiny-moe", "u4-minval"},
		{"opticks-2m-apple-q35", "opticks-2m", "u4-minval"},
	} {
		for _, from := range []string{"checkpoint", "bundle"} {
			t.Run(sample.name+"/"+from, func(t *testing.T) {
				t.Parallel()
				var e *Engine
				if from == "bundle" { // its graph says which of the runtime's contracts is meant
					e = openQ35(t, sample.name, "coreai-cpu", "coreai-cpu-bf16")
				} else {
					e = openContract(t, sample.set, "coreai-cpu-bf16", sample.scheme, 2)
				}
				tensors, compared := all[sample.name], 0
				for name, x := range tensors {
					prompt, ok := strings.CutSuffix(name, ".input_ids")
					if !ok || testing.Short() && len(x.IDs) > 20 {
						continue
					}
					compared += q35Runtime(t, e, tensors, prompt, x.IDs)
				}
				if compared < 9 {
					t.Errorf("only %d tensors were compared", compared)
				}
			})
		}
	}
}

// q35Runtime holds one prompt of a runtime's recording.
func q35Runtime(t *testing.T, e *Engine, tensors map[string]q35Tensor, prompt string, ids []int32) (compared int) {
	t.Helper()
	compared += q35Hold(t, q35Run(t, e, ids, engine.Path{Chunk: 1}), tensors, prompt+".decode.")
	q35Greedy(t, e, ids, engine.Path{Chunk: 1}, tensors[prompt+".decode.greedy.ids"].IDs, prompt+".decode")
	compared += q35Hold(t, q35Run(t, e, ids, engine.Path{}), tensors, prompt+".main_whole.")

	runner := engine.Path{Last: true}
	before := q35Run(t, e, ids[:len(ids)-1], engine.Path{}) // prefill's states are those before the last token
	logits := q35Run(t, e, ids, runner)["logits"]
	before["logits_last"] = logits[len(logits)-e.d.Config.VocabSize:]
	compared += q35Hold(t, before, tensors, prompt+".prefill.")
	q35Greedy(t, e, ids, runner, tensors[prompt+".prefill.greedy.ids"].IDs, prompt+".prefill")
	return compared
}
