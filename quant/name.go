package quant

import (
	"sibyl/bundle"
	"sibyl/config"
)

// NameOf is the named scheme that a bundle's weights are stored in, "" if none fits every one of them. Folded constants
// count as their weights.
func NameOf(s *bundle.Shipped) string {
	for _, scheme := range schemes {
		a, err := scheme.Assign(s.Config())
		if err == nil && a.stored(s) {
			return scheme.Name
		}
	}
	return ""
}

// stored says whether every weight of s is in the format it is assigned.
func (a *Assignment) stored(s *bundle.Shipped) bool {
	if a.HeadUntied { // embedding and head would not be one table
		return false
	}
	fits := func(r config.Role, l int) bool {
		spec := a.Spec(r, l)
		if r != config.ExpertsGateUp && r != config.ExpertsDown {
			t, err := s.Tensor(r, l)
			return err == nil && spec.stores(t)
		}
		gate, up, down, err := s.Expert(l, 0)
		if r == config.ExpertsDown {
			return err == nil && spec.stores(down)
		}
		return err == nil && spec.stores(gate) && spec.stores(up)
	}
	for l, kind := range a.cfg.Layers {
		for _, r := range a.cfg.LayerRoles(kind) {
			if !fits(r, l) {
				return false
			}
		}
	}
	return fits(config.Embed, 0) && fits(config.FinalNorm, 0) && fits(config.Head, 0)
}

// stores says whether a tensor is what the spec would store.
func (s Spec) stores(t bundle.Tensor) bool {
	if len(t.Parts) > 0 {
		t = t.Parts[0]
	}
	switch q := t.Quant; {
	case q != nil:
		return s.Format.Quantized() && q.Format == s.Format.String() && q.Mode == s.Mode() && q.Block == s.Block && q.Axis == s.Axis
	case t.Form != bundle.AsIs:
		return s.Format == FP16 || s.Format == BF16
	}
	return s.Format == FP16 && t.DType == bundle.F16 || s.Format == BF16 && t.DType == bundle.BF16
}
