package precision

import (
	"slices"

	"sibyl/internal/inputerr"
	words "sibyl/internal/near"
)

// HFFP32 is the oracle: stored weights upcast exactly, every named operation to float32.
var HFFP32 = &Contract{
	Name:    "hf-fp32",
	Meaning: "the oracle: stored weights upcast exactly, every operation in float32",
	L2Eps:   1e-6,
}

// fp16Points: what the exported "zoo-s1" graph rounds to fp16. Source: zoo.json contract.steps.
var fp16Points = []Point{Embed, Norm, Linear, ConvSum, ConvOut, L2Square, L2Sum, L2Eps, L2Rsqrt, L2Out, Beta, CoreOut,
	GatedNormed, GatedWeight, GatedOut, RopeTable, RopeProduct, RopeOut, AttnOut, GateSigmoid, AttnGated, Residual,
	MLPSilu, MLPMul, SharedSigmoid, SharedOut, MoEOut, Logits}

// eps16 is 1e-6 held in fp16, 17 * 2^-24: the graph keeps l2norm's constant in the tensor's type.
const eps16 = 17 * 0x1p-24

// coreai makes a contract that rounds at fp16Points and keeps weights and states in fp16.
func coreai(name, meaning string, change func(*Contract)) *Contract {
	c := &Contract{Name: name, Meaning: meaning, Weights: F16, State: F16, Conv: F16, KV: F16, L2Eps: eps16}
	for _, p := range fp16Points {
		c.At[p] = F16
	}
	if change != nil {
		change(c)
	}
	return c
}

// bf16Points: what Hugging Face rounds when loaded in bfloat16. Source: goldens/bf16-modules/README.txt, boundary table
// of transformers 5.23.
var bf16Points = []Point{Embed, Norm, Linear, ConvSum, ConvOut, Beta, CoreOut, GatedNormed, GatedWeight, GatedOut,
	RopeTable, RopeProduct, RopeOut, Score, ScoreScaled, ScoreMasked, Softmax, AttnOut, GateSigmoid, AttnGated, Residual,
	MLPSilu, MLPMul, RouterWeight, ExpertWeighted, ExpertPartial, ExpertSum, SharedSigmoid, SharedOut, MoEOut, Logits}

// hfBF16 makes a contract that rounds at bf16Points; the recurrent state stays float32.
func hfBF16(name, meaning string, change func(*Contract)) *Contract {
	c := &Contract{Name: name, Meaning: meaning, Weights: BF16, Conv: BF16, KV: BF16, L2Eps: 1e-6, ScaleScores: true, ExpertsByID: true}
	for _, p := range bf16Points {
		c.At[p] = BF16
	}
	if change != nil {
		change(c)
	}
	return c
}

// sdpa16 rounds attention op by op, as the decomposition of the SDPA composite does on fp16 tensors.
func sdpa16(c *Contract) {
	for _, p := range []Point{ScoreQuery, Score, ScoreMasked, Softmax} {
		c.At[p] = F16
	}
}

// q35Points: what the graph of Apple's own port ("apple-q35") rounds to bf16. The conv's four products and three sums are
// rounded one by one; the float32 steps (decay and delta rule, the routed sum) are not listed. Source: the rounding
// table of formats/apple-q35.md; executable specification np_q35.py.
var q35Points = []Point{Embed, Norm, Linear, ConvProduct, ConvPartial, ConvOut, L2Square, L2Sum, L2Eps, L2Rsqrt, L2Out,
	Beta, G, CoreOut, GatedNormed, GatedWeight, GatedOut, RopeTable, RopeProduct, RopeOut, ScoreQuery, Score, Softmax,
	AttnOut, GateSigmoid, AttnGated, Residual, MLPSilu, MLPMul, SharedSigmoid, SharedOut, MoEOut, Logits}

// q35 makes a contract that rounds at q35Points, keeps weights and states in bf16, and rounds the recurrent state where
// a call ends. The logits are a bf16 result handed out as fp16.
func q35(name, meaning string, change func(*Contract)) *Contract {
	c := &Contract{Name: name, Meaning: meaning, Weights: BF16, State: BF16, Conv: BF16, KV: BF16, StatePerCall: true,
		L2Eps: 1e-6, Softplus3: true, SoftmaxChosen: true}
	for _, p := range q35Points {
		c.At[p] = BF16
	}
	c.At[LogitsCast] = F16
	if change != nil {
		change(c)
	}
	return c
}

