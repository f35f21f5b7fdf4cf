package quant

import (
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// signed is the arithmetic of int8 and int4: one fp16 scale a block, no zero point.
//
//	scale = max(R16(absmax / den), 2^-23)      den = (hi - lo) / 2
//	q     = clamp(rne(R32(w / scale)), lo, hi)  w on the fp16 grid
//	w'    = R16(fp16(q) * scale)
//
// Source: testdata/quant, "quantization" of each set, recorded from coreai-opt 0.3.0.
type signed struct{ lo, hi, den float32 }

// The two int8 ranges. With clipping the largest magnitude is hit exactly (to the rounding of the scale) and -128 is
// unused; symmetric, the largest positive value loses half a step.
var (
	clipping8  = signed{-127, 127, 127}
	symmetric8 = signed{-128, 127, 127.5}
)

// scaleFloor is 2^-23 in fp16, a subnormal: an all-zero block has it.
const scaleFloor = 2

func (s signed) base() precision.Round { return precision.F16 }
func (s signed) unsigned() bool        { return false }

func (s signed) fit(w []float32) fit {
	// Positive halves are ordered as their bits are, Inf and NaN above the numbers.
	return fit{scale: max(precision.F32ToF16(absMax(w)/s.den), scaleFloor)}
}

func (s signed) quantize(w []float32, f fit) {
	scale := precision.F16ToF32(f.scale)
	for i, v := range w {
		w[i] = clamp(nearest(v/scale), s.lo, s.hi)
	}
}

func (s signed) dequantize(q []float32, f fit) { kernels.ScaleF16(q, precision.F16ToF32(f.scale)) }

// packInt8 stores q one a byte, two's complement.
func packInt8(dst []byte, q []float32) {
	for i, v := range q {
		dst[i] = byte(int32(v))
	}
}
