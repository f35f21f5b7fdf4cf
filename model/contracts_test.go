package model

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/internal/kernels"
	"sibyl/precision"
	"sibyl/trace"
)

// writeContract puts a contract into a file and gives the subject part that names it.
func writeContract(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "contract:" + file
}

// testIDs fit every fixture's vocabulary.
var testIDs = engine.Prompt{IDs: []int32{5, 17, 40}}

// tapsUnder gives the logits, states and layer outs of a run.
func tapsUnder(t testing.TB, set, contract string) map[string][]float32 {
	t.Helper()
	return run1(t, openContract(t, set, contract, "stored", 1), testIDs, engine.Path{})
}

func sameTaps(a, b map[string][]float32) bool {
	return maps.EqualFunc(a, b, func(x, y []float32) bool {
		return slices.EqualFunc(x, y, func(v, w float32) bool { return math.Float32bits(v) == math.Float32bits(w) })
	})
}

// TestContractFileEqualsNamed: a file that says what a named contract says computes its bits, whether it says so for
// the whole model, for every module by a rule, or by the settings in which two contracts differ.
func TestContractFileEqualsNamed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"base", "name: x\nbase: coreai-fp16\n", "coreai-fp16"},
		{"rule-for-all", "name: x\nbase: coreai-fp16\nat: [{contract: hf-bf16}]\n", "hf-bf16"},
		{"rule-by-modules", "name: x\nbase: hf-fp32\nat: [{modules: [\"*norm\", head, mixer], contract: hf-bf16}, {layers: all, contract: hf-bf16}]\n", "hf-bf16"},
		{"settings", "name: x\nbase: coreai-eager\nset: {state: F32, core_out: F32, gated_normed: F32, gated_weight: F32}\n", "coreai-eager-s32o32"},
		{"settings-at", "name: x\nbase: coreai-eager\nat: [{modules: linear_attn, set: {softplus3: true}}]\n", "coreai-fp16"},
		{"own-arithmetic", "name: x\nbase: coreai-cpu\nat: [{layers: 1, contract: coreai-cpu}]\n", "coreai-cpu"},
	} {
		for _, set := range []string{"tiny-dense-gva", "tiny-moe"} {
			t.Run(tt.name+"/"+set, func(t *testing.T) {
				t.Parallel()
				if got, want := tapsUnder(t, set, writeContract(t, tt.text)), tapsUnder(t, set, tt.want); !sameTaps(got, want) {
					t.Errorf("other bits than %s under\n%s", tt.want, tt.text)
				}
			})
		}
	}
}

// TestStateInSomeLayers is the design's example: coreai-fp16, but fp32 state in some layers.
func TestStateInSomeLayers(t *testing.T) {
	t.Parallel()
	const set = "tiny-dense-tied"
	part := writeContract(t, "name: fp16-state32\nbase: coreai-fp16\nat:\n  - layers: 0-1\n    set: {state: F32}\n")
	e := openContract(t, set, part, "stored", 1)
	taps := run1(t, e, testIDs, engine.Path{})
	onGrid := func(x []float32) bool {
		return !slices.ContainsFunc(x, func(v float32) bool { return precision.F16.Value(v) != v })
	}
	for l := range e.d.Layers {
		if e.d.Layers[l].GDN == nil {
			continue
		}
		if got, want := onGrid(taps[trace.CacheRecurrentState.Name(l)]), l > 1; got != want {
			t.Errorf("layer %d: the state is fp16: %v, want %v", l, got, want)
		}
	}
	for _, other := range []string{"coreai-fp16", "coreai-eager-s32"} {
		if sameTaps(taps, tapsUnder(t, set, other)) {
			t.Errorf("the bits are those of %s", other)
		}
	}
	info := e.Info()
	if !strings.HasPrefix(info.Contract, "fp16-state32 (contract file, sha256 ") || info.Subject != filepath.Join(goldens.Root(), set)+"@cpu,"+part+",exact" {
		t.Errorf("Info says contract %q, subject %q", info.Contract, info.Subject)
	}
	if want := (engine.StateDTypes{Recurrent: "F32", Conv: "F16", KV: "F16"}); info.StateDTypes != want || info.LogitsDType != "F16" {
		t.Errorf("Info says states %+v, want %+v; logits %s", info.StateDTypes, want, info.LogitsDType)
	}
	cpu := openContract(t, set, "coreai-cpu", "stored", 1).Info()
	if cpu.Mode != "" || !strings.HasSuffix(cpu.Subject, "@cpu,coreai-cpu") {
		t.Errorf("coreai-cpu: mode %q, subject %q: there is no mode to choose", cpu.Mode, cpu.Subject)
	}
	head := openContract(t, set, writeContract(t, "name: x\nbase: coreai-fp16\nat: [{modules: head, set: {logits: F32}}]\n"), "stored", 1)
	if got := head.Info(); got.LogitsDType != "F32" || got.StateDTypes.Recurrent != "F16" {
		t.Errorf("a rule for the head: logits %s, states %+v", got.LogitsDType, got.StateDTypes)
	}
}

func TestContractFileRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, mode, delta, want string }{
		{"no-such-layer", "name: x\nbase: hf-fp32\nat: [{layers: 99, set: {norm: F16}}]\n", "", "", "at[0].layers: found \"99\", which this model does not have"},
		{"chunk", "name: x\nbase: hf-fp32\nat: [{layers: 1, set: {state: F16}}]\n", "", "chunk", "found chunk under x at[0]"},
		{"fast", "name: x\nbase: coreai-cpu\n", "fast", "", "want none: x is defined by its own order of roundings"},
		{"exact", "name: x\nbase: coreai-cpu\n", "exact", "", `mode: found "exact", want none`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, err := engine.Open(context.Background(), "cpu", engine.Spec{Contract: writeContract(t, tt.text), Mode: tt.mode, Delta: tt.delta})
			if err == nil {
				e.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// unseen are settings that cannot change a bit of a fixture: its weights are bfloat16 of a size that float16 holds too
// (A_log and the gated norm's gain, in float32, are not), and 1/16^0.5 is exact.
var unseen = map[string]bool{"weights": true, "embed": true, "tiny-moe q_divide": true}

// TestSettingsMatterWhereTheySay switches each setting alone in each part of the decoder: it changes bits where its
// Parts say, and nowhere else. So no rule of a file can be accepted and do nothing.
func TestSettingsMatterWhereTheySay(t *testing.T) {
	t.Parallel()
	bases := []string{"hf-fp32", "hf-bf16", "hf-bf16-sdpa", "coreai-fp16", "coreai-eager-sdpa16"}
	for _, set := range []string{"tiny-asym", "tiny-moe"} {
		ck, err := bundle.Open(filepath.Join(goldens.Root(), set))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ck.Close() })
		plain := map[string]map[string][]float32{}
		for _, base := range bases {
			plain[base] = tapsUnder(t, set, base)
		}
		mine, theirs := places(ck.Config())
		for part := precision.PartEmbed; part <= precision.PartHead; part <<= 1 {
			if !slices.ContainsFunc(theirs, func(p precision.Place) bool { return p.Part == part }) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", set, part), func(t *testing.T) {
				t.Parallel()
				var still []precision.Setting // should change nothing here: tried together
				run := func(base string, change ...precision.Setting) map[string][]float32 {
					c, err := precision.Lookup(base)
					if err != nil {
						t.Fatal(err)
					}
					other := *c
					for _, s := range change {
						s.Flip(&other)
					}
					plan := &Plan{Contract: c, Contracts: map[Place]*precision.Contract{}}
					for i, p := range theirs {
						if p.Part == part {
							plan.Contracts[mine[i]] = &other
						}
					}
					d, err := Bind(ck, plan)
					if err != nil {
						t.Fatal(err)
					}
					return run1(t, &Engine{d: d, src: ck, pool: kernels.NewPool(1), arith: kernels.Exact}, testIDs, engine.Path{})
				}
				for _, s := range precision.Settings() {
					if s.Parts&part == 0 {
						still = append(still, s)
						continue
					}
					if unseen[s.Name] || unseen[set+" "+s.Name] {
						continue
					}
					if !slices.ContainsFunc(bases, func(base string) bool { return !sameTaps(run(base, s), plain[base]) }) {
						t.Errorf("%s in %v changes no bit", s.Name, part)
					}
				}
				for _, base := range bases[:2] {
					if !sameTaps(run(base, still...), plain[base]) {
						t.Errorf("a setting that is not of %v changes bits there", part)
					}
				}
			})
		}
	}
}