// fusedSDPA and fusedDelta are the port's two composites as one kernel each: float32 between its inputs and its out.
func fusedSDPA(c *Contract) { c.float32At(ScoreQuery, Score, Softmax) }
func fusedDelta(c *Contract) {
	c.float32At(L2Square, L2Sum, L2Eps, L2Rsqrt, L2Out)
}

// float32At takes the rounding at the points away.
func (c *Contract) float32At(points ...Point) {
	for _, p := range points {
		c.At[p] = F32
	}
}

// named lists the contracts in the order they are explained.
var named = []*Contract{
	HFFP32,
	hfBF16("hf-bf16", "transformers 5.23 loaded as bf16, eager attention and experts", nil),
	hfBF16("hf-bf16-sdpa", "the same with from_pretrained's defaults: sdpa attention, grouped_mm experts", func(c *Contract) {
		// torch's CPU flash kernel: scores in float32, exp rounded, division by the sum of the unrounded exp at the end
		c.At[Score], c.At[ScoreScaled], c.At[ScoreMasked], c.SoftmaxLate = F32, F32, F32, true
		c.At[ExpertPartial], c.ExpertsByID = F32, false
	}),
	hfBF16("hf-bf16-l2", "hf-bf16 with l2norm rounded before the cast, as transformers 5.3 did", func(c *Contract) {
		for _, p := range []Point{L2Square, L2Sum, L2Eps, L2Rsqrt, L2Out} {
			c.At[p] = BF16
		}
	}),
	coreai("coreai-fp16", "the published bundles' graph (profile zoo-s1), each op exact; softplus in three fp32 ops",
		func(c *Contract) { c.Softplus3 = true }),
	coreai("coreai-eager", "the conversion code run before export: coreai-fp16 with softplus as one op", nil),
	coreai("coreai-eager-s32", "coreai-eager with the recurrent state kept in fp32", func(c *Contract) { c.State = F32 }),
	coreai("coreai-eager-s32o32", "the same, and the delta rule's out fp32 through the gated norm", func(c *Contract) {
		c.State, c.At[CoreOut], c.At[GatedNormed], c.At[GatedWeight] = F32, F32, F32, F32
	}),
	coreai("coreai-eager-sdpa16", "coreai-eager with attention rounded op by op in fp16", sdpa16),
	coreai("coreai-cpu", "what Apple's CPU runtime for Linux computes with that graph, in an arithmetic of its own", func(c *Contract) {
		sdpa16(c)
		c.ScaleRound, c.Softplus3, c.Arithmetic = F16, true, "coreai-cpu"
	}),
	q35("coreai-bf16", "the graph of Apple's own port (profile apple-q35), each op exact; state rounded once a call", nil),
	q35("coreai-bf16-sdpa", "coreai-bf16 with attention as one kernel: fp32 up to its out", fusedSDPA),
	q35("coreai-bf16-delta", "coreai-bf16 with l2norm and delta rule as one kernel: fp32 up to its out", fusedDelta),
	q35("coreai-bf16-fused", "coreai-bf16 with both as one kernel each", func(c *Contract) {
		fusedSDPA(c)
		fusedDelta(c)
	}),
	q35("coreai-cpu-bf16", "what Apple's CPU runtime for Linux computes with the port's graph, in an arithmetic of its own",
		func(c *Contract) { c.Arithmetic = "coreai-cpu-bf16" }),
}

// RuntimeName is what Apple's CPU runtime for Linux is called on any graph.
const RuntimeName = "coreai-cpu"

// runtimes are the contracts of Apple's CPU runtime for Linux, by the contract of the graph it runs.
var runtimes = map[string]string{"coreai-fp16": RuntimeName, "coreai-bf16": "coreai-cpu-bf16"}

// Runtime gives the contract of what Apple's CPU runtime for Linux computes with a graph of the named contract: the
// meaning of RuntimeName where a bundle says which graph it holds. "" if that runtime runs no such graph.
func Runtime(graph string) string { return runtimes[graph] }

// Names lists the contracts of this build in the order they are explained.
func Names() []string {
	var out []string
	for _, c := range named {
		out = append(out, c.Name)
	}
	return out
}

// Lookup gives a named contract, or an *inputerr.Error with the near names.
func Lookup(name string) (*Contract, error) {
	i := slices.IndexFunc(named, func(c *Contract) bool { return c.Name == name })
	if i < 0 {
		return nil, &inputerr.Error{File: "contract", Found: inputerr.Clip(name, 60), Want: "one of this build", Do: words.DidYouMean(name, Names())}
	}
	return named[i], nil
}
