// Package precision names every rounding point of the model and says, as data, what each contract rounds there.
//
// A Contract is a table: adding one adds no branch to the math. The math computes each named operation to
// float32 (exactly rounded in exact mode) and hands whole vectors to Contract.Round. Narrow types exist only as
// values on the float32 grid: every float16 and bfloat16 value is a float32.
package precision

// Round is a grid that values are rounded to, nearest even, from float32.
type Round uint8

const (
	// F32 leaves a value as it is: every operation already ends on the float32 grid.
	F32 Round = iota
	// F16 is IEEE binary16 with subnormals and infinities.
	F16
	// BF16 is bfloat16.
	BF16
)

// String is "F32", "F16" or "BF16", as in safetensors.
func (r Round) String() string { return [...]string{"F32", "F16", "BF16"}[r] }

// MarshalText makes JSON say what String says.
func (r Round) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Point names one place where a value may be rounded.
type Point uint8

// The points, in the order of the math.
const (
	Embed Point = iota // the embedding row
	Norm               // RMSNorm out: input, post-attention, final, q and k norm

	Linear // every matrix product's out, head excepted

	ConvProduct // tap times column
	ConvPartial // running sum of the products
	ConvSum     // conv out before silu
	ConvOut     // after silu
	L2Square    // x*x
	L2Sum       // sum of squares
	L2Eps       // sum + eps
	L2Rsqrt     // rsqrt of it
	L2Out       // x * rsqrt
	QScale      // q * dk^-0.5
	Beta        // sigmoid(b)
	G           // log decay
	CoreOut     // delta-rule out
	GatedNormed // o * rsqrt(mean square)
	GatedWeight // times w
	GatedOut    // times silu(z)

	RopeTable   // cos and sin
	RopeProduct // x*cos and rot(x)*sin
	RopeOut     // their sum
	ScoreQuery  // q * hd^-0.5, where the contract scales the query
	Score       // q.k
	ScoreScaled // scores * hd^-0.5, where the contract scales the scores
	ScoreMasked // after adding the causal mask
	Softmax     // attention weights
	AttnOut     // weights . v
	GateSigmoid // sigmoid(gate)
	AttnGated   // out * sigmoid(gate)

	Residual // x + mixer, x + mlp

	MLPSilu // silu(gate)
	MLPMul  // silu(gate) * up

	RouterProb     // softmax over the experts
	RouterWeight   // renormalised top-k weight
	ExpertWeighted // expert out * weight
	ExpertPartial  // running sum over experts
	ExpertSum      // the routed sum
	SharedSigmoid  // sigmoid(shared gate logit)
	SharedOut      // shared expert * sigmoid
	MoEOut         // routed + shared

	Logits     // head out
	LogitsCast // the same in the type the graph hands out: a second rounding

	NumPoints
)

