// Package config holds what a Qwen3.5-family model is: its sizes, its layer kinds and the roles of its tensors.
// It is a leaf: it knows names and shapes, no files' bytes and no math.
package config

// LayerKind tells the two mixers of the family apart.
type LayerKind uint8

const (
	// GatedDeltaNet is the linear-attention mixer ("linear_attention" in layer_types).
	GatedDeltaNet LayerKind = iota
	// FullAttention is the gated GQA mixer ("full_attention").
	FullAttention
)

// String gives the name used in layer_types.
func (k LayerKind) String() string {
	if k == FullAttention {
		return "full_attention"
	}
	return "linear_attention"
}

// Config is the text model's configuration, validated: every count is positive and within bounds,
// every division below is exact. Shapes elsewhere are functions of it.
type Config struct {
	// File is where it was read, for messages.
	File string
	// ModelType and Architectures are as in the file ("qwen3_5", "qwen3_5_moe", ...).
	ModelType     string
	Architectures []string

	HiddenSize   int // width of the residual stream
	NumLayers    int
	VocabSize    int // rows of the embedding and of the head, padding included
	MaxPositions int // max_position_embeddings
	Layers       []LayerKind

	// Gated attention.
	NumHeads, NumKVHeads, HeadDim int
	RotaryDim                     int     // partial_rotary_factor * head_dim, even
	RopeTheta                     float64 // no default exists
	MRopeSection                  [3]int  // T, H, W; sums to RotaryDim/2
	MRopeInterleaved              bool

	// GatedDeltaNet: key heads of KeyDim, value heads of ValueDim; ValueHeads is a multiple of KeyHeads.
	KeyHeads, ValueHeads int
	KeyDim, ValueDim     int
	ConvKernel           int // taps of the depthwise conv (4)

	IntermediateSize int  // dense MLP width; 0 when MoE is set
	MoE              *MoE // nil for dense models

	RMSNormEps        float64
	TieWordEmbeddings bool

	EOS []int32 // eos_token_id of the text config, possibly none

	// Assumed names the keys that the file lacks and Exceptions fills in, sorted.
	Assumed []string
}

// MoE describes the mixture-of-experts MLP.
type MoE struct {
	NumExperts             int
	TopK                   int // num_experts_per_tok
	IntermediateSize       int // of each routed expert
	SharedIntermediateSize int // of the shared expert
}

// QKVDim is the width of in_proj_qkv, which is also the channel count of the conv: 2*KeyHeads*KeyDim + ValueHeads*ValueDim.
func (c *Config) QKVDim() int { return 2*c.KeyHeads*c.KeyDim + c.ValueHeads*c.ValueDim }

// ValueWidth is ValueHeads*ValueDim, the width of in_proj_z and of out_proj's input.
func (c *Config) ValueWidth() int { return c.ValueHeads * c.ValueDim }

// QWidth is NumHeads*HeadDim, the width of o_proj's input (q_proj gives twice that: query and gate).
func (c *Config) QWidth() int { return c.NumHeads * c.HeadDim }

// KVWidth is NumKVHeads*HeadDim.
func (c *Config) KVWidth() int { return c.NumKVHeads * c.HeadDim }
