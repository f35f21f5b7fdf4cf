package malformed

import "strings"

const base = "; copy it from the base model's config.json; sibyl assumes no default"

// configs are folders that hold a config.json and nothing else: it is judged before the weights are looked for.
func configs() []Case {
	var list []Case
	raw := func(name, why, want string, content []byte) {
		list = append(list, Case{Name: "malformed/config/" + name, Why: why, Want: strings.Replace(want, "CONFIG", "PATH/config.json", 1), Files: map[string][]byte{"config.json": content}})
	}
	text := func(name, key string, v any, why, want string) {
		raw(name, why, want, wrap(tinyText().with(key, v)).json())
	}
	top := func(name, key string, v any, why, want string) {
		raw(name, why, want, wrap(tinyText()).with(key, v).json())
	}
	moe := func(name, key string, v any, why, want string) {
		raw(name, why, want, wrap(tinyMoE().with(key, v)).json())
	}
	ropes := func(name, key string, v any, why, want string) {
		raw(name, why, want, wrap(tinyText().with("rope_parameters", rope().with(key, v))).json())
	}
	notJSON := "; this is not JSON as a config.json has it; download the file again"

	raw("empty", "a file of no bytes", "CONFIG: byte 0: found the end of the text, want a value"+notJSON, nil)
	raw("not-json", "a saved web page", "CONFIG: byte 0: found '<', want a value"+notJSON, []byte("<html>"))
	raw("not-object", "valid JSON of another kind", "CONFIG: byte 0: found a list, want an object"+notJSON, []byte("[]"))
	raw("bad-utf8", "text of another encoding", "CONFIG: byte 16: found the byte 0xff, want UTF-8"+notJSON, []byte("{\"model_type\": \"\xff\"}"))
	raw("duplicate-key", "two meanings for one key; parsers take the last", `CONFIG: byte 24: found the key "model_type" a second time, want each key once`+notJSON,
		[]byte(`{"model_type":"qwen3_5",`+`"model_type":"qwen3_5"}`))
	raw("deep", "nesting without end", "CONFIG: byte 69: found more than 64 levels of nesting, want fewer"+notJSON, []byte(`{"x": `+strings.Repeat("[", 100000)))
	raw("lfs-pointer", "Git LFS was not installed", "CONFIG: found a Git LFS pointer, want the file itself; run `git lfs pull` in the folder it came from, or download the file again", []byte(lfs))
	raw("nan-eps", "Python's json module writes NaN", "CONFIG: text_config.rms_norm_eps: found NaN, want a finite number"+base,
		[]byte(strings.Replace(string(wrap(tinyText()).json()), "0.000001", "NaN", 1)))
	raw("nan-unused", "NaN in a key that decides nothing is still no JSON", "CONFIG: vision_config: found -Infinity, want a finite number"+base,
		[]byte(`{"vision_config": -Infinity}`))

	family := "; sibyl reads this family only"
	raw("other-architecture", "another family, by name", `CONFIG: model_type: found "llama", want qwen3_5 or qwen3_5_moe (Qwen3.5, 3.6, 3.8)`+family,
		object{"model_type": "llama", "architectures": []string{"LlamaForCausalLM"}, "hidden_size": 12}.json())
	raw("near-relative", "the nearest relative loads the same names and computes something else", `CONFIG: model_type: found "qwen3_next", want qwen3_5 or qwen3_5_moe (Qwen3.5, 3.6, 3.8)`+family,
		tinyMoE().with("model_type", "qwen3_next").json())
	top("no-model-type", "model_type", drop, "what it is must be said", "CONFIG: model_type: found nothing, want a string"+base)
	top("other-class", "architectures", []string{"Qwen3_5ForSequenceClassification"}, "a head of another kind", `CONFIG: architectures[0]: found "Qwen3_5ForSequenceClassification", want an architecture of qwen3_5`+family)
	top("moe-class", "architectures", []string{"Qwen3_5MoeForCausalLM"}, "class and type disagree", `CONFIG: architectures[0]: found "Qwen3_5MoeForCausalLM", want an architecture of qwen3_5`+family)
	text("moe-text", "model_type", "qwen3_5_moe_text", "outer and inner type disagree", `CONFIG: text_config.model_type: found "qwen3_5_moe_text", want the text model of qwen3_5`+family)
	top("text-config-list", "text_config", []int{}, "a config of another kind", "CONFIG: text_config: found [], want an object; give the text model's config there or at top level")
	top("quantized", "quantization_config", object{"quant_method": "fp8"}, "weights of other meaning under the same names", "CONFIG: quantization_config: found a quantized checkpoint, want weights in F32, F16 or BF16; use the unquantized checkpoint; sibyl quantizes by itself")

	text("zero-heads", "num_attention_heads", 0, "a division by zero", "CONFIG: text_config.num_attention_heads: found 0, want a whole number of 1 to 1024"+base)
	text("zero-kv-heads", "num_key_value_heads", 0, "a division by zero", "CONFIG: text_config.num_key_value_heads: found 0, want a whole number of 1 to 1024"+base)
	text("zero-key-heads", "linear_num_key_heads", 0, "a division by zero", "CONFIG: text_config.linear_num_key_heads: found 0, want a whole number of 1 to 1024"+base)
	text("negative-layers", "num_hidden_layers", -2, "a negative count", "CONFIG: text_config.num_hidden_layers: found -2, want a whole number of 1 to 1024"+base)
	text("huge-hidden", "hidden_size", uint64(1e18), "a product that overflows", "CONFIG: text_config.hidden_size: found 1000000000000000000, want a whole number of 1 to 131072"+base)
	text("fraction-hidden", "hidden_size", 12.5, "sizes are whole", "CONFIG: text_config.hidden_size: found 12.5, want a whole number of 1 to 131072"+base)
	text("string-hidden", "hidden_size", "12", "a number in quotes", `CONFIG: text_config.hidden_size: found "12", want a whole number of 1 to 131072`+base)
	text("null-head-dim", "head_dim", nil, "null is no value, and the fallback is another model's", "CONFIG: text_config.head_dim: found null, want a whole number of 1 to 4096"+base)
	text("q-heads-not-multiple", "num_key_value_heads", 3, "heads that share no key", "CONFIG: text_config.num_attention_heads: found 2, want a multiple of num_key_value_heads, 3"+base)
	raw("v-heads-not-multiple", "heads that share no key", "CONFIG: text_config.linear_num_value_heads: found 3, want a multiple of linear_num_key_heads, 2"+base,
		wrap(tinyText().with("linear_num_value_heads", 3).with("linear_num_key_heads", 2)).json())
	text("layer-types-length", "layer_types", []string{"linear_attention"}, "a layer of no kind", "CONFIG: text_config.layer_types: found 1 entries, want 2, one for each of num_hidden_layers"+base)
	text("layer-types-unknown", "layer_types", []string{"linear_attention", "sliding_attention"}, "a mixer nobody wrote", `CONFIG: text_config.layer_types[1]: found "sliding_attention", want linear_attention or full_attention; sibyl knows these two mixers`)
	text("layer-types-missing", "layer_types", drop, "neither the list nor the interval", "CONFIG: text_config.full_attention_interval: found nothing, want a whole number of 1 to 1024"+base)
	text("zero-eps", "rms_norm_eps", 0, "a division by zero for a zero vector", "CONFIG: text_config.rms_norm_eps: found 0, want a number between 0 and 1"+base)
	text("string-eps", "rms_norm_eps", "999", "a number in quotes", `CONFIG: text_config.rms_norm_eps: found "999", want a number > 0`+base)
	text("eos-outside", "eos_token_id", []int{3, 20}, "an id the model cannot choose", "CONFIG: text_config.eos_token_id: found 20, want ids below vocab_size, 20"+base)
	text("bias", "attention_bias", true, "an addition nobody wrote", "CONFIG: text_config.attention_bias: found true, want false; sibyl knows no biases in this family")
	text("gelu", "hidden_act", "gelu", "another function", `CONFIG: text_config.hidden_act: found "gelu", want "silu"; sibyl computes silu only`)
	text("no-act", "hidden_act", drop, "a function must be said", `CONFIG: text_config.hidden_act: found nothing, want "silu"`+base)
	text("no-gate", "attn_output_gate", false, "q_proj would have half its rows", "CONFIG: text_config.attn_output_gate: found false, want true; the family's attention is always gated")
	text("gate-type", "output_gate_type", "tanh", "another function", `CONFIG: text_config.output_gate_type: found "tanh", want "swish"; both mean out * sigmoid(gate) here; nothing else is known`)
	raw("dense-experts", "a mixture under a dense name", `CONFIG: text_config.num_experts: found 3, want nothing in a qwen3_5 model; is this a mixture of experts? its model_type is qwen3_5_moe`,
		wrap(tinyText()).with("text_config", tinyText().with("num_experts", 3)).json())

	theta := "CONFIG: text_config.rope_parameters.rope_theta: "
	ropes("no-theta", "rope_theta", drop, "transformers would take 10000, which is not this family's", theta+"found nothing, want a number > 0"+base)
	ropes("zero-theta", "rope_theta", 0, "an infinite frequency", theta+"found 0, want a number above 1"+base)
	ropes("string-theta", "rope_theta", "1e7", "a number in quotes", theta+`found "1e7", want a number > 0`+base)
	ropes("yarn", "rope_type", "yarn", "scaled rope", `CONFIG: text_config.rope_parameters.rope_type: found "yarn", want "default"; sibyl computes unscaled rope only; use the base model's config.json`)
	ropes("no-share", "partial_rotary_factor", drop, "transformers would rotate another share", "CONFIG: text_config.rope_parameters.partial_rotary_factor: found nothing, want a number > 0"+base)
	ropes("odd-share", "partial_rotary_factor", 0.4, "rotates pairs", "CONFIG: text_config.rope_parameters.partial_rotary_factor: found 0.4, want a share of head_dim 8 that is an even number of dimensions"+base)
	ropes("sections-sum", "mrope_section", []int{1, 1, 1}, "a frequency of no axis", "CONFIG: text_config.rope_parameters.mrope_section: found [1 1 1], a sum of 3, want a sum of 2, half the rotary dimensions"+base)
	ropes("sections-two", "mrope_section", []int{1, 1}, "an axis missing", "CONFIG: text_config.rope_parameters.mrope_section: found 2 entries, want three counts (T, H, W)"+base)
	ropes("sections-blocks", "mrope_interleaved", false, "the family's code ignores it", "CONFIG: text_config.rope_parameters.mrope_interleaved: found false, want true; the family's code interleaves whatever this says; set it to true")
	text("rope-list", "rope_parameters", []int{1}, "a config of another kind", "CONFIG: text_config.rope_parameters: found [1], want an object"+base)

	top("tie-contradiction", "tie_word_embeddings", true, "two classes would load two models", "CONFIG: tie_word_embeddings: found true, and false under text_config, want one value; look whether lm_head.weight is a tensor of its own (false) and set both to the same")

	moe("zero-experts", "num_experts", 0, "no experts in a mixture", "CONFIG: text_config.num_experts: found 0, want a whole number of 1 to 4096"+base)
	moe("top-k-over-experts", "num_experts_per_tok", 4, "more than there are", "CONFIG: text_config.num_experts_per_tok: found 4, want at most num_experts, 3"+base)
	moe("router-raw", "norm_topk_prob", false, "weights that do not sum to 1", "CONFIG: text_config.norm_topk_prob: found false, want true; the family's router always renormalises")
	moe("dense-layers", "mlp_only_layers", []int{1}, "layers without experts", "CONFIG: text_config.mlp_only_layers: found [1], want []; the family's layers are all sparse")
	moe("sparse-step", "decoder_sparse_step", 2, "layers without experts", "CONFIG: text_config.decoder_sparse_step: found 2, want 1; the family's layers are all sparse")
	return list
}
