package metal_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
)

// TestImports: the engine shares no decoder with any other.
func TestImports(t *testing.T) {
	t.Parallel()
	banned := []string{"sibyl/model", "sibyl/plain64", "sibyl/graph", "sibyl/coreai", "sibyl/gdn", "sibyl/attention", "sibyl/oracle"}
	err := filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		tree, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range tree.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			for _, b := range banned {
				if name == b || strings.HasPrefix(name, b+"/") {
					t.Errorf("%s imports %s", path, name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRefused: what no kernel computes is said, not approximated.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, engine string
		spec         engine.Spec
		want         string
	}{
		{"exact", "metal-cpu", engine.Spec{Mode: "exact"}, "mode: found exact, want fast"},
		{"chunk", "metal-cpu", engine.Spec{Delta: "chunk"}, "delta: found chunk, want recurrent"},
		{"no-such-scheme", "metal-cpu", engine.Spec{Scheme: "int9"}, "scheme int9"},
		{"bf16-scores", "metal-cpu", engine.Spec{Contract: "hf-bf16"}, "BF16 at score"},
		{"attention-op-by-op", "metal-cpu", engine.Spec{Contract: "coreai-eager-sdpa16"}, "F16 at score"},
		{"own-arithmetic", "metal-cpu", engine.Spec{Contract: "coreai-cpu"}, "an arithmetic of its own"},
		{"no-model", "metal-cpu", engine.Spec{Model: filepath.Join(t.TempDir(), "none")}, "none"},
	} {
		_, err := engine.Open(context.Background(), c.engine, c.spec)
		var bad *inputerr.Error
		if !errors.As(err, &bad) || !strings.Contains(strings.ReplaceAll(err.Error(), "\"", ""), c.want) {
			t.Errorf("%s: %v, want ...%s...", c.name, err, c.want)
		}
	}
}

// TestPathsAreBits: prefill, steps, chunks and a ragged batch give the same bits, since every kernel sums in one order whatever the
// shape of a call; so a contract that rounds does not flip on the path.
func TestPathsAreBits(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"tiny-asym", "tiny-moe"} {
		for _, contract := range []string{"hf-fp32", "coreai-fp16"} {
			g := goldens.Load(t, set, "golden")
			e := open(t, "metal-cpu", engine.Spec{Model: g.Model, Contract: contract})
			ids := g.Prompts()["p17"]
			if set == "tiny-asym" {
				ids = g.Prompts()["p9"]
			}
			want := collect{}
			score(t, e, engine.Want{Taps: want}, ids)
			for _, path := range []engine.Path{{Chunk: 1}, {Chunk: 4}} {
				got := collect{}
				score(t, e, engine.Want{Taps: got, Path: path}, ids)
				for name, x := range want {
					if d := goldens.MaxDiff(got[name], x); d != 0 {
						t.Errorf("%s, %s, %s: %s differs by %g from prefill", set, contract, path, name, d)
					}
				}
			}
		}
	}
}

func score(t *testing.T, e engine.Engine, w engine.Want, ids []int32) (out []engine.Position) {
	t.Helper()
	err := e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, w, func(p *engine.Position) error {
		q := *p
		q.Top = append([]engine.Candidate(nil), p.Top...)
		out = append(out, q)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestHeadOnDevice: candidates and log-sum-exp from the head's kernels are those of the whole row.
func TestHeadOnDevice(t *testing.T) {
	t.Parallel()
	g := goldens.Load(t, "tiny-asym", "golden")
	e := open(t, "metal-cpu", engine.Spec{Model: g.Model})
	ids := g.Prompts()["p9"]
	device, host := score(t, e, engine.Want{TopK: 5}, ids), score(t, e, engine.Want{TopK: 5, Logits: true}, ids)
	for i := range host {
		d, h := device[i], host[i]
		if d.ID != h.ID || len(d.Top) != 5 || math.Abs(d.LSE-h.LSE) > 1e-5*math.Abs(h.LSE) {
			t.Errorf("position %d: id %d, lse %v; the row says %d, %v", i, d.ID, d.LSE, h.ID, h.LSE)
		}
		for k := range d.Top {
			if d.Top[k] != h.Top[k] {
				t.Errorf("position %d: candidate %d is %v, the row says %v", i, k, d.Top[k], h.Top[k])
			}
		}
	}
}

// TestFallbacks: weights at any multiple of an element's size are read where they lie; others are copied, and Info says how many and how
// many bytes. The results are the same.
func TestFallbacks(t *testing.T) {
	t.Parallel()
	g := goldens.Load(t, "tiny-asym", "golden")
	ids := g.Prompts()["p9"]
	plain, a := open(t, "metal-cpu", engine.Spec{Model: g.Model}), collect{}
	score(t, plain, engine.Want{Taps: a}, ids)
	for _, by := range []int{4, 2, 1} {
		dir := t.TempDir()
		shifted(t, g.Model, dir, by)
		moved, b := open(t, "metal-cpu", engine.Spec{Model: dir}), collect{}
		score(t, moved, engine.Want{Taps: b}, ids)
		for name, x := range a {
			if d := goldens.MaxDiff(b[name], x); d != 0 {
				t.Errorf("%d bytes further on: %s differs by %g", by, name, d)
			}
		}
		n := moved.Info().Fallbacks
		tensors, bytes := n["weights copied: not at a multiple of an element's size"], n["bytes of weights copied"]
		if odd := by == 1; (tensors > 0) != odd || (bytes >= tensors*2 && bytes > 0) != odd {
			t.Errorf("%d bytes further on: fallbacks %v, want copies: %v", by, n, odd)
		}
	}
}

// shifted copies a checkpoint with its tensors so many bytes further on.
func shifted(t *testing.T, from, to string, by int) {
	t.Helper()
	for _, name := range []string{"config.json", "tokenizer.json"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o600)
		}
		if err != nil && name == "config.json" {
			t.Fatal(err)
		}
	}
	f, err := safetensors.Open(filepath.Join(from, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	header := map[string]any{"aaa": map[string]any{"dtype": "U8", "shape": []int{by}, "data_offsets": []int{0, by}}}
	data := make([]byte, by)
	for _, x := range f.Tensors() {
		header[x.Name] = map[string]any{"dtype": x.DType, "shape": x.Shape, "data_offsets": []int{len(data), len(data) + len(x.Data)}}
		data = append(data, x.Data...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	if err := os.WriteFile(filepath.Join(to, "model.safetensors"), append(file, data...), 0o600); err != nil {
		t.Fatal(err)
	}
}
