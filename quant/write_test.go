package quant

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// stored gives every weight that two checkpoints must agree on: name, and a reader of its values.
func stored(t *testing.T, ck *bundle.Checkpoint, view func(layer int, r config.Role, m *kernels.Matrix) (*kernels.Matrix, error)) map[string][]float32 {
	t.Helper()
	cfg, out := ck.Config(), map[string][]float32{}
	formats := map[bundle.DType]kernels.Format{"F32": kernels.F32, "F16": kernels.F16, "BF16": kernels.BF16, "I8": kernels.I8Block, "I4": kernels.I4Block, "U4": kernels.U4Minval}
	add := func(name string, r config.Role, layer int, x bundle.Tensor) {
		rows, cols := 1, x.Shape[len(x.Shape)-1]
		if len(x.Shape) > 1 {
			rows = x.Shape[0]
		}
		var m *kernels.Matrix
		var err error
		if q := x.Quant; q != nil {
			m, err = kernels.NewQuantized(formats[x.DType], rows, cols, x.Data, kernels.Blocks{Size: q.Block, Axis: q.Axis, Scale: q.Scale, Min: q.Min}, precision.F32)
		} else {
			m, err = kernels.NewMatrix(formats[x.DType], rows, cols, x.Data, precision.F32)
		}
		if err == nil && view != nil {
			m, err = view(layer, r, m)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = append(out[name], m.Floats()...)
	}
	one := func(r config.Role, layer int) {
		x, err := ck.Tensor(r, layer)
		if err != nil {
			t.Fatal(err)
		}
		add(r.Name(layer), r, layer, x)
	}
	one(config.Embed, 0)
	one(config.FinalNorm, 0)
	one(config.Head, 0)
	for l, kind := range cfg.Layers {
		for _, r := range cfg.LayerRoles(kind) {
			switch r {
			case config.ExpertsGateUp:
				for e := range cfg.MoE.NumExperts {
					gate, up, down, err := ck.Expert(l, e)
					if err != nil {
						t.Fatal(err)
					}
					add(config.ExpertsGateUp.Name(l), config.ExpertsGateUp, l, gate)
					add(config.ExpertsGateUp.Name(l), config.ExpertsGateUp, l, up)
					add(config.ExpertsDown.Name(l), config.ExpertsDown, l, down)
				}
			case config.ExpertsDown:
			default:
				one(r, l)
			}
		}
	}
	return out
}

const columnRecipe = `
rest: bf16
rules:
  - match: "layers.[01].*in_proj_*"
    scheme: int4
    block: 8
    axis: 0
    mode: symmetric
  - match: mlp.experts.down_proj
    scheme: stored
  - match: [mlp.experts.gate_up_proj, mlp.shared_expert.down_proj]
    scheme: u4-minval
    block: 16
    axis: 0
  - match: "*_proj*"
    scheme: int8
    block: 16
    axis: 1
    mode: clipping
  - match: embed_tokens.weight
    scheme: u4-minval
    block: 16
    axis: 1
`

// TestWrite: a checkpoint written under a scheme reads as the scheme's lazy view of the source does, value for value,
// in one file and in many, whatever the number of threads; and its hashes hold.
func TestWrite(t *testing.T) {
	t.Parallel()
	recipe, err := ParseRecipe("columns.yaml", []byte(columnRecipe))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"tiny-moe", "tiny-dense-tied"} {
		for _, s := range append(Schemes(), recipe) {
			if s == recipe && set != "tiny-moe" {
				continue
			}
			t.Run(set+"/"+s.Name, func(t *testing.T) {
				t.Parallel()
				ck := open(t, set)
				a, err := s.AssignTo(ck)
				if err != nil {
					t.Fatal(err)
				}
				want := stored(t, ck, a.View)
				dir := t.TempDir()
				one := write(t, ck, s, filepath.Join(dir, "one"), Options{Threads: 1})
				if n, err := s.Needs(ck, 1); err != nil || n.Disk != one.Bytes || n.Memory <= 0 {
					t.Errorf("foresaw %+v, %v; wrote %d bytes", n, err, one.Bytes)
				}
				many := write(t, ck, s, filepath.Join(dir, "many"), Options{Threads: 3, ShardBytes: 200_000})
				if n := len(files(t, dir, "many", ".safetensors")); n < 3 {
					t.Errorf("200 kB a file gave %d files", n)
				}
				if a, b := text(t, one.Tensors), text(t, many.Tensors); a != b {
					t.Errorf("one thread and file reports %s\nthree threads and many files %s", a, b)
				}
				sums := map[string]bool{}
				for _, name := range []string{"one", "many"} {
					got, err := bundle.Open(filepath.Join(dir, name))
					if err != nil {
						t.Fatal(err)
					}
					have := stored(t, got, nil)
					for w, x := range want {
						if !same(have[w], x) {
							t.Errorf("%s: %s differs from its lazy view", name, w)
						}
					}
					if got.Sizes().Total() != one.Bytes {
						t.Errorf("%s: %d bytes of weights, reported %d", name, got.Sizes().Total(), one.Bytes)
					}
					h, err := got.WeightsSHA256(t.Context(), nil)
					if err != nil {
						t.Fatal(err)
					}
					sums[h] = true
					if bad, err := got.NonFinite(t.Context(), nil); err != nil || len(bad) > 0 {
						t.Errorf("%s: not finite: %v, %v", name, bad, err)
					}
					if err := got.Close(); err != nil {
						t.Error(err)
					}
				}
				if len(sums) != 1 {
					t.Errorf("one file and many have different hashes: %v", sums)
				}
				dry, err := Write(t.Context(), ck, s, "", Options{DryRun: true})
				if err != nil || text(t, dry.Groups) != text(t, one.Groups) {
					t.Errorf("a dry run reports %s, %v\nwritten %s", text(t, dry), err, text(t, one))
				}
			})
		}
	}
}

