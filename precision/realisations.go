package precision

import "slices"

// realisations are the named contracts that an engine of another contract may compute instead and still be right: the
// same graph, with the roundings inside an operation that the graph leaves to its engine. A gate tries them before it
// calls a token unexplained.
//
//   - coreai-eager: softplus is three operations in the exported graph and one kernel in a fusing compiler.
//   - coreai-eager-sdpa16: attention is one composite; an engine without that kernel runs its decomposition, each
//     operation rounded to the tensors' type.
//   - coreai-eager-s32, -s32o32: the recurrence is a loop over tokens; a kernel keeps the state in fp32 registers
//     between them, and, if it takes in the gated norm, its out as well.
//   - coreai-bf16-sdpa, -delta, -fused: attention is one composite and l2norm with the delta rule another; a kernel
//     for either keeps fp32 inside, where their decompositions round every operation.
//   - hf-bf16-sdpa: transformers itself chooses the attention and expert kernels; eager is one choice, sdpa another.
//
// Not a realisation: hf-bf16-l2, another version's definition of l2norm; coreai-cpu and coreai-cpu-bf16, one runtime with
// an arithmetic of its own. An engine that says it computes one of those, or a variant by its name, is held to just that.
var realisations = map[string][]string{
	"coreai-fp16":  {"coreai-eager", "coreai-eager-sdpa16", "coreai-eager-s32", "coreai-eager-s32o32"},
	"coreai-eager": {"coreai-fp16", "coreai-eager-sdpa16", "coreai-eager-s32", "coreai-eager-s32o32"},
	"coreai-bf16":  {"coreai-bf16-fused", "coreai-bf16-sdpa", "coreai-bf16-delta"},
	"hf-bf16":      {"hf-bf16-sdpa"},
	"hf-bf16-sdpa": {"hf-bf16"},
}

// Realisations lists the contracts that an engine of the named contract may compute instead, the likeliest first; none
// for a contract that stands for itself alone.
func Realisations(name string) []string { return slices.Clone(realisations[name]) }
