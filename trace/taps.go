// Package trace holds the one list of tap names, the sinks that record taps, and trace files.
//
// A tap is a tensor of the forward pass with a name, a shape and a meaning. Engines hand taps to an
// engine.Sink; a Recorder keeps them in memory, a Writer puts them into a trace file, which is a safetensors
// file of token-major tensors. The names and shapes are those of Hugging Face's forward pass
// (transformers, models/qwen3_5/modeling_qwen3_5.py and qwen3_5_moe), read off at the boundaries the table names.
package trace

import (
	"strconv"
	"strings"
	"sync"

	"sibyl/config"
)

// Tap is one kind of tensor; with a layer number, if it is per layer, it names one tensor.
type Tap uint8

// The taps, in the order of the math: within a layer, then top level, then the states at the end.
const (
	InputIDs Tap = iota
	Embed

	InputNorm

	GDNInProjQKV
	GDNInProjZ
	GDNInProjB
	GDNInProjA
	GDNConvPreSilu
	GDNConvOut
	GDNQL2
	GDNKL2
	GDNV
	GDNG
	GDNBeta
	GDNCoreOut
	GDNGatedNorm
	GDNOutProj

	AttnQProj
	AttnQNorm
	AttnKProj
	AttnKNorm
	AttnVProj
	AttnQRope
	AttnKRope
	AttnOutPreGate
	AttnOutGated
	AttnOProj

	AfterMixer
	PostAttnNorm

	MoERouterLogitsRaw
	MoERouterProbs
	MoETopKWeights
	MoETopKIndex
	MoEExpertsOut
	MoESharedOutUngated
	MoESharedGateLogit

	MLPOut
	LayerOut

	FinalNorm
	Logits

	CacheConvState
	CacheRecurrentState
	CacheKey
	CacheValue

	NumTaps
)

// OpResult is the result of an operation of a bundle's graph, "op.N" for the N-th of function main: a tap beside the table,
// whose tensors have the graph's widths, [T, width] in F32. Its layer number is N. Engines that execute a graph list theirs.
const OpResult = NumTaps + 1

// Where says in which layers a tap exists.
type Where uint8

// The places.
const (
	Top       Where = iota // once, no layer number
	EachLayer              // in every layer
	GDNLayer               // in layers of config.GatedDeltaNet
	AttnLayer              // in layers of config.FullAttention
	MoELayer               // in every layer of a mixture-of-experts model
)

// String is the word used in the table of taps.
func (w Where) String() string {
	return [...]string{"top", "every layer", "GDN layers", "attention layers", "MoE layers"}[w]
}

// DType is a tap's storage type in trace files.
type DType string

// The storage types: everything is F32 except ids and expert numbers.
const (
	F32 DType = "F32"
	I32 DType = "I32"
)

