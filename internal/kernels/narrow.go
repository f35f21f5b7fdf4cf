package kernels

import (
	"math"

	"sibyl/precision"
)

// Narrow writes src to dst in two bytes each, rounded to the grid r, which is F16 or BF16; dst has src's length.
func Narrow(r precision.Round, dst []uint16, src []float32) {
	if r == precision.F16 {
		narrowF16Kernel.run(dst, src)
		return
	}
	for i, v := range src {
		dst[i] = precision.F32ToBF16(v)
	}
}

// Widen is the way back; src has dst's length.
func Widen(r precision.Round, dst []float32, src []uint16) {
	if r == precision.F16 {
		widenF16Kernel.run(dst, src)
		return
	}
	for i, v := range src[:len(dst)] {
		dst[i] = math.Float32frombits(uint32(v) << 16)
	}
}

func narrowF16Go(dst []uint16, src []float32) {
	for i, v := range src {
		dst[i] = precision.F32ToF16(v)
	}
}

func widenF16Go(dst []float32, src []uint16) {
	for i := range dst {
		dst[i] = precision.F16ToF32(src[i])
	}
}
