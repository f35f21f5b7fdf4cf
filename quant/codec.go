package quant

import (
	"math"

	"sibyl/precision"
)

// codec is the arithmetic of one quantized format. All of it is float32 with named roundings, so it gives the same
// bits on any machine. Weights that are no numbers give blocks that are none: NaN and Inf are never hidden.
type codec interface {
	// base is the grid weights are rounded to before anything is computed of them.
	base() precision.Round
	// fit gives the parameters of a block of weights.
	fit(w []float32) fit
	// quantize turns weights into q, integers as float32, in place.
	quantize(w []float32, f fit)
	// dequantize turns q into weights, as the graph computes them, in place.
	dequantize(q []float32, f fit)
	// unsigned q have a minval.
	unsigned() bool
}

// fit is the parameters of a block, as stored: fp16 for signed formats, bf16 for u4.
type fit struct{ scale, min uint16 }

// codec gives the arithmetic of a quantized spec.
func (s Spec) codec() codec {
	switch {
	case s.Format == U4:
		return minval{}
	case s.Format == Int8 && s.Symmetric:
		return symmetric8
	case s.Format == Int8:
		return clipping8
	case s.Format == Int4 && s.Symmetric:
		return symmetric4
	case s.Format == Int4:
		return clipping4
	}
	return nil
}

// absMax is the largest magnitude; an Inf or a NaN wins over every number, and a NaN over an Inf.
func absMax(w []float32) float32 {
	var m uint32
	for _, v := range w {
		m = max(m, math.Float32bits(v)&0x7fffffff)
	}
	return math.Float32frombits(m)
}

// nearest rounds to the nearest integer, ties to even, |x| < 2^22: the sum with 1.5 * 2^23 has a unit of one in the
// last place, and IEEE addition rounds it.
func nearest(x float32) float32 {
	const magic = 3 << 22
	return float32(x+magic) - magic
}

// clamp keeps a NaN.
func clamp(x, lo, hi float32) float32 {
	if x < lo {
		return lo
	}
	if x > hi {
		return hi
	}
	return x
}
