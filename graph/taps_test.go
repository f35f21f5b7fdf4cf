package graph_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/engine"
	_ "sibyl/graph"
	_ "sibyl/model"
	"sibyl/trace"
)

// pairs are bundles beside the checkpoint and the scheme they were made of.
var pairs = []struct{ bundle, checkpoint, scheme, contract string }{
	{"tiny-dense-tied-fp16", "tiny-dense-tied", "", "coreai-fp16"},
	{"tiny-dense-tied-int4lin", "tiny-dense-tied", "int4lin", "coreai-fp16"},
	{"tiny-dense-tied-int8lin-debuginfo", "tiny-dense-tied", "int8lin", "coreai-fp16"},
	{"tiny-moe-int8hu-sym", "tiny-moe", "int8hu-sym", "coreai-fp16"},
	{"opticks-2m-int8hu-sym", "", "int8hu-sym", "coreai-fp16"},
	{"tiny-dense-gva-apple-q35", "tiny-dense-gva", "u4-minval", "coreai-bf16"},
	{"tiny-dense-gva-apple-q35-bf16", "tiny-dense-gva", "", "coreai-bf16"},
	{"tiny-moe-apple-q35", "tiny-moe", "u4-minval", "coreai-bf16"},
}

func aimodel(t testing.TB, name string) string {
	t.Helper()
	m, err := filepath.Glob("../testdata/bundles/" + name + "/*.aimodel")
	if err != nil || len(m) != 1 {
		t.Fatal(name, m, err)
	}
	return m[0]
}

// checkpoint is a golden's folder; "" is the embedded model, which is opticks-2m.
func checkpoint(name string) string {
	if name == "" {
		return ""
	}
	return "../testdata/goldens/" + name
}

func configOf(t testing.TB, name string) *config.Config {
	t.Helper()
	ck, err := bundle.Open(checkpoint(name))
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	return ck.Config()
}

func opened(t testing.TB, name string, spec engine.Spec) engine.Engine {
	t.Helper()
	spec.Threads = 1
	e, err := engine.Open(t.Context(), name, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func recorded(t testing.TB, e engine.Engine, c *config.Config, ids []int32, path engine.Path) *trace.Recorder {
	t.Helper()
	rec := trace.NewRecorder("test", c, nil, ids)
	err := e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, engine.Want{Taps: rec, Path: path, From: math.MaxInt}, func(*engine.Position) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rec.Sequence(0); err != nil { // every row once, in the right shape
		t.Fatal(err)
	}
	return rec
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// TestTapsEqualCPU: every tap of the CPU engine under the profile's contract is there, with the same bits.
func TestTapsEqualCPU(t *testing.T) {
	t.Parallel()
	ids := []int32{15, 320, 99, 241, 383, 47}
	for _, p := range pairs {
		t.Run(p.bundle, func(t *testing.T) {
			t.Parallel()
			cfg := configOf(t, p.checkpoint)
			cpu := opened(t, "cpu", engine.Spec{Model: checkpoint(p.checkpoint), Contract: p.contract, Scheme: p.scheme})
			graph := opened(t, "graph", engine.Spec{Model: aimodel(t, p.bundle)})
			for _, path := range []engine.Path{{Chunk: 1}, {}, {Chunk: 4}} {
				want, got := recorded(t, cpu, cfg, ids, path), recorded(t, graph, cfg, ids, path)
				for _, e := range trace.All(cfg) {
					if p.contract == "coreai-bf16" && e.Tap == trace.MoERouterProbs {
						continue // that graph has no softmax over all experts
					}
					if g, w := got.Rows(0, e.Name), want.Rows(0, e.Name); !sameBits(g, w) {
						t.Errorf("path %s: %s: %d values, want %d of the same bits", path, e.Name, len(g), len(w))
					}
				}
				if p.contract == "coreai-fp16" {
					break // a token is a call there
				}
			}
		})
	}
}

// TestTapsOfAppleQ35: every name but the softmax over all experts, which this profile's graph has not, in every form of call.
func TestTapsOfAppleQ35(t *testing.T) {
	t.Parallel()
	for _, p := range []struct{ bundle, checkpoint string }{{"tiny-dense-gva-apple-q35", "tiny-dense-gva"}, {"tiny-moe-apple-q35", "tiny-moe"}, {"opticks-2m-apple-q35", ""}} {
		t.Run(p.bundle, func(t *testing.T) {
			t.Parallel()
			cfg := configOf(t, p.checkpoint)
			e := opened(t, "graph", engine.Spec{Model: aimodel(t, p.bundle)})
			for _, path := range []engine.Path{{}, {Chunk: 1}, {Chunk: 3}} {
				got := recorded(t, e, cfg, []int32{15, 320, 99, 241, 383}, path)
				for _, e := range trace.All(cfg) {
					if missing := got.Rows(0, e.Name) == nil; missing != (e.Tap == trace.MoERouterProbs) {
						t.Errorf("path %s: %s missing: %v", path, e.Name, missing)
					}
				}
			}
		})
	}
}

// TestOpTaps: operations' results by number, in a recorder and in a trace file, are the rows that their names give.
func TestOpTaps(t *testing.T) {
	t.Parallel()
	ids := []int32{15, 320, 99}
	for _, p := range pairs {
		if p.checkpoint == "" || testing.Short() && p.bundle != pairs[0].bundle && p.contract != "coreai-bf16" {
			continue
		}
		t.Run(p.bundle, func(t *testing.T) {
			t.Parallel()
			cfg := configOf(t, p.checkpoint)
			e := opened(t, "graph", engine.Spec{Model: aimodel(t, p.bundle)})
			named := recorded(t, e, cfg, ids, engine.Path{})
			ops := e.(interface{ OpTaps() []trace.Entry }).OpTaps()
			at := e.(engine.Locator).Locate("layer1.out")
			var number int
			if len(at) == 0 {
				t.Fatal("layer1.out is made nowhere")
			}
			if _, err := fmt.Sscanf(at[0], "op %d ", &number); err != nil {
				t.Fatal(at, err)
			}
			entries, err := trace.Select(cfg, []string{fmt.Sprintf("op.%d", number), "layer1.out"}, ops...)
			if err != nil || len(entries) != 2 {
				t.Fatalf("%d entries of %d operations: %v", len(entries), len(ops), err)
			}
			file := filepath.Join(t.TempDir(), "ops.trace")
			w, err := trace.Create(file, cfg, entries, trace.MetaOf("", e.Info(), engine.Path{}, ids), 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, engine.Want{Taps: w, From: len(ids)}, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			f, err := trace.Open(file, "")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got := make([]float32, len(ids)*cfg.HiddenSize)
			if err := f.Read(fmt.Sprintf("op.%d", number), 0, got); err != nil {
				t.Fatal(err)
			}
			if !sameBits(got, named.Rows(0, "layer1.out")) {
				t.Errorf("op.%d has other bits than layer1.out", number)
			}
		})
	}
}
