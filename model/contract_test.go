package model

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/precision"
	"sibyl/trace"
)

// digestSet is testdata/contracts/SET.json: the sha256 of every tensor of a bit golden.
type digestSet struct {
	Prompts map[string][]int32
	Tensors map[string]map[string]struct {
		DType  string
		Shape  []int
		SHA256 string
		IDs    []int32
	}
}

func loadDigests(t testing.TB, set string) *digestSet {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldens.Root(), "..", "contracts", set+".json"))
	if err != nil {
		t.Fatal(err)
	}
	d := new(digestSet)
	if err := json.Unmarshal(b, d); err != nil {
		t.Fatal(err)
	}
	return d
}

// sum16 is the sha256 of x as fp16 bytes; float32 tensors are hashed as they are.
func sum(x []float32, dtype string) string {
	h := sha256.New()
	b := make([]byte, 0, 4*len(x))
	for _, v := range x {
		if dtype == "F16" {
			b = binary.LittleEndian.AppendUint16(b, precision.F32ToF16(v))
		} else {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))
}

// zooTensors arranges a run's taps as the goldens name them: layer_out [L, T, H], caches stacked over the layers of a
// kind, conv state without its first column.
func zooTensors(d *Decoder, taps collect) map[string][]float32 {
	out := map[string][]float32{"logits": taps[trace.Logits.Name(0)]}
	for l := range d.Layers {
		out["layer_out"] = append(out["layer_out"], taps[trace.LayerOut.Name(l)]...)
		if d.Layers[l].Attention != nil {
			out["keyCache"] = append(out["keyCache"], taps[trace.CacheKey.Name(l)]...)
			out["valueCache"] = append(out["valueCache"], taps[trace.CacheValue.Name(l)]...)
			continue
		}
		out["recState"] = append(out["recState"], taps[trace.CacheRecurrentState.Name(l)]...)
		for cols := taps[trace.CacheConvState.Name(l)]; len(cols) > 0; cols = cols[4:] {
			out["convState"] = append(out["convState"], cols[1:4]...)
		}
	}
	return out
}

// TestCoreAIBits holds the Core AI contracts to the conversion code's and the graph's own bits, unquantized weights.
func TestCoreAIBits(t *testing.T) {
	t.Parallel()
	contracts := map[string]struct{ contract, infix string }{
		"graph.fp16": {"coreai-fp16", ""}, "zoo.fp16": {"coreai-eager", ""}, "zoo.fp16.state32": {"coreai-eager-s32", "state32."},
		"zoo.fp16.state_out32": {"coreai-eager-s32o32", "state_out32."}, "zoo.fp16.sdpa_ops16": {"coreai-eager-sdpa16", "sdpa_ops16."},
	}
	for _, set := range append(slices.Clone(goldens.Tiny), "opticks-2m") {
		dig := loadDigests(t, set)
		for _, key := range slices.Sorted(maps.Keys(contracts)) {
			file, _, _ := strings.Cut(key, ".")
			if dig.Tensors[file] == nil {
				continue
			}
			for _, path := range []engine.Path{{}, {Chunk: 1}} {
				t.Run(fmt.Sprintf("%s/%s/%v", set, key, path), func(t *testing.T) {
					t.Parallel()
					c := contracts[key]
					e := openContract(t, set, c.contract, 1+path.Chunk)
					compared := 0
					for prompt, ids := range dig.Prompts {
						if testing.Short() && len(ids) > 20 {
							continue
						}
						prefix := "fp16." + c.infix + prompt + "."
						got := zooTensors(e.d, run1(t, e, engine.Prompt{IDs: ids}, path))
						for name, x := range got {
							want, ok := dig.Tensors[file][prefix+name]
							if !ok {
								continue
							}
							compared++
							if have := sum(x, want.DType); have != want.SHA256 {
								t.Errorf("%s %s%s: other bits (sha256 %.12s, want %.12s; %d numbers, shape %v)", set, prefix, name, have, want.SHA256, len(x), want.Shape)
							}
						}
						if want, ok := dig.Tensors[file][prefix+"greedy.ids"]; ok && path.Chunk == 0 {
							compareGreedy(t, e, ids, want.IDs, prefix)
						}
					}
					if compared == 0 {
						t.Errorf("nothing was compared")
					}
				})
			}
		}
	}
}

func compareGreedy(t *testing.T, e *Engine, prompt, want []int32, what string) {
	t.Helper()
	var got []int32
	err := e.Generate(context.Background(), engine.Prompt{IDs: prompt}, engine.Options{MaxTokens: len(want)},
		func(tok *engine.Token) error { got = append(got, tok.ID); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s greedy ids %v, want %v", what, got, want)
	}
}

func openContract(t testing.TB, set, contract string, threads int) *Engine {
	t.Helper()
	model := ""
	if set != "opticks-2m" {
		model = filepath.Join(goldens.Root(), set)
	}
	e, err := engine.Open(context.Background(), "cpu", engine.Spec{Model: model, Contract: contract, Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e.(*Engine)
}

// TestCoreAICPU holds contract coreai-cpu to what Apple's own runtime for Linux computed from a bundle of the same
// weights: every bit of the logits and of all four states, and its 16 greedy ids.
func TestCoreAICPU(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(goldens.Root(), "..", "contracts", "runtime.json"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]struct {
		DType, SHA256 string
		IDs           []int32
	}{}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, sample := range []struct{ name, set string }{{"tiny-dense-tied-fp16", "tiny-dense-tied"}} {
		e := openContract(t, sample.set, "coreai-cpu", 2)
		for _, prompt := range []string{"p17", "p131_64"} {
			ids := all[sample.name][prompt+".input_ids"].IDs
			for name, x := range zooTensors(e.d, run1(t, e, engine.Prompt{IDs: ids}, engine.Path{})) {
				want, ok := all[sample.name][prompt+"."+name]
				if ok && sum(x, want.DType) != want.SHA256 {
					t.Errorf("%s %s.%s: other bits than Apple's runtime", sample.name, prompt, name)
				}
				if !ok && name != "layer_out" {
					t.Errorf("%s: no golden for %s", sample.name, name)
				}
			}
			compareGreedy(t, e, ids, all[sample.name][prompt+".greedy.ids"].IDs, prompt)
		}
	}
}
