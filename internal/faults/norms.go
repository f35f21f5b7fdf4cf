package faults

import (
	"math"
)

const shareOfGain = "that much of the 1 is added or left out"

var normFaults = []*Fault{
	{
		Name: "norm-gain", Part: Every, Partial: shareOfGain,
		Mistake: "norm gain w instead of 1+w: input and post-attention norm",
		layer: func(s *subject, l int, by float32) error {
			shift(&s.d.Layers[l].InputNorm.Weight, -by)
			shift(&s.d.Layers[l].PostAttnNorm.Weight, -by)
			return nil
		},
	},
	{
		Name: "final-norm-gain", Part: Whole, Partial: shareOfGain,
		Mistake: "norm gain w instead of 1+w: final norm",
		decoder: func(s *subject, by float32) error { shift(&s.d.FinalNorm.Weight, -by); return nil },
	},
	{
		Name: "qk-norm-gain", Part: Attention, Partial: shareOfGain,
		Mistake: "norm gain w instead of 1+w: q and k norm",
		layer: func(s *subject, l int, by float32) error {
			shift(&s.d.Layers[l].Attention.QNorm, -by)
			shift(&s.d.Layers[l].Attention.KNorm, -by)
			return nil
		},
	},
	{
		Name: "gated-norm-gain", Part: GDN, Partial: shareOfGain,
		Mistake: "gated norm with 1+w",
		layer:   func(s *subject, l int, by float32) error { shift(&s.d.Layers[l].GDN.Norm, by); return nil },
	},
	{
		Name: "gate-before-norm", Part: GDN, Partial: "the scale lies between the two",
		Mistake: "gated norm with the gate applied before the norm",
		layer:   gateBeforeNorm,
	},
}

// gateBeforeNorm makes o * silu(z) what is normalised: its scale is that of the product. The gated norm asks for o's
// scale and then, head by head, for silu(z), which is where the other scale is put in. z is not overwritten there; the
// conv's silu works in place.
func gateBeforeNorm(s *subject, l int, strength float32) error {
	ar, sound, eps := s.arith(l), *s.arith(l), s.d.Layers[l].GDN.Eps
	var o []float32
	var r float32
	ar.InvRMS = func(x []float32, eps float32) float32 {
		o, r = append(o[:0], x...), sound.InvRMS(x, eps)
		return r
	}
	ar.SiLU = func(dst, x []float32) {
		if &dst[0] == &x[0] {
			sound.SiLU(dst, x)
			return
		}
		sound.SiLU(dst, x)
		gated := make([]float32, len(o))
		for i := range o {
			gated[i] = o[i] * dst[i]
		}
		ratio := float32(math.Pow(float64(sound.InvRMS(gated, eps)/r), float64(strength)))
		for i := range dst {
			dst[i] *= ratio
		}
	}
	return nil
}
