package malformed

import (
	"encoding/binary"
	"math"
)

// good are checkpoints of every form that must open, a few KB each.
func good() []Case {
	var list []Case
	add := func(name, why string, files map[string][]byte) {
		list = append(list, Case{Name: "checkpoints/" + name, Why: why, Files: files})
	}
	text, moe := tinyText(), tinyMoE()
	all, experts := weights(text, prefix), weights(moe, prefix)
	add("single", "one file, the published prefix", whole(text, all))
	a, b, index := split(all)
	add("sharded", "the same weights in two files", sharded(text, a, b, index))
	add("prefix-model", "the prefix of text-only classes; other values, since they follow from the names", whole(text, weights(text, "model.")))
	add("prefix-none", "no prefix", whole(text, weights(text, "")))
	flat := text.with("architectures", []string{"Qwen3_5ForCausalLM"})
	add("flat", "the text config at top level, the weights of single", map[string][]byte{"config.json": flat.json(), "model.safetensors": pack(all)})
	old := text.with("rope_parameters", drop).with("rope_scaling", rope().with("rope_theta", drop).with("partial_rotary_factor", drop)).
		with("rope_theta", 1e7).with("partial_rotary_factor", 0.5)
	add("rope-scaling", "rope under the keys of transformers 4", whole(old, all))
	tied := text.with("tie_word_embeddings", true)
	head := named(all, prefix+"embed_tokens.weight")
	head.name = "lm_head.weight"
	add("tied", "no head", whole(tied, without(all, "lm_head.weight")))
	add("tied-with-head", "a head whose bytes are the embedding's", whole(tied, append(without(all, "lm_head.weight"), head)))
	add("moe-packed", "experts in packed tensors", whole(moe, experts))
	add("moe-single", "the same experts, one tensor each in layer 0 and 1", whole(moe, singleExperts(singleExperts(experts, 0), 1)))
	add("unused", "vision, mtp and a dtype nobody knows, all unused", whole(text, append(all[:len(all):len(all)],
		tensor{"model.visual.blocks.0.scale", "F8_E4M3", []int{3}, []byte{1, 2, 3}},
		tensor{"model.visual.odd", "X7_NEW", []int{9}, []byte{1, 2, 3}},
		bf16("mtp.fc.weight", []int{2, 2}))))
	f16 := edit(all, prefix+"layers.0.mlp.up_proj.weight", func(t *tensor) { t.dtype = "F16" })
	add("dtypes", "F16 beside BF16 and F32, the A_log and gated norm in BF16", whole(text, edit(edit(f16,
		prefix+"layers.0.linear_attn.A_log", func(t *tensor) { *t = bf16(t.name, t.shape) }),
		prefix+"layers.0.linear_attn.norm.weight", func(t *tensor) { *t = bf16(t.name, t.shape) })))
	add("nonfinite", "two NaN and an infinity in q_proj, one infinity in A_log: it opens, inspect and gate say so", whole(text, edit(edit(all,
		prefix+"layers.1.self_attn.q_proj.weight", func(t *tensor) {
			binary.LittleEndian.PutUint16(t.data[0:], 0x7fc1)
			binary.LittleEndian.PutUint16(t.data[14:], 0xff80)
			binary.LittleEndian.PutUint16(t.data[len(t.data)-2:], 0xffff)
		}),
		prefix+"layers.0.linear_attn.A_log", func(t *tensor) {
			binary.LittleEndian.PutUint32(t.data[4:], math.Float32bits(float32(math.Inf(-1))))
		})))
	return list
}
