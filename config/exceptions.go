package config

import (
	"fmt"

	"sibyl/internal/strictjson"
)

// Exception is a key that may be absent from config.json: what is then assumed, and whose word that is.
type Exception struct {
	Key     string // within the text config
	Assumed string
	Source  string
}

// Exceptions lists every key whose absence is not an error. Config.Assumed names those that one file lacked.
// transformers means version 5.23, file modeling_ or configuration_qwen3_5.py.
var Exceptions = []Exception{
	{"attention_bias", "false", "transformers, Qwen3_5TextConfig.attention_bias; no published checkpoint has biases"},
	{"attn_output_gate", "true", "transformers, Qwen3_5Attention.forward gates always and never reads the key"},
	{"decoder_sparse_step", "1", "transformers, Qwen3_5MoeDecoderLayer: every layer has a sparse block"},
	{"eos_token_id", "none", "transformers, Qwen3_5TextConfig.eos_token_id = None; generation then ends at its length"},
	{"mlp_only_layers", "[]", "transformers, Qwen3_5MoeDecoderLayer: every layer has a sparse block"},
	{"mrope_interleaved", "true", "transformers, Qwen3_5TextRotaryEmbedding.apply_interleaved_mrope is called always"},
	{"mrope_section", "[11, 11, 10] where the rotary dimensions are 64", "transformers, Qwen3_5TextRotaryEmbedding.__init__; text needs none, its three axes are equal"},
	{"norm_topk_prob", "true", "transformers, Qwen3_5MoeTopKRouter.forward renormalises always"},
	{"output_gate_type", "sigmoid", "transformers, Qwen3_5Attention.forward: out * sigmoid(gate) whatever the key says"},
	{"rope_type", "default", "transformers, RotaryEmbeddingConfigMixin: unscaled rope unless a type is named"},
	{"tie_word_embeddings", "false", "transformers, Qwen3_5Config and Qwen3_5TextConfig"},
}

// fixed are the keys whose other values would change a result in a way sibyl does not compute.
var fixed = []struct {
	key     string
	moe     bool     // judged in mixtures of experts only
	needed  bool     // absence is an error
	allowed []string // as JSON text
	do      string
}{
	{"hidden_act", false, true, []string{`"silu"`}, "sibyl computes silu only"},
	{"attention_bias", false, false, []string{"false"}, "sibyl knows no biases in this family"},
	{"attn_output_gate", false, false, []string{"true"}, "the family's attention is always gated"},
	{"output_gate_type", false, false, []string{`"swish"`, `"sigmoid"`, "null"}, "both mean out * sigmoid(gate) here; nothing else is known"},
	{"norm_topk_prob", true, false, []string{"true"}, "the family's router always renormalises"},
	{"decoder_sparse_step", true, false, []string{"1"}, "the family's layers are all sparse"},
	{"mlp_only_layers", true, false, []string{"[]", "null"}, "the family's layers are all sparse"},
	{"use_sliding_window", false, false, []string{"false", "null"}, "sibyl's attention sees all positions"},
	{"layer_norm_eps", false, false, []string{"null"}, "the family's key is rms_norm_eps"},
}

// silent are keys of fixed that need no line in Exceptions: they are not part of the family's config at all.
var silent = map[string]bool{"use_sliding_window": true, "layer_norm_eps": true}

// refuseUnknown refuses values that would change a result and that nobody here computes.
func (r *reader) refuseUnknown(c *Config, root, t section) {
	for _, f := range fixed {
		v, ok := t.m[f.key]
		switch {
		case f.moe && c.MoE == nil:
		case !ok && f.needed:
			r.fail(t.path+f.key, "nothing", f.allowed[0], fromBase)
		case !ok:
			if !silent[f.key] {
				c.Assumed = append(c.Assumed, f.key)
			}
		case !contains(f.allowed, v.String()):
			r.fail(t.path+f.key, v.String(), f.allowed[0], f.do)
		}
	}
	for _, s := range []section{root, t} {
		for _, key := range []string{"quantization_config", "quantization"} {
			if v, ok := s.m[key]; ok && v.kind != strictjson.Null && v.obj["quant_method"].text != "sibyl" {
				r.fail(s.path+key, "a quantized checkpoint", "weights in F32, F16 or BF16", "use the unquantized checkpoint; sibyl quantizes by itself")
			}
		}
	}
	if v, ok := t.m["num_experts"]; ok && c.MoE == nil {
		if n, isNumber := v.natural(); !isNumber || n != 0 {
			r.fail(t.path+"num_experts", v.String(), "nothing in a "+c.ModelType+" model", "is this a mixture of experts? its model_type is qwen3_5_moe")
		}
	}
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

// multiple demands that a is a multiple of b.
func (r *reader) multiple(t section, aKey string, a int, bKey string, b int) {
	if r.err == nil && a%b != 0 {
		r.fail(t.path+aKey, fmt.Sprint(a), fmt.Sprintf("a multiple of %s, %d", bKey, b), fromBase)
	}
}
