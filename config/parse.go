package config

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/strictjson"
)

// The largest sizes that are read. They are far above every published model and keep the product of any four of
// them (experts x rows x columns x bytes) inside int64.
const (
	maxFile      = 16 << 20 // bytes of config.json
	maxHidden    = 1 << 17
	maxLayers    = 1 << 10
	maxVocab     = 1 << 22
	maxPositions = 1 << 30
	maxHeads     = 1 << 10
	maxHeadDim   = 1 << 12
	maxFFN       = 1 << 20
	maxExperts   = 1 << 12
)

// MaxConvKernel is the most taps of the depthwise conv that are read.
const MaxConvKernel = 64

const fromBase = "copy it from the base model's config.json; sibyl assumes no default"

// Parse reads a config.json: the text model's part, at top level or under text_config. file is for messages. All
// that decides a result is read or refused; keys that decide nothing (dropout, dtype, vision) are passed over.
// What may be absent is listed in Exceptions. Errors are *inputerr.Error.
// Source of the keys: transformers 5.23, configuration_qwen3_5.py and configuration_qwen3_5_moe.py.
func Parse(file string, data []byte) (*Config, error) {
	if strings.HasPrefix(string(data[:min(len(data), 64)]), "version https://git-lfs") {
		return nil, &inputerr.Error{File: file, Found: "a Git LFS pointer", Want: "the file itself",
			Do: "run `git lfs pull` in the folder it came from, or download the file again"}
	}
	if len(data) > maxFile {
		return nil, &inputerr.Error{File: file, Found: fmt.Sprintf("%d bytes", len(data)), Want: fmt.Sprintf("at most %d", maxFile), Do: "is this a config.json?"}
	}
	root, err := parseRoot(file, data)
	if err != nil {
		return nil, err
	}
	r := &reader{file: file}
	c := &Config{File: file}
	text := root
	if v, ok := root.m["text_config"]; ok {
		if v.kind != strictjson.Object {
			return nil, r.fail("text_config", v.String(), "an object", "give the text model's config there or at top level")
		}
		text = section{path: "text_config.", m: v.obj}
	}
	r.identity(c, root, text)
	r.refuseUnknown(c, root, text)
	r.sizes(c, text)
	r.attention(c, text)
	r.deltaNet(c, text)
	r.mlp(c, text)
	r.layers(c, text)
	r.ties(c, root, text)
	r.eos(c, root, text)
	if r.err != nil {
		return nil, r.err
	}
	slices.Sort(c.Assumed)
	return c, nil
}

// families maps the model types to whether they are mixtures of experts. "Is this our architecture" is asked of
// the name and never of the shape: a near relative (qwen3_next) would load and compute something else.
var families = map[string]bool{
	"qwen3_5": false, "qwen3_5_text": false,
	"qwen3_5_moe": true, "qwen3_5_moe_text": true,
}

// architectures maps what config.json may list to whether they are mixtures of experts.
var architectures = map[string]bool{
	"Qwen3_5ForConditionalGeneration": false, "Qwen3_5ForCausalLM": false,
	"Qwen3_5MoeForConditionalGeneration": true, "Qwen3_5MoeForCausalLM": true,
}

const family = "qwen3_5 or qwen3_5_moe (Qwen3.5, 3.6, 3.8)"

func (r *reader) identity(c *Config, root, text section) {
	c.ModelType = r.text(root, "model_type", "")
	moe, ok := families[c.ModelType]
	if !ok {
		r.fail("model_type", inputerr.Clip(c.ModelType, 60), family, "sibyl reads this family only")
		return
	}
	if moe {
		c.MoE = &MoE{}
	}
	for i, a := range r.list(root, "architectures") {
		field := fmt.Sprintf("architectures[%d]", i)
		if a.kind != strictjson.String {
			r.fail(field, a.String(), "a string", "")
			return
		}
		if isMoE, ok := architectures[a.text]; !ok || isMoE != moe {
			r.fail(field, inputerr.Clip(a.text, 60), "an architecture of "+c.ModelType, "sibyl reads this family only")
			return
		}
		c.Architectures = append(c.Architectures, a.text)
	}
	if text.path == "" {
		return
	}
	inner := r.text(text, "model_type", c.ModelType)
	if isMoE, ok := families[inner]; r.err == nil && (!ok || isMoE != moe) {
		r.fail("text_config.model_type", inputerr.Clip(inner, 60), "the text model of "+c.ModelType, "sibyl reads this family only")
	}
}

func (r *reader) sizes(c *Config, t section) {
	c.HiddenSize = r.count(t, "hidden_size", maxHidden)
	c.NumLayers = r.count(t, "num_hidden_layers", maxLayers)
	c.VocabSize = r.count(t, "vocab_size", maxVocab)
	c.MaxPositions = r.count(t, "max_position_embeddings", maxPositions)
	c.RMSNormEps = r.float(t, "rms_norm_eps")
	if r.err == nil && !(c.RMSNormEps > 0 && c.RMSNormEps < 1) {
		r.fail(t.path+"rms_norm_eps", fmt.Sprint(c.RMSNormEps), "a number between 0 and 1", fromBase)
	}
}