// pointNames: the name in YAML and in the printed table, and what is rounded there.
var pointNames = [NumPoints][2]string{
	Embed: {"embed", "embedding row"}, Norm: {"norm", "RMSNorm out (input, post, final, q, k)"},
	Linear:      {"linear", "matrix products, head excepted"},
	ConvProduct: {"conv_product", "conv tap times column"}, ConvPartial: {"conv_partial", "running sum of the conv products"},
	ConvSum: {"conv_sum", "conv out before silu"}, ConvOut: {"conv_out", "conv out after silu"},
	L2Square: {"l2_square", "l2norm: x*x"}, L2Sum: {"l2_sum", "l2norm: sum of squares"}, L2Eps: {"l2_eps", "l2norm: sum + eps"},
	L2Rsqrt: {"l2_rsqrt", "l2norm: rsqrt"}, L2Out: {"l2_out", "l2norm: x * rsqrt"}, QScale: {"q_scale", "q * dk^-0.5"},
	Beta: {"beta", "sigmoid(b)"}, G: {"g", "log decay"}, CoreOut: {"core_out", "delta-rule out"},
	GatedNormed: {"gated_normed", "gated norm: o * rsqrt(mean square)"}, GatedWeight: {"gated_weight", "gated norm: times w"},
	GatedOut:  {"gated_out", "gated norm: times silu(z)"},
	RopeTable: {"rope_table", "cos and sin"}, RopeProduct: {"rope_product", "x*cos and rot(x)*sin"}, RopeOut: {"rope_out", "their sum"},
	ScoreQuery: {"score_query", "q * hd^-0.5"}, Score: {"score", "q.k"}, ScoreScaled: {"score_scaled", "scores * hd^-0.5"},
	ScoreMasked: {"score_masked", "scores + mask"}, Softmax: {"softmax", "attention weights"}, AttnOut: {"attn_out", "weights . v"},
	GateSigmoid: {"gate_sigmoid", "sigmoid(gate)"}, AttnGated: {"attn_gated", "attention out * sigmoid(gate)"},
	Residual: {"residual", "x + mixer out, x + MLP out"},
	MLPSilu:  {"mlp_silu", "silu(gate)"}, MLPMul: {"mlp_mul", "silu(gate) * up"},
	RouterProb: {"router_prob", "softmax over the experts"}, RouterWeight: {"router_weight", "renormalised top-k weight"},
	ExpertWeighted: {"expert_weighted", "expert out * weight"}, ExpertPartial: {"expert_partial", "running sum over experts"},
	ExpertSum: {"expert_sum", "routed sum"}, SharedSigmoid: {"shared_sigmoid", "sigmoid(shared gate)"},
	SharedOut: {"shared_out", "shared expert * sigmoid"}, MoEOut: {"moe_out", "routed + shared"},
	Logits: {"logits", "head out"}, LogitsCast: {"logits_cast", "head out again, in the type handed out"},
}

// String is the point's name, as YAML and the table write it.
func (p Point) String() string { return pointNames[p][0] }

// Meaning is one phrase: what is rounded there.
func (p Point) Meaning() string { return pointNames[p][1] }

// Contract says what is rounded where. The zero At rounds nothing beyond float32.
type Contract struct {
	Name    string
	Meaning string
	At      [NumPoints]Round

	// Arithmetic, if not empty, is the only one that computes this contract, by its name in internal/kernels: that of
	// a runtime that rounds inside its sums.
	Arithmetic string

	Weights Round // stored weights are rounded to this before use (F32: used as stored)
	State   Round // recurrent state as stored
	Conv    Round // conv state as stored
	KV      Round // keys and values as stored

	StatePerCall  bool // the recurrent state is rounded once a call, not after every token
	L2Eps         float32
	Softplus3     bool  // softplus as log(1+exp(x)) in three float32 operations, not one
	ScaleScores   bool  // hd^-0.5 multiplies the scores, not the query
	QDivide       bool  // q / dk^0.5 instead of q * dk^-0.5
	ScaleRound    Round // the constant hd^-0.5 itself
	ExpertsByID   bool  // routed experts are summed by ascending id, not in top-k order
	SoftmaxChosen bool  // router softmax over the chosen logits instead of renormalising
	SoftmaxLate   bool  // attention divides by the sum after weights . v (flash form)
}

// Round rounds x in place as the contract says for p. F32 returns at once.
func (c *Contract) Round(p Point, x []float32) {
	switch c.At[p] {
	case F16:
		RoundF16(x)
	case BF16:
		RoundBF16(x)
	}
}

// LogitsGrid is the grid the logits lie on: where they are rounded twice, the coarser one, since Round lists its grids by
// falling precision. It is not always the type they are handed out in: bf16 logits in fp16 have steps of bf16.
func (c *Contract) LogitsGrid() Round { return max(c.At[Logits], c.At[LogitsCast]) }

// Round1 rounds one value at p.
func (c *Contract) Round1(p Point, x float32) float32 { return c.At[p].Value(x) }

// Value rounds one value to the grid r.
func (r Round) Value(x float32) float32 {
	switch r {
	case F16:
		return F16ToF32(F32ToF16(x))
	case BF16:
		return BF16ToF32(F32ToBF16(x))
	}
	return x
}

// Slice rounds x in place to the grid r.
func (r Round) Slice(x []float32) {
	switch r {
	case F16:
		RoundF16(x)
	case BF16:
		RoundBF16(x)
	}
}
