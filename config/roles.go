package config

import "fmt"

// Role is what a tensor is for. One list: names in files, shapes and schemes are looked up by role.
type Role uint8

// The roles. Those between InputNorm and SharedExpertGate exist once a layer.
const (
	Embed Role = iota
	FinalNorm
	Head

	InputNorm
	PostAttnNorm

	InProjQKV
	InProjZ
	InProjB
	InProjA
	Conv1D
	ALog
	DtBias
	GatedNorm
	OutProj

	QProj
	KProj
	VProj
	QNorm
	KNorm
	OProj

	GateProj
	UpProj
	DownProj

	Router
	ExpertsGateUp
	ExpertsDown
	SharedGateProj
	SharedUpProj
	SharedDownProj
	SharedExpertGate

	NumRoles
)

// roleTable: the name below the text model's prefix ("layers.N." goes before layer roles) and the shape.
var roleTable = [NumRoles]struct {
	name  string
	layer bool
	shape func(c *Config) []int
}{
	Embed:     {"embed_tokens.weight", false, func(c *Config) []int { return []int{c.VocabSize, c.HiddenSize} }},
	FinalNorm: {"norm.weight", false, func(c *Config) []int { return []int{c.HiddenSize} }},
	Head:      {"lm_head.weight", false, func(c *Config) []int { return []int{c.VocabSize, c.HiddenSize} }},

	InputNorm:    {"input_layernorm.weight", true, func(c *Config) []int { return []int{c.HiddenSize} }},
	PostAttnNorm: {"post_attention_layernorm.weight", true, func(c *Config) []int { return []int{c.HiddenSize} }},

	InProjQKV: {"linear_attn.in_proj_qkv.weight", true, func(c *Config) []int { return []int{c.QKVDim(), c.HiddenSize} }},
	InProjZ:   {"linear_attn.in_proj_z.weight", true, func(c *Config) []int { return []int{c.ValueWidth(), c.HiddenSize} }},
	InProjB:   {"linear_attn.in_proj_b.weight", true, func(c *Config) []int { return []int{c.ValueHeads, c.HiddenSize} }},
	InProjA:   {"linear_attn.in_proj_a.weight", true, func(c *Config) []int { return []int{c.ValueHeads, c.HiddenSize} }},
	Conv1D:    {"linear_attn.conv1d.weight", true, func(c *Config) []int { return []int{c.QKVDim(), 1, c.ConvKernel} }},
	ALog:      {"linear_attn.A_log", true, func(c *Config) []int { return []int{c.ValueHeads} }},
	DtBias:    {"linear_attn.dt_bias", true, func(c *Config) []int { return []int{c.ValueHeads} }},
	GatedNorm: {"linear_attn.norm.weight", true, func(c *Config) []int { return []int{c.ValueDim} }},
	OutProj:   {"linear_attn.out_proj.weight", true, func(c *Config) []int { return []int{c.HiddenSize, c.ValueWidth()} }},

	QProj: {"self_attn.q_proj.weight", true, func(c *Config) []int { return []int{2 * c.QWidth(), c.HiddenSize} }},
	KProj: {"self_attn.k_proj.weight", true, func(c *Config) []int { return []int{c.KVWidth(), c.HiddenSize} }},
	VProj: {"self_attn.v_proj.weight", true, func(c *Config) []int { return []int{c.KVWidth(), c.HiddenSize} }},
	QNorm: {"self_attn.q_norm.weight", true, func(c *Config) []int { return []int{c.HeadDim} }},
	KNorm: {"self_attn.k_norm.weight", true, func(c *Config) []int { return []int{c.HeadDim} }},
	OProj: {"self_attn.o_proj.weight", true, func(c *Config) []int { return []int{c.HiddenSize, c.QWidth()} }},

	GateProj: {"mlp.gate_proj.weight", true, func(c *Config) []int { return []int{c.IntermediateSize, c.HiddenSize} }},
	UpProj:   {"mlp.up_proj.weight", true, func(c *Config) []int { return []int{c.IntermediateSize, c.HiddenSize} }},
	DownProj: {"mlp.down_proj.weight", true, func(c *Config) []int { return []int{c.HiddenSize, c.IntermediateSize} }},

	Router: {"mlp.gate.weight", true, func(c *Config) []int { return []int{c.MoE.NumExperts, c.HiddenSize} }},
	// Packed experts carry no ".weight" suffix; the per-expert form is mlp.experts.E.{gate,up,down}_proj.weight.
	ExpertsGateUp:    {"mlp.experts.gate_up_proj", true, func(c *Config) []int { return []int{c.MoE.NumExperts, 2 * c.MoE.IntermediateSize, c.HiddenSize} }},
	ExpertsDown:      {"mlp.experts.down_proj", true, func(c *Config) []int { return []int{c.MoE.NumExperts, c.HiddenSize, c.MoE.IntermediateSize} }},
	SharedGateProj:   {"mlp.shared_expert.gate_proj.weight", true, func(c *Config) []int { return []int{c.MoE.SharedIntermediateSize, c.HiddenSize} }},
	SharedUpProj:     {"mlp.shared_expert.up_proj.weight", true, func(c *Config) []int { return []int{c.MoE.SharedIntermediateSize, c.HiddenSize} }},
	SharedDownProj:   {"mlp.shared_expert.down_proj.weight", true, func(c *Config) []int { return []int{c.HiddenSize, c.MoE.SharedIntermediateSize} }},
	SharedExpertGate: {"mlp.shared_expert_gate.weight", true, func(c *Config) []int { return []int{1, c.HiddenSize} }},
}

// PerLayer says whether the role exists once a layer.
func (r Role) PerLayer() bool { return roleTable[r].layer }

// Name is the tensor's name below the text model's prefix: "norm.weight", "layers.3.self_attn.q_proj.weight".
// layer is ignored for roles that are not per layer. The head is at top level in files ("lm_head.weight").
func (r Role) Name(layer int) string {
	if roleTable[r].layer {
		return fmt.Sprintf("layers.%d.%s", layer, roleTable[r].name)
	}
	return roleTable[r].name
}

// String is the name without the layer: "self_attn.q_proj.weight".
func (r Role) String() string { return roleTable[r].name }

// Shape is the tensor's shape under c. It must not be asked for expert roles of a dense model.
func (r Role) Shape(c *Config) []int { return roleTable[r].shape(c) }

// LayerRoles lists, in the order of the math, the roles a layer of this kind needs. Packed expert roles stand
// for either form in the file.
func (c *Config) LayerRoles(kind LayerKind) []Role {
	roles := []Role{InputNorm}
	if kind == GatedDeltaNet {
		roles = append(roles, InProjQKV, InProjZ, InProjB, InProjA, Conv1D, ALog, DtBias, GatedNorm, OutProj)
	} else {
		roles = append(roles, QProj, KProj, VProj, QNorm, KNorm, OProj)
	}
	roles = append(roles, PostAttnNorm)
	if c.MoE != nil {
		return append(roles, Router, ExpertsGateUp, ExpertsDown, SharedGateProj, SharedUpProj, SharedDownProj, SharedExpertGate)
	}
	return append(roles, GateProj, UpProj, DownProj)
}