func (r *reader) attention(c *Config, t section) {
	c.NumHeads = r.count(t, "num_attention_heads", maxHeads)
	c.NumKVHeads = r.count(t, "num_key_value_heads", maxHeads)
	c.HeadDim = r.count(t, "head_dim", maxHeadDim)
	r.multiple(t, "num_attention_heads", c.NumHeads, "num_key_value_heads", c.NumKVHeads)
	r.rope(c, t)
}

func (r *reader) deltaNet(c *Config, t section) {
	c.KeyHeads = r.count(t, "linear_num_key_heads", maxHeads)
	c.ValueHeads = r.count(t, "linear_num_value_heads", maxHeads)
	c.KeyDim = r.count(t, "linear_key_head_dim", maxHeadDim)
	c.ValueDim = r.count(t, "linear_value_head_dim", maxHeadDim)
	c.ConvKernel = r.count(t, "linear_conv_kernel_dim", MaxConvKernel)
	r.multiple(t, "linear_num_value_heads", c.ValueHeads, "linear_num_key_heads", c.KeyHeads)
}

func (r *reader) mlp(c *Config, t section) {
	if c.MoE == nil {
		c.IntermediateSize = r.count(t, "intermediate_size", maxFFN)
		return
	}
	*c.MoE = MoE{
		NumExperts:             r.count(t, "num_experts", maxExperts),
		TopK:                   r.count(t, "num_experts_per_tok", maxExperts),
		IntermediateSize:       r.count(t, "moe_intermediate_size", maxFFN),
		SharedIntermediateSize: r.count(t, "shared_expert_intermediate_size", maxFFN),
	}
	if r.err == nil && c.MoE.TopK > c.MoE.NumExperts {
		r.fail(t.path+"num_experts_per_tok", fmt.Sprint(c.MoE.TopK), fmt.Sprintf("at most num_experts, %d", c.MoE.NumExperts), fromBase)
	}
}

// layers reads layer_types, and only where it is absent full_attention_interval: layer i is full attention when
// (i+1) % interval == 0 (Qwen3_5TextConfig.__post_init__).
func (r *reader) layers(c *Config, t section) {
	if r.err != nil {
		return
	}
	if !t.has("layer_types") {
		n := r.count(t, "full_attention_interval", maxLayers)
		for i := range c.NumLayers {
			kind := GatedDeltaNet
			if n > 0 && (i+1)%n == 0 {
				kind = FullAttention
			}
			c.Layers = append(c.Layers, kind)
		}
		return
	}
	list := r.list(t, "layer_types")
	if r.err == nil && len(list) != c.NumLayers {
		r.fail(t.path+"layer_types", fmt.Sprintf("%d entries", len(list)), fmt.Sprintf("%d, one for each of num_hidden_layers", c.NumLayers), fromBase)
	}
	for i, v := range list {
		switch v.text {
		case "linear_attention":
			c.Layers = append(c.Layers, GatedDeltaNet)
		case "full_attention":
			c.Layers = append(c.Layers, FullAttention)
		default:
			r.fail(fmt.Sprintf("%slayer_types[%d]", t.path, i), v.String(), "linear_attention or full_attention", "sibyl knows these two mixers")
			return
		}
	}
}

// ties reads tie_word_embeddings from both places. transformers reads the top level for ForConditionalGeneration
// and the text config for ForCausalLM, so two values that differ mean two models.
func (r *reader) ties(c *Config, root, t section) {
	c.TieWordEmbeddings = r.bool(c, t, "tie_word_embeddings", root.has("tie_word_embeddings") && t.path != "")
	if t.path == "" || !root.has("tie_word_embeddings") {
		return
	}
	top := r.bool(c, root, "tie_word_embeddings", false)
	if r.err == nil && t.has("tie_word_embeddings") && top != c.TieWordEmbeddings {
		r.fail("tie_word_embeddings", fmt.Sprintf("%v, and %v under text_config", top, c.TieWordEmbeddings), "one value",
			"look whether lm_head.weight is a tensor of its own (false) and set both to the same")
	}
	c.TieWordEmbeddings = top
}

// eos reads a number or a list from the text config, else from the top level; none is allowed.
func (r *reader) eos(c *Config, root, t section) {
	s := t
	if !t.has("eos_token_id") {
		s = root
	}
	if !s.has("eos_token_id") {
		c.Assumed = append(c.Assumed, "eos_token_id")
		return
	}
	v := s.m["eos_token_id"]
	ids := []value{v}
	if v.kind == strictjson.Array {
		ids = v.list
	}
	for _, id := range ids {
		n, ok := id.natural()
		if !ok || n >= math.MaxInt32 || r.err == nil && n >= uint64(c.VocabSize) {
			r.fail(s.path+"eos_token_id", id.String(), fmt.Sprintf("ids below vocab_size, %d", c.VocabSize), fromBase)
			return
		}
		c.EOS = append(c.EOS, int32(n))
	}
}