func write(t *testing.T, ck *bundle.Checkpoint, s *Scheme, dir string, o Options) *Report {
	t.Helper()
	var last, total int64
	o.Progress = func(done, all int64) {
		if done < last || done > all {
			t.Errorf("progress %d of %d after %d", done, all, last)
		}
		last, total = done, all
	}
	r, err := Write(t.Context(), ck, s, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if last != total || total == 0 {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	return r
}

func same(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

func files(t *testing.T, dir, sub, suffix string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, sub))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			out = append(out, e.Name())
		}
	}
	return out
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestWriteDemo: what goes with the weights is there, the source's config.json is kept but for the section, and the
// sizes are what the scheme promises.
func TestWriteDemo(t *testing.T) {
	t.Parallel()
	ck := open(t, "opticks-2m")
	dir := filepath.Join(t.TempDir(), "out")
	r := write(t, ck, scheme(t, "int8hu-sym"), dir, Options{})
	want := []string{"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
	if got := files(t, dir, "", ""); !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
	before, _, err := ck.Read("config.json")
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(after, before[1:]) {
		t.Error("config.json is not the source's behind the section")
	}
	q, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if s := q.Quantization(); s == nil || s.Scheme != "int8hu-sym" || s.Source != "opticks-2m" || !s.UntiedHead || q.Config().TieWordEmbeddings {
		t.Errorf("section %+v, tied %v", s, q.Config().TieWordEmbeddings)
	}
	for _, g := range r.Groups {
		if g.Name == "head" && (g.SourceBytes != 0 || g.Bytes != 2048*128*34/32) {
			t.Errorf("head: %d bytes of the source's, %d now; want 0 and 1.0625 a weight", g.SourceBytes, g.Bytes)
		}
		if g.Name == "GatedDeltaNet" && (g.SNR < 40 || g.SNR > 50 || g.Cosine < 0.9999 || g.Worst == nil || g.Worst.SNR >= g.SNR) {
			t.Errorf("GatedDeltaNet: SNR %v dB, cosine %v, worst %v: int8 in blocks of 32 gives some 44 dB", g.SNR, g.Cosine, g.Worst)
		}
	}
	_, err = scheme(t, "int4lin").AssignTo(q)
	refused(t, err, `out: scheme int4lin: found a checkpoint that is already quantized (int8hu-sym), want one that is not; leave the scheme out to read it as stored, or start from opticks-2m`)
}

// refused demands an *inputerr.Error whose text ends so.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	var in *inputerr.Error
	if !errors.As(err, &in) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestWriteStops: what is there is not touched, and a write that is stopped leaves nothing.
func TestWriteStops(t *testing.T) {
	t.Parallel()
	ck := open(t, "opticks-2m")
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Write(ctx, ck, scheme(t, "int8lin"), out, Options{Progress: func(done, total int64) {
		if done > total/2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled write: %v", err)
	}
	if left := files(t, dir, "", ""); len(left) > 0 {
		t.Errorf("a cancelled write left %v", left)
	}
	if err := os.MkdirAll(filepath.Join(out, "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = Write(t.Context(), ck, scheme(t, "int8lin"), out, Options{})
	refused(t, err, "out: found a folder of 1 entries, want a name that is free; choose another folder, or --force to replace a quantized checkpoint")
	_, err = Write(t.Context(), ck, scheme(t, "int8lin"), out, Options{Force: true})
	refused(t, err, "out: found a folder that is no checkpoint quantized by sibyl, want one that --force may replace; choose another folder, or remove this one")
	if err := os.Remove(filepath.Join(out, "mine")); err != nil {
		t.Fatal(err)
	}
	write(t, ck, scheme(t, "int8lin"), out, Options{Force: true})
	write(t, ck, scheme(t, "int4lin"), out, Options{Force: true})
	q, err := bundle.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if s := q.Quantization().Scheme; s != "int4lin" {
		t.Errorf("after --force the scheme is %s", s)
	}
	if left := files(t, dir, "", ""); !slices.Equal(left, []string{"out"}) {
		t.Errorf("beside out: %v", left)
	}
}

// TestTampered: an edited byte of q, scale or minval, and a hash or a section that was edited, are found and named.
func TestTampered(t *testing.T) {
	t.Parallel()
	ck := open(t, "tiny-dense-gva")
	src := filepath.Join(t.TempDir(), "q")
	write(t, ck, scheme(t, "u4-minval"), src, Options{})
	weights, err := os.ReadFile(filepath.Join(src, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := os.ReadFile(filepath.Join(src, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(suffix string) func(t *testing.T, w, c []byte) ([]byte, []byte) {
		return func(t *testing.T, w, c []byte) ([]byte, []byte) {
			q, err := bundle.Open(src)
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			x, err := q.Tensor(config.OProj, 3)
			if err != nil {
				t.Fatal(err)
			}
			part := map[string][]byte{".q": x.Data, ".scale": x.Quant.Scale, ".minval": x.Quant.Min}[suffix]
			at := bytes.Index(w, part)
			w[at+len(part)/2] ^= 1
			return w, c
		}
	}
	edit := func(old, new string) func(t *testing.T, w, c []byte) ([]byte, []byte) {
		return func(t *testing.T, w, c []byte) ([]byte, []byte) {
			if !bytes.Contains(c, []byte(old)) {
				t.Fatalf("config.json has no %q", old)
			}
			return w, bytes.Replace(c, []byte(old), []byte(new), 1)
		}
	}
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, w, c []byte) ([]byte, []byte)
		want string
	}{
		{"q", flip(".q"), "tensor \"model.language_model.layers.3.self_attn.o_proj.weight\": found q and scales with sha256 "},
		{"scale", flip(".scale"), "layers.3.self_attn.o_proj.weight\": found q and scales with sha256 "},
		{"minval", flip(".minval"), "layers.3.self_attn.o_proj.weight\": found minvals with sha256 "},
		{"cut", func(_ *testing.T, w, c []byte) ([]byte, []byte) { return w[:len(w)-100], c }, "model.safetensors: "},
		{"block", edit(`"block": 32`, `"block": 16`), "want BF16 [640 8]"},
		{"block-uneven", edit(`"block": 32`, `"block": 48`), "blocks of 48 along axis 1, want whole blocks"},
		{"axis", edit(`"axis": 1`, `"axis": 2`), "axis: found 2, want 0 or 1"},
		{"format", edit(`"format": "u4-minval"`, `"format": "int3"`), `format: found "int3", want int8, int4 or u4-minval`},
		{"format-other", edit(`"format": "u4-minval"`, `"format": "int4"`), `mode: found "", want one of ["clipping" "symmetric"]`},
		{"mode", edit(`"mode": ""`, `"mode": "clipping"`), `mode: found "clipping"`},
		{"hash", edit(`"sha256": "`, `"sha256": "z`), "sha256: found "},
		{"version", edit(`"version": 1`, `"version": 2`), "quantization_config.version: found 2, want 1; quantize the original checkpoint again; do not edit this section"},
		{"key", edit(`"source"`, `"sauce"`), `quantization_config."sauce": found a key this version does not have`},
		{"method", edit(`"quant_method": "sibyl"`, `"quant_method": "gptq"`), "quantization_config: found a quantized checkpoint"},
		{"unlisted", edit(`"model.language_model.embed_tokens.weight"`, `"model.language_model.embed_tokens.weighs"`), "no \"model.language_model.embed_tokens.weighs.q\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, c := tt.do(t, slices.Clone(weights), slices.Clone(cfg))
			dir := t.TempDir()
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "model.safetensors"), w, 0o644), os.WriteFile(filepath.Join(dir, "config.json"), c, 0o644)); err != nil {
				t.Fatal(err)
			}
			q, err := bundle.Open(dir)
			if err == nil {
				defer q.Close()
				_, err = q.WeightsSHA256(t.Context(), nil)
				if verify := q.VerifyQuantized(t.Context(), nil); text(t, verify) != text(t, err) {
					t.Errorf("VerifyQuantized says %v, WeightsSHA256 %v", verify, err)
				}
			}
			var in *inputerr.Error
			if !errors.As(err, &in) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}