// tapTable says for each tap everything there is to say. shape is the whole shape for a sequence of T tokens;
// axes is the same in words. prefix "layer" means "layerN.", "cache" means "cache.layerN.".
var tapTable = [NumTaps]struct {
	prefix, name string
	where        Where
	dtype        DType
	axes         string
	shape        func(c *config.Config, t int) []int
	meaning      string
}{
	InputIDs: {"", "input_ids", Top, I32, "T",
		func(_ *config.Config, t int) []int { return []int{t} }, "the token ids that were run"},
	Embed: {"", "embed", Top, F32, "T,hidden", hidden, "embedding rows, the input of layer 0"},

	InputNorm: {"layer", "input_norm", EachLayer, F32, "T,hidden", hidden, "input_layernorm output, the mixer's input"},

	GDNInProjQKV:   {"layer", "gdn.in_proj_qkv", GDNLayer, F32, "T,conv_dim", qkv, "raw projection: q of all key heads, k of all key heads, v of all value heads"},
	GDNInProjZ:     {"layer", "gdn.in_proj_z", GDNLayer, F32, "T,v_heads*dv", valueWidth, "raw projection of the output gate z"},
	GDNInProjB:     {"layer", "gdn.in_proj_b", GDNLayer, F32, "T,v_heads", valueHeads, "raw projection of the write strength, before sigmoid"},
	GDNInProjA:     {"layer", "gdn.in_proj_a", GDNLayer, F32, "T,v_heads", valueHeads, "raw projection of the decay, before softplus"},
	GDNConvPreSilu: {"layer", "gdn.conv_pre_silu", GDNLayer, F32, "T,conv_dim", qkv, "causal depthwise conv before silu, channels as in_proj_qkv"},
	GDNConvOut:     {"layer", "gdn.conv_out", GDNLayer, F32, "T,conv_dim", qkv, "the conv after silu"},
	GDNQL2:         {"layer", "gdn.q_l2", GDNLayer, F32, "T,k_heads,dk", keyHeads, "query after l2norm, before the dk^-0.5 scale, heads not repeated"},
	GDNKL2:         {"layer", "gdn.k_l2", GDNLayer, F32, "T,k_heads,dk", keyHeads, "key after l2norm, heads not repeated"},
	GDNV:           {"layer", "gdn.v", GDNLayer, F32, "T,v_heads,dv", valueDims, "value, a slice of conv_out"},
	GDNG:           {"layer", "gdn.g", GDNLayer, F32, "T,v_heads", valueHeads, "log decay, never positive: -exp(A_log) * softplus(a + dt_bias)"},
	GDNBeta:        {"layer", "gdn.beta", GDNLayer, F32, "T,v_heads", valueHeads, "write strength, sigmoid(b)"},
	GDNCoreOut:     {"layer", "gdn.core_out", GDNLayer, F32, "T,v_heads,dv", valueDims, "output of the delta rule"},
	GDNGatedNorm:   {"layer", "gdn.gated_norm", GDNLayer, F32, "T,v_heads*dv", valueWidth, "core_out normalised per head, times silu(z): out_proj's input"},
	GDNOutProj:     {"layer", "gdn.out_proj", GDNLayer, F32, "T,hidden", hidden, "the mixer's output"},

	AttnQProj:      {"layer", "attn.q_proj", AttnLayer, F32, "T,heads*2*hd", qGate, "raw projection: per head hd of query, then hd of gate"},
	AttnQNorm:      {"layer", "attn.q_norm", AttnLayer, F32, "T,heads,hd", queryHeads, "query after its RMSNorm, before rope"},
	AttnKProj:      {"layer", "attn.k_proj", AttnLayer, F32, "T,kv_heads*hd", kvWidth, "raw key projection"},
	AttnKNorm:      {"layer", "attn.k_norm", AttnLayer, F32, "T,kv_heads,hd", kvHeads, "key after its RMSNorm, before rope"},
	AttnVProj:      {"layer", "attn.v_proj", AttnLayer, F32, "T,kv_heads*hd", kvWidth, "value projection"},
	AttnQRope:      {"layer", "attn.q_rope", AttnLayer, F32, "T,heads,hd", queryHeads, "query after rope"},
	AttnKRope:      {"layer", "attn.k_rope", AttnLayer, F32, "T,kv_heads,hd", kvHeads, "key after rope, as cached"},
	AttnOutPreGate: {"layer", "attn.out_pre_gate", AttnLayer, F32, "T,heads*hd", qWidth, "softmax(q k^T) v"},
	AttnOutGated:   {"layer", "attn.out_gated", AttnLayer, F32, "T,heads*hd", qWidth, "times sigmoid(gate): o_proj's input"},
	AttnOProj:      {"layer", "attn.o_proj", AttnLayer, F32, "T,hidden", hidden, "the mixer's output"},

	AfterMixer:   {"layer", "after_mixer", EachLayer, F32, "T,hidden", hidden, "residual stream after the mixer was added"},
	PostAttnNorm: {"layer", "post_attn_norm", EachLayer, F32, "T,hidden", hidden, "post_attention_layernorm output, the MLP's input"},

	MoERouterLogitsRaw:  {"layer", "moe.router_logits_raw", MoELayer, F32, "T,experts", experts, "router logits"},
	MoERouterProbs:      {"layer", "moe.router_probs", MoELayer, F32, "T,experts", experts, "softmax over all experts"},
	MoETopKWeights:      {"layer", "moe.topk_weights", MoELayer, F32, "T,top_k", topK, "the chosen experts' probabilities, renormalised to sum 1, descending"},
	MoETopKIndex:        {"layer", "moe.topk_index", MoELayer, I32, "T,top_k", topK, "the chosen experts, in the order of their weights"},
	MoEExpertsOut:       {"layer", "moe.experts_out", MoELayer, F32, "T,hidden", hidden, "weighted sum of the routed experts"},
	MoESharedOutUngated: {"layer", "moe.shared_out_ungated", MoELayer, F32, "T,hidden", hidden, "shared expert's output before its gate"},
	MoESharedGateLogit: {"layer", "moe.shared_gate_logit", MoELayer, F32, "T,1",
		func(_ *config.Config, t int) []int { return []int{t, 1} }, "shared expert's gate before sigmoid"},

	MLPOut:   {"layer", "mlp_out", EachLayer, F32, "T,hidden", hidden, "output of the MLP or MoE block, before it is added"},
	LayerOut: {"layer", "out", EachLayer, F32, "T,hidden", hidden, "residual stream after the layer"},

	FinalNorm: {"", "final_norm", Top, F32, "T,hidden", hidden, "final RMSNorm output, the head's input"},
	Logits: {"", "logits", Top, F32, "T,vocab",
		func(c *config.Config, t int) []int { return []int{t, c.VocabSize} }, "the head's output"},

	CacheConvState: {"cache", "conv_state", GDNLayer, F32, "conv_dim,taps",
		func(c *config.Config, _ int) []int { return []int{c.QKVDim(), c.ConvKernel} },
		"the last columns of in_proj_qkv at the end, oldest first, zeros on the left if fewer were seen"},
	CacheRecurrentState: {"cache", "recurrent_state", GDNLayer, F32, "v_heads,dk,dv",
		func(c *config.Config, _ int) []int { return []int{c.ValueHeads, c.KeyDim, c.ValueDim} },
		"the delta rule's state S at the end"},
	CacheKey:   {"cache", "key", AttnLayer, F32, "kv_heads,T,hd", kvCache, "keys after rope, at the end"},
	CacheValue: {"cache", "value", AttnLayer, F32, "kv_heads,T,hd", kvCache, "values at the end"},
}

