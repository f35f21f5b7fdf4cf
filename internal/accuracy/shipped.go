package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"sibyl/engine"
	"sibyl/internal/safetensors"
	_ "sibyl/model" // registers cpu
	"sibyl/precision"
)

// shippedSchemes are the sample bundles whose weights a named scheme makes from the checkpoint, under the contracts that
// are compared: the profile's own and the oracle's. Bundles with an element that the exporter folded wrongly are not
// among them: model.TestShipped holds those, with these elements put into the checkpoint's side.
var shippedSchemes = []struct {
	name, checkpoint, scheme string
	contracts                []string
}{
	{"tiny-moe-fp16", "tiny-moe", "fp16", []string{"coreai-fp16", "hf-fp32"}},
	{"tiny-moe-int8hu-sym", "tiny-moe", "int8hu-sym", []string{"coreai-fp16", "hf-fp32"}},
	{"tiny-dense-gva-apple-q35", "tiny-dense-gva", "u4-minval", []string{"coreai-bf16", "hf-fp32"}},
	{"tiny-moe-apple-q35", "tiny-moe", "u4-minval", []string{"coreai-bf16", "hf-fp32"}},
	{"opticks-2m-apple-q35", "", "u4-minval", []string{"coreai-bf16", "hf-fp32"}},
}

// shipped runs the CPU engine on bundles: against their checkpoints, and against what Apple's runtime recorded of them.
func shipped(ctx context.Context, r *report) error {
	ids := []int32{3, 141, 59, 265, 358, 97, 93, 238, 462, 64, 338, 327}
	var bits, equal int
	for _, s := range shippedSchemes {
		path, err := assetOf(s.name)
		if err != nil {
			return err
		}
		checkpoint := s.checkpoint
		if checkpoint != "" {
			checkpoint = filepath.Join("testdata", "goldens", checkpoint)
		}
		for _, contract := range s.contracts {
			a, err := logitsOf(ctx, engine.Spec{Model: path, Contract: contract}, ids, 0)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			b, err := logitsOf(ctx, engine.Spec{Model: checkpoint, Contract: contract, Scheme: s.scheme}, ids, 0)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			n, same := sameBits(a, b)
			bits, equal = bits+n, equal+same
		}
	}
	r.promise("CPU engine from the bundle, exact = from the checkpoint with the scheme", "every bit",
		fmt.Sprintf("%d of %d logits, the 5 bundles without the exporter's fault (model.TestShipped holds the others), their profile's contract and hf-fp32", equal, bits), bits == equal && bits > 0)
	return shippedRuntime(ctx, r)
}

// shippedRuntime compares the CPU engine under coreai-cpu with runtime.safetensors.
func shippedRuntime(ctx context.Context, r *report) error {
	var bits, equal, tokens, sameTokens int
	files, err := filepath.Glob(filepath.Join("testdata", "bundles", "*", "runtime.safetensors"))
	if err != nil {
		return err
	}
	for _, file := range files {
		path, err := assetOf(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return err
		}
		f, err := safetensors.Open(file)
		if err != nil {
			return err
		}
		for _, t := range f.Tensors() {
			prompt, ok := strings.CutSuffix(t.Name, ".input_ids")
			if !ok {
				continue
			}
			decode := prompt + ".decode"
			if _, ok := f.Tensor(decode + ".logits"); !ok {
				decode = prompt
			}
			logits, err := logitsOf(ctx, engine.Spec{Model: path, Contract: "coreai-cpu"}, ints(t), 1)
			if err != nil {
				return errors.Join(err, f.Close())
			}
			want, _ := f.Tensor(decode + ".logits")
			n, same := sameBits(logits, halves(want))
			bits, equal = bits+n, equal+same
			greedy, _ := f.Tensor(decode + ".greedy.ids")
			got, err := greedyOf(ctx, engine.Spec{Model: path, Contract: "coreai-cpu"}, ints(t), len(ints(greedy)))
			if err != nil {
				return errors.Join(err, f.Close())
			}
			for i, id := range ints(greedy) {
				if tokens++; i < len(got) && got[i] == id {
					sameTokens++
				}
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	r.promise("CPU engine on the bundle, coreai-cpu = what Apple's CPU runtime recorded of it, token by token", "greedy ids identical; 99.9 % of the bits",
		fmt.Sprintf("%d of %d ids; %d of %d logits in every bit", sameTokens, tokens, equal, bits), sameTokens == tokens && tokens > 0 && float64(equal) >= 0.999*float64(bits))
	return nil
}

func assetOf(name string) (string, error) {
	dir := filepath.Join("testdata", "bundles", name)
	if _, err := os.Stat(filepath.Join(dir, "metadata.json")); err == nil {
		return dir, nil
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.aimodel"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s: found %d .aimodel folders (%w)", name, len(found), err)
	}
	return found[0], nil
}

// logitsOf gives all logits of ids, chunk tokens a call.
func logitsOf(ctx context.Context, spec engine.Spec, ids []int32, chunk int) (out []float32, err error) {
	e, err := engine.Open(ctx, "cpu", spec)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	err = e.Score(ctx, []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true, Path: engine.Path{Chunk: chunk}}, func(p *engine.Position) error {
		out = append(out, p.Logits...)
		return nil
	})
	return out, err
}

func greedyOf(ctx context.Context, spec engine.Spec, ids []int32, n int) (out []int32, err error) {
	e, err := engine.Open(ctx, "cpu", spec)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	err = e.Generate(ctx, engine.Prompt{IDs: ids}, engine.Options{MaxTokens: n, Path: engine.Path{Chunk: 1}}, func(t *engine.Token) error {
		out = append(out, t.ID)
		return nil
	})
	return out, err
}

// sameBits counts elements and those that are equal in every bit.
func sameBits(a, b []float32) (n, same int) {
	for i := range min(len(a), len(b)) {
		if math.Float32bits(a[i]) == math.Float32bits(b[i]) {
			same++
		}
	}
	return max(len(a), len(b)), same
}

func ints(t safetensors.Tensor) (out []int32) {
	for b := t.Data; len(b) >= 4; b = b[4:] {
		out = append(out, int32(binary.LittleEndian.Uint32(b)))
	}
	return out
}

func halves(t safetensors.Tensor) (out []float32) {
	for b := t.Data; len(b) >= 2; b = b[2:] {
		out = append(out, precision.F16ToF32(binary.LittleEndian.Uint16(b)))
	}
	return out
}
