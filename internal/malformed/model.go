package malformed

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strings"

	"sibyl/config"
)

// object is a JSON object to be edited: keys are written in sorted order, so the files are the same every time.
type object map[string]any

// with gives a copy in which key has another value; the value drop removes it.
func (o object) with(key string, v any) object {
	n := maps.Clone(o)
	if n[key] = v; v == drop {
		delete(n, key)
	}
	return n
}

var drop any = new(int)

func (o object) json() []byte {
	b, err := json.MarshalIndent(o, "", " ")
	if err != nil {
		panic(err) // a fault of this package's tables
	}
	return append(b, '\n')
}

// rope of the tiny model: 4 of 8 dimensions, [1 1 0].
func rope() object {
	return object{"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.5, "mrope_section": []int{1, 1, 0}, "mrope_interleaved": true}
}

// tinyText is the text config of a model of two layers, one of each mixer, whose sizes all differ.
func tinyText() object {
	return object{
		"model_type": "qwen3_5_text", "hidden_size": 12, "num_hidden_layers": 2, "vocab_size": 20, "max_position_embeddings": 64,
		"rms_norm_eps": 1e-6, "layer_types": []string{"linear_attention", "full_attention"}, "hidden_act": "silu", "attention_bias": false,
		"attn_output_gate": true, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "rope_parameters": rope(),
		"linear_num_key_heads": 1, "linear_num_value_heads": 2, "linear_key_head_dim": 4, "linear_value_head_dim": 6,
		"linear_conv_kernel_dim": 4, "intermediate_size": 10, "tie_word_embeddings": false, "eos_token_id": 19,
	}
}

// tinyMoE is its sibling with 3 experts of which 2 are used.
func tinyMoE() object {
	return tinyText().with("model_type", "qwen3_5_moe_text").with("intermediate_size", drop).with("num_experts", 3).
		with("num_experts_per_tok", 2).with("moe_intermediate_size", 5).with("shared_expert_intermediate_size", 7)
}

// wrap puts a text config under text_config, as published files have it.
func wrap(text object) object {
	moe := text["num_experts"] != nil
	o := object{"model_type": "qwen3_5", "architectures": []string{"Qwen3_5ForConditionalGeneration"}, "text_config": text}
	if moe {
		o["model_type"], o["architectures"] = "qwen3_5_moe", []string{"Qwen3_5MoeForConditionalGeneration"}
	}
	if tie, ok := text["tie_word_embeddings"]; ok {
		o["tie_word_embeddings"] = tie
	}
	return o
}

// tensor is one entry of a file: dtype, shape and bytes, each of which may be wrong.
type tensor struct {
	name, dtype string
	shape       []int
	data        []byte
}

// text is a safetensors file of the given header text and data.
func file(header string, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

// pack writes tensors one after another.
func pack(tensors []tensor) []byte {
	var data []byte
	entries := object{}
	for _, t := range tensors {
		entries[t.name] = object{"dtype": t.dtype, "shape": t.shape, "data_offsets": []int{len(data), len(data) + len(t.data)}}
		data = append(data, t.data...)
	}
	b, err := json.Marshal(entries)
	if err != nil {
		panic(err) // a fault of this package's tables
	}
	header := string(b)
	return file(header+strings.Repeat(" ", (8-len(header)%8)%8), data)
}

// weights makes every tensor the config asks for under the prefix, values of [-0.5, 0.5) that follow from the name,
// in BF16 but A_log and the gated norm, which are F32.
func weights(text object, prefix string) []tensor {
	c, err := config.Parse("tiny", wrap(text).json())
	if err != nil {
		panic(err) // a fault of this package's tables
	}
	list := []tensor{bf16(prefix+config.Embed.Name(0), config.Embed.Shape(c)), bf16(prefix+config.FinalNorm.Name(0), config.FinalNorm.Shape(c))}
	for l, kind := range c.Layers {
		for _, r := range c.LayerRoles(kind) {
			t := bf16(prefix+r.Name(l), r.Shape(c))
			if r == config.ALog || r == config.GatedNorm {
				t = f32(t.name, t.shape)
			}
			list = append(list, t)
		}
	}
	if !c.TieWordEmbeddings {
		list = append(list, bf16(config.Head.Name(0), config.Head.Shape(c)))
	}
	return list
}

// values is a stream of multiples of 2^-7 in [-0.5, 0.5), which BF16 holds exactly.
func values(name string, shape []int) []float32 {
	n := 1
	for _, d := range shape {
		n *= d
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	s := h.Sum64()
	out := make([]float32, n)
	for i := range out {
		s = s*6364136223846793005 + 1442695040888963407
		out[i] = float32(s>>57)/128 - 0.5
	}
	return out
}

func bf16(name string, shape []int) tensor {
	t := tensor{name, "BF16", shape, nil}
	for _, v := range values(name, shape) {
		t.data = binary.LittleEndian.AppendUint16(t.data, uint16(math.Float32bits(v)>>16))
	}
	return t
}

func f32(name string, shape []int) tensor {
	t := tensor{name, "F32", shape, nil}
	for _, v := range values(name, shape) {
		t.data = binary.LittleEndian.AppendUint32(t.data, math.Float32bits(v))
	}
	return t
}

// edit gives a copy of list in which f changed the named tensor.
func edit(list []tensor, name string, f func(*tensor)) []tensor {
	out := slices.Clone(list)
	for i := range out {
		if out[i].name == name {
			out[i].data = slices.Clone(out[i].data)
			f(&out[i])
			return out
		}
	}
	panic("no tensor " + name) // a fault of this package's tables
}

// without gives list without the named tensors.
func without(list []tensor, names ...string) []tensor {
	return slices.DeleteFunc(slices.Clone(list), func(t tensor) bool { return slices.Contains(names, t.name) })
}

// split deals tensors to two shards and makes their index.
func split(list []tensor) (a, b []tensor, index object) {
	half := len(list) / 2
	shardOf := object{}
	for i, t := range list {
		shardOf[t.name] = shardA
		if i >= half {
			shardOf[t.name] = shardB
		}
	}
	return list[:half], list[half:], object{"metadata": object{"total_size": 0}, "weight_map": shardOf}
}

const (
	shardA = "model-00001-of-00002.safetensors"
	shardB = "model-00002-of-00002.safetensors"
	prefix = "model.language_model."
	lfs    = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)

// singleExperts replaces the packed experts of layer l by one tensor per expert and projection.
func singleExperts(list []tensor, l int) []tensor {
	base := fmt.Sprintf("%slayers.%d.mlp.experts.", prefix, l)
	var out []tensor
	for _, t := range list {
		switch t.name {
		case base + "gate_up_proj": // [E, 2I, H], gate rows first
			e, i, h := t.shape[0], t.shape[1]/2, t.shape[2]
			for k := range e {
				at := k * 4 * i * h
				out = append(out,
					tensor{fmt.Sprintf("%s%d.gate_proj.weight", base, k), "BF16", []int{i, h}, t.data[at : at+2*i*h]},
					tensor{fmt.Sprintf("%s%d.up_proj.weight", base, k), "BF16", []int{i, h}, t.data[at+2*i*h : at+4*i*h]})
			}
		case base + "down_proj": // [E, H, I]
			e, h, i := t.shape[0], t.shape[1], t.shape[2]
			for k := range e {
				out = append(out, tensor{fmt.Sprintf("%s%d.down_proj.weight", base, k), "BF16", []int{h, i}, t.data[k*2*h*i : (k+1)*2*h*i]})
			}
		default:
			out = append(out, t)
		}
	}
	return out
}