func hidden(c *config.Config, t int) []int     { return []int{t, c.HiddenSize} }
func qkv(c *config.Config, t int) []int        { return []int{t, c.QKVDim()} }
func valueWidth(c *config.Config, t int) []int { return []int{t, c.ValueWidth()} }
func valueHeads(c *config.Config, t int) []int { return []int{t, c.ValueHeads} }
func valueDims(c *config.Config, t int) []int  { return []int{t, c.ValueHeads, c.ValueDim} }
func keyHeads(c *config.Config, t int) []int   { return []int{t, c.KeyHeads, c.KeyDim} }
func qGate(c *config.Config, t int) []int      { return []int{t, 2 * c.QWidth()} }
func qWidth(c *config.Config, t int) []int     { return []int{t, c.QWidth()} }
func kvWidth(c *config.Config, t int) []int    { return []int{t, c.KVWidth()} }
func queryHeads(c *config.Config, t int) []int { return []int{t, c.NumHeads, c.HeadDim} }
func kvHeads(c *config.Config, t int) []int    { return []int{t, c.NumKVHeads, c.HeadDim} }
func kvCache(c *config.Config, t int) []int    { return []int{c.NumKVHeads, t, c.HeadDim} }
func experts(c *config.Config, t int) []int    { return []int{t, c.MoE.NumExperts} }
func topK(c *config.Config, t int) []int       { return []int{t, c.MoE.TopK} }

// opPrefix is what names of operations' results begin with.
const opPrefix = "op."

// PerLayer says whether the tap's name carries a layer number.
func (t Tap) PerLayer() bool { return t < NumTaps && tapTable[t].where != Top }

// Where says in which layers the tap exists.
func (t Tap) Where() Where {
	if t == OpResult {
		return Top
	}
	return tapTable[t].where
}

// Cache says whether the tap is a state at the end. Sinks get such a tensor whole, with one Put of
// pos 0 and rows 1; all other taps are rows of tokens.
func (t Tap) Cache() bool { return t < NumTaps && tapTable[t].prefix == "cache" }

// DType is the storage type in trace files. Sinks get I32 taps as float32 values of small integers.
func (t Tap) DType() DType {
	if t == OpResult {
		return F32
	}
	return tapTable[t].dtype
}

