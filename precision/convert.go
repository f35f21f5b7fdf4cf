package precision

import "math"

// F32ToF16 rounds to IEEE binary16, nearest even; overflow gives infinity, NaN stays NaN (quiet, top payload bits
// kept), subnormals are kept.
func F32ToF16(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b >= 0x7f800000: // Inf, NaN
		if b > 0x7f800000 {
			return sign | 0x7e00 | uint16(b>>13&0x3ff)
		}
		return sign | 0x7c00
	case b >= 0x477ff000: // 65520 and up: half way to 65536 rounds away
		return sign | 0x7c00
	case b >= 0x38800000: // normal in binary16
		b += 0xfff + b>>13&1 // nearest even on the 13 bits that go
		return sign | uint16((b-0x38000000)>>13)
	case b >= 0x33000000: // 2^-25 and up: subnormal, or the tie that rounds to 0
		// Adding 0.5 makes the unit in the last place 2^-24, the spacing of binary16's subnormals; the hardware
		// addition rounds to nearest even.
		v := math.Float32frombits(b) + 0.5
		return sign | uint16(math.Float32bits(v)-0x3f000000)
	}
	return sign
}

// F16ToF32 is exact.
func F16ToF32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	e, m := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch e {
	case 0x1f:
		if m != 0 {
			m |= 0x200 // quiet
		}
		return math.Float32frombits(sign | 0x7f800000 | m<<13)
	case 0: // zero or subnormal: m * 2^-24, exact in float32
		f := float32(m) * 0x1p-24
		return math.Float32frombits(sign | math.Float32bits(f))
	}
	return math.Float32frombits(sign | (e+112)<<23 | m<<13)
}

// F32ToBF16 rounds to bfloat16, nearest even; NaN stays NaN (quiet).
func F32ToBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// BF16ToF32 is exact.
func BF16ToF32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// roundF16 and roundBF16 are the loops in use. They belong to whoever has faster ones of the same bits.
var roundF16, roundBF16 = RoundF16Go, RoundBF16Go

// UseRounding puts loops with the same bits in the place of RoundF16Go and RoundBF16Go: internal/kernels, which chooses
// SIMD variants, calls it. It must not run beside a computation.
func UseRounding(f16, bf16 func(x []float32)) { roundF16, roundBF16 = f16, bf16 }

// RoundF16 rounds x in place to the binary16 grid.
func RoundF16(x []float32) { roundF16(x) }

// RoundBF16 rounds x in place to the bfloat16 grid.
func RoundBF16(x []float32) { roundBF16(x) }

// RoundF16Go is RoundF16's definition: F32ToF16 and back, of each element.
func RoundF16Go(x []float32) {
	for i, v := range x {
		x[i] = F16ToF32(F32ToF16(v))
	}
}

// RoundBF16Go is RoundBF16's definition.
func RoundBF16Go(x []float32) {
	for i, v := range x {
		x[i] = BF16ToF32(F32ToBF16(v))
	}
}
