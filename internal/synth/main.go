// Command synth writes a checkpoint of a published Qwen3.5-family shape with pseudo-random weights, the same bytes every
// time: for timing and memory only. The weights say nothing about quality, and no tokenizer comes with them.
//
//	go run ./internal/synth -shape 0.8b -o DIR
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"slices"

	"sibyl/config"
	"sibyl/internal/safetensors"
	"sibyl/precision"
)

// shape is what tells the published dense sizes apart; the rest of their configs is the same.
type shape struct {
	name                                        string
	hidden, layers, heads, kvHeads, vHeads, ffn int
	tied                                        bool
}

var shapes = []shape{
	{"0.8b", 1024, 24, 8, 2, 16, 3584, true},
	{"2b", 2048, 24, 8, 2, 16, 6144, true},
	{"4b", 2560, 32, 16, 4, 32, 9216, true},
	{"9b", 4096, 32, 16, 4, 32, 12288, false},
	{"27b", 5120, 64, 24, 4, 48, 17408, false},
}

func main() {
	name := flag.String("shape", "0.8b", "0.8b, 2b, 4b, 9b or 27b")
	layers := flag.Int("layers", 0, "only the first so many layers (0: all)")
	out := flag.String("o", "", "the folder to write; it must not hold a model yet")
	flag.Parse()
	i := slices.IndexFunc(shapes, func(s shape) bool { return s.name == *name })
	if i < 0 || *out == "" || *layers < 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	s := shapes[i]
	if *layers > 0 {
		s.layers = min(s.layers, *layers)
	}
	if err := write(s, *out); err != nil {
		fmt.Fprintln(os.Stderr, "synth:", err)
		os.Exit(1)
	}
}

// config is config.json as the published checkpoints have it.
func (s shape) config() []byte {
	b, err := json.MarshalIndent(map[string]any{
		"architectures": []string{"Qwen3_5ForConditionalGeneration"}, "model_type": "qwen3_5", "tie_word_embeddings": s.tied,
		"text_config": map[string]any{
			"model_type": "qwen3_5_text", "hidden_size": s.hidden, "num_hidden_layers": s.layers, "vocab_size": 248320,
			"max_position_embeddings": 262144, "rms_norm_eps": 1e-6, "full_attention_interval": 4, "hidden_act": "silu",
			"attention_bias": false, "attn_output_gate": true, "num_attention_heads": s.heads, "num_key_value_heads": s.kvHeads,
			"head_dim": 256, "linear_num_key_heads": 16, "linear_num_value_heads": s.vHeads, "linear_key_head_dim": 128,
			"linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "intermediate_size": s.ffn, "tie_word_embeddings": s.tied,
			"rope_parameters": map[string]any{"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25,
				"mrope_section": []int{11, 11, 10}, "mrope_interleaved": true},
		},
	}, "", "  ")
	if err != nil {
		panic(err) // a fault of the table above
	}
	return append(b, '\n')
}

// entry is a tensor to write and the range of its values.
type entry struct {
	safetensors.Spec
	low, high float64
}

// entries lists every tensor the config asks for, in the order of the math.
func entries(c *config.Config) (out []entry) {
	const prefix = "model.language_model."
	add := func(name string, r config.Role) {
		low, high := values(r)
		dtype := safetensors.BF16
		if r == config.ALog || r == config.GatedNorm {
			dtype = safetensors.F32
		}
		out = append(out, entry{safetensors.Spec{Name: name, DType: dtype, Shape: r.Shape(c)}, low, high})
	}
	add(prefix+config.Embed.Name(0), config.Embed)
	for l, kind := range c.Layers {
		for _, r := range c.LayerRoles(kind) {
			add(prefix+r.Name(l), r)
		}
	}
	add(prefix+config.FinalNorm.Name(0), config.FinalNorm)
	if !c.TieWordEmbeddings {
		add(config.Head.Name(0), config.Head)
	}
	return out
}

// values gives the range of a role's numbers, of the order trained models have.
func values(r config.Role) (low, high float64) {
	switch r {
	case config.Embed, config.Head:
		return -0.08, 0.08
	case config.ALog:
		return -1, 2.5
	case config.GatedNorm:
		return 0.5, 1.5
	case config.Conv1D:
		return -0.5, 0.5
	case config.DtBias:
		return -4, 1
	case config.InputNorm, config.PostAttnNorm, config.FinalNorm, config.QNorm, config.KNorm:
		return -0.2, 0.2
	}
	return -0.035, 0.035
}

func write(s shape, dir string) error {
	c, err := config.Parse(filepath.Join(dir, "config.json"), s.config())
	if err != nil {
		return err
	}
	model := filepath.Join(dir, "model.safetensors")
	if _, err := os.Stat(model); err == nil {
		return fmt.Errorf("%s is there already", model)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	list := entries(c)
	var specs []safetensors.Spec
	for _, e := range list {
		specs = append(specs, e.Spec)
	}
	w, err := safetensors.Create(model, map[string]string{"format": "pt", "about": "random weights of a published shape"}, specs)
	if err != nil {
		return err
	}
	defer w.Abort() // after Commit it does nothing
	for _, e := range list {
		if err := fill(w, e); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), s.config(), 0o666); err != nil {
		return err
	}
	return w.Commit()
}

// fill writes uniform numbers that follow from the tensor's name, by a table of 65,536 of them.
func fill(w *safetensors.Writer, e entry) error {
	size := e.DType.Size()
	table := make([]byte, size<<16)
	for i := range 1 << 16 {
		v := float32(e.low + (e.high-e.low)*float64(i)/(1<<16))
		if size == 2 {
			binary.LittleEndian.PutUint16(table[2*i:], precision.F32ToBF16(v))
		} else {
			binary.LittleEndian.PutUint32(table[4*i:], math.Float32bits(v))
		}
	}
	h := fnv.New64a()
	h.Write([]byte(e.Name)) // a hash's Write never fails
	state, n := h.Sum64(), 1
	for _, d := range e.Shape {
		n *= d
	}
	var buf bytes.Buffer
	for off := int64(0); n > 0; {
		buf.Reset()
		for buf.Len() < 8<<20 && n > 0 {
			state += 0x9e3779b97f4a7c15 // splitmix64 (Steele, Lea, Flood 2014)
			z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
			z = (z ^ z>>27) * 0x94d049bb133111eb
			z ^= z >> 31
			for range min(4, n) {
				at := int(z&0xffff) * size
				buf.Write(table[at : at+size])
				z >>= 16
			}
			n -= min(4, n)
		}
		if err := w.WriteAt(e.Name, off, buf.Bytes()); err != nil {
			return err
		}
		off += int64(buf.Len())
	}
	return nil
}