// Axes is the shape in words, comma separated: "T,kv_heads,hd".
func (t Tap) Axes() string {
	if t == OpResult {
		return "T,width"
	}
	return tapTable[t].axes
}

// Meaning is one sentence.
func (t Tap) Meaning() string { return tapTable[t].meaning }

// Shape is the tensor's whole shape for a sequence of tokens tokens. It must not be asked for MoE taps of a dense model.
func (t Tap) Shape(c *config.Config, tokens int) []int { return tapTable[t].shape(c, tokens) }

// Short is the name without the layer: "gdn.q_l2", "logits", "cache.key".
func (t Tap) Short() string {
	if t.Cache() {
		return "cache." + tapTable[t].name
	}
	return tapTable[t].name
}

// String is the name as lists print it, with N for the layer: "layerN.gdn.q_l2".
func (t Tap) String() string {
	if t == OpResult {
		return opPrefix + "N"
	}
	if t >= NumTaps {
		return "tap(" + strconv.Itoa(int(t)) + ")"
	}
	return t.spell("N")
}

// In says whether layer (of a model with config c) has this tap; top-level taps are in no layer.
func (t Tap) In(c *config.Config, layer int) bool {
	switch t.Where() {
	case EachLayer:
		return true
	case GDNLayer:
		return c.Layers[layer] == config.GatedDeltaNet
	case AttnLayer:
		return c.Layers[layer] == config.FullAttention
	case MoELayer:
		return c.MoE != nil
	}
	return false
}

// cachedLayers is how many layers Name serves without allocating; the family's largest model has 64.
const cachedLayers = 256

var nameCache [NumTaps]struct {
	once  sync.Once
	names [cachedLayers]string
}

// Name is the tensor's name: "embed", "layer3.attn.q_rope", "cache.layer3.key". layer is ignored for taps that
// are not per layer. It does not allocate for layers below 256 once the tap was named before.
func (t Tap) Name(layer int) string {
	if t == OpResult {
		return opPrefix + strconv.Itoa(layer)
	}
	if !t.PerLayer() {
		return tapTable[t].name
	}
	if layer < 0 || layer >= cachedLayers {
		return t.spell(strconv.Itoa(layer))
	}
	c := &nameCache[t]
	c.once.Do(func() {
		for l := range c.names {
			c.names[l] = t.spell(strconv.Itoa(l))
		}
	})
	return c.names[layer]
}

func (t Tap) spell(layer string) string {
	switch tapTable[t].prefix {
	case "layer":
		return "layer" + layer + "." + tapTable[t].name
	case "cache":
		return "cache.layer" + layer + "." + tapTable[t].name
	}
	return tapTable[t].name
}

var byShort = func() map[string]Tap {
	m := make(map[string]Tap, NumTaps)
	for t := range NumTaps {
		m[t.Short()] = t
	}
	return m
}()

// maxLayers bounds layer numbers read from names: walks over layers stay short whatever a file claims.
const maxLayers = 1024

// maxOps bounds numbers of operations: a 64-layer model's main has some ten thousand.
const maxOps = 1 << 24

// Parse reads a name back; layer is -1 for taps that are not per layer. Layer numbers are plain decimal without
// leading zeros, as Name writes them, below 1024.
func Parse(name string) (t Tap, layer int, ok bool) {
	if digits, ok := strings.CutPrefix(name, opPrefix); ok {
		n, err := strconv.Atoi(digits)
		return OpResult, n, err == nil && n >= 0 && n < maxOps && strconv.Itoa(n) == digits
	}
	short, cache := name, ""
	if rest, found := strings.CutPrefix(short, "cache."); found {
		short, cache = rest, "cache."
	}
	digits, rest, found := strings.Cut(strings.TrimPrefix(short, "layer"), ".")
	if !strings.HasPrefix(short, "layer") || !found {
		t, ok = byShort[name]
		return t, -1, ok && !t.PerLayer()
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n >= maxLayers || strconv.Itoa(n) != digits {
		return 0, -1, false
	}
	t, ok = byShort[cache+rest]
	if !ok || !t.PerLayer() || t.Cache() != (cache != "") {
		return 0, -1, false
	}
	return t, n, true
}
