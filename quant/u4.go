package quant

import (
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// minval is uint4, asymmetric: a bf16 scale and a bf16 minimum a block.
//
//	m     = min(min w, 0), M = max(max w, 0)       w on the bf16 grid
//	scale = max(B(B(M - m) / 15), 2^-23)
//	q     = clamp(rne(R32(R32(w - m) / scale)), 0, 15)
//	w'    = B(B(scale * q) + m)
//
// Source: formats/apple-q35.md, "Quantizer" (coreai-opt 0.3.0 as Apple's own port drives it).
type minval struct{}

// scaleFloorB is 2^-23 in bf16.
const scaleFloorB = (127 - 23) << 7

func (minval) base() precision.Round { return precision.BF16 }
func (minval) unsigned() bool        { return true }

func (minval) fit(w []float32) fit {
	var lo, hi float32
	for _, v := range w {
		lo, hi = min(lo, v), max(hi, v) // NaN stays
	}
	if lo == 0 {
		lo = 0 // not -0
	}
	span := precision.BF16.Value(hi - lo)
	return fit{scale: max(precision.F32ToBF16(span/15), scaleFloorB), min: precision.F32ToBF16(lo)}
}

func (minval) quantize(w []float32, f fit) {
	scale, m := precision.BF16ToF32(f.scale), precision.BF16ToF32(f.min)
	for i, v := range w {
		w[i] = clamp(nearest(float32(v-m)/scale), 0, 15)
	}
}

func (minval) dequantize(q []float32, f fit) {
	kernels.ScaleMinBF16(q, precision.BF16ToF32(f.scale), precision.BF16ToF32(f.min))
}
