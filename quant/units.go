package quant

import (
	"fmt"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/kernels"
	"sibyl/internal/safetensors"
	"sibyl/precision"
)

// unit is one weight of a quantized checkpoint: where it comes from and how it is kept.
type unit struct {
	name  string // below the text model's prefix
	group bundle.Group
	spec  Spec
	shape []int // of the weight
	// The weight is the parts' rows, one part after the other: matrices [rows, cols] each.
	parts      []bundle.Tensor
	rows, cols int
	copied     bool // a tied head's own copy: its source is counted under the embedding
}

// units lists a checkpoint's weights in the order of the math.
func (a *Assignment) units(ck *bundle.Checkpoint) ([]unit, error) {
	var out []unit
	one := func(r config.Role, layer int) error {
		t, err := ck.Tensor(r, layer)
		if err != nil {
			return err
		}
		u := unit{name: r.Name(layer), group: bundle.GroupOf(r), spec: a.Spec(r, layer), shape: r.Shape(a.cfg), parts: []bundle.Tensor{t}, rows: 1}
		u.cols = u.shape[len(u.shape)-1]
		if len(u.shape) > 1 {
			u.rows = u.shape[0]
		}
		out = append(out, u)
		return nil
	}
	if err := one(config.Embed, 0); err != nil {
		return nil, err
	}
	for l, kind := range a.cfg.Layers {
		for _, r := range a.cfg.LayerRoles(kind) {
			var err error
			switch r {
			case config.ExpertsGateUp:
				var experts []unit
				experts, err = a.experts(ck, l)
				out = append(out, experts...)
			case config.ExpertsDown: // came with the others
			default:
				err = one(r, l)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	if err := one(config.FinalNorm, 0); err != nil {
		return nil, err
	}
	if a.cfg.TieWordEmbeddings && !a.HeadUntied {
		return out, nil
	}
	err := one(config.Head, 0)
	out[len(out)-1].copied = a.HeadUntied
	return out, err
}

// experts lists a layer's routed experts: gate, up and down one by one where they are quantized, as the field's
// tools quantize and hash them, else packed as checkpoints have them.
func (a *Assignment) experts(ck *bundle.Checkpoint, l int) ([]unit, error) {
	m, h := a.cfg.MoE, a.cfg.HiddenSize
	parts := [3][]bundle.Tensor{} // gate, up, down
	both := make([]bundle.Tensor, 0, 2*m.NumExperts)
	for e := range m.NumExperts {
		gate, up, down, err := ck.Expert(l, e)
		if err != nil {
			return nil, err
		}
		for k, t := range []bundle.Tensor{gate, up, down} {
			parts[k] = append(parts[k], t)
		}
		both = append(both, gate, up)
	}
	i := m.IntermediateSize
	base := fmt.Sprintf("layers.%d.mlp.experts.", l)
	in := unit{group: bundle.Experts, spec: a.Spec(config.ExpertsGateUp, l), shape: []int{m.NumExperts, i, h}, rows: i, cols: h}
	gate, up, packed := in, in, in
	gate.name, gate.parts = base+"gate_proj", parts[0]
	up.name, up.parts = base+"up_proj", parts[1]
	packed.name, packed.parts, packed.shape = base+"gate_up_proj", both, []int{m.NumExperts, 2 * i, h}
	down := unit{name: base + "down_proj", group: bundle.Experts, spec: a.Spec(config.ExpertsDown, l), shape: []int{m.NumExperts, h, i},
		parts: parts[2], rows: h, cols: i}
	if in.spec.Format.Quantized() {
		return []unit{gate, up, down}, nil
	}
	return []unit{packed, down}, nil
}

// elements is how many values the weight has.
func (u *unit) elements() int { return len(u.parts) * u.rows * u.cols }

// sourceBytes is what reading the weight takes.
func (u *unit) sourceBytes() (n int64) {
	for _, p := range u.parts {
		n += p.Bytes()
	}
	return n
}

// dtype is what an unquantized weight is written as.
func (u *unit) dtype() bundle.DType {
	switch u.spec.Format {
	case FP16:
		return bundle.F16
	case BF16:
		return bundle.BF16
	}
	return u.parts[0].DType
}

// blocks is the shape of the weight's scales.
func (u *unit) blocks() []int {
	shape := append([]int(nil), u.shape...)
	shape[len(shape)-2+u.spec.Axis] /= u.spec.Block
	return shape
}

// specs are the tensors the weight becomes in a file, under its name there.
func (u *unit) specs(name string) []safetensors.Spec {
	if !u.spec.Format.Quantized() {
		return []safetensors.Spec{{Name: name, DType: u.dtype(), Shape: u.shape}}
	}
	q := append([]int(nil), u.shape...)
	dtype, scale := safetensors.I8, safetensors.F16
	if u.spec.Format != Int8 {
		dtype = safetensors.U8
		q[len(q)-1] /= 2
	}
	if u.spec.Format == U4 {
		scale = safetensors.BF16
	}
	out := []safetensors.Spec{{Name: name + ".q", DType: dtype, Shape: q}, {Name: name + ".scale", DType: scale, Shape: u.blocks()}}
	if u.spec.codec().unsigned() {
		out = append(out, safetensors.Spec{Name: name + ".minval", DType: scale, Shape: u.blocks()})
	}
	return out
}

// bytes is what the weight takes once it is written.
func (u *unit) bytes() int64 {
	n := u.elements()
	if !u.spec.Format.Quantized() {
		return int64(n * u.dtype().Size())
	}
	b := int64(u.spec.Format.packed(n)) + int64(2*n/u.spec.Block)
	if u.spec.codec().unsigned() {
		b += int64(2 * n / u.spec.Block)
	}
	return b
}

// matrix views one part as stored.
func (u *unit) matrix(part int) (*kernels.Matrix, error) {
	t := u.parts[part]
	f, ok := map[bundle.DType]kernels.Format{bundle.F32: kernels.F32, bundle.F16: kernels.F16, bundle.BF16: kernels.BF16}[t.DType]
	if !ok || t.DType != u.parts[0].DType {
		return nil, fmt.Errorf("%s: tensor %s has dtype %s; want F32, F16 or BF16, all parts alike", t.File, t.Name, t.DType)
	}
	return kernels.NewMatrix(f, u.rows, u.cols, t.Data, precision.F32)
}
