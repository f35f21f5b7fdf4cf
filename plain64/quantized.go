package plain64

import (
	"encoding/binary"
	"math"

	"sibyl/bundle"
)

// dequantize gives elements lo to hi of a quantized weight [rows, cols]: the values that the published graphs compute
// from q, scale and minval, roundings included, since they and not the products are the model's weights.
//
//	int8, int4   R16(q * scale)             u4-minval   B(R32(B(scale * q) + minval))
func dequantize(t bundle.Tensor, lo, hi int) []float64 {
	q, cols := t.Quant, t.Shape[1]
	x := make([]float64, hi-lo)
	for k := range x {
		i := lo + k
		block := i / q.Block
		if q.Axis == 0 {
			block = i/cols/q.Block*cols + i%cols
		}
		scale := binary.LittleEndian.Uint16(q.Scale[2*block:])
		switch q.Format {
		case "int8":
			x[k] = toHalf(float64(int8(t.Data[i])) * halfToFloat(scale))
		case "int4":
			v := float64(nibble(t.Data, i))
			if v > 7 {
				v -= 16
			}
			x[k] = toHalf(v * halfToFloat(scale))
		case "u4-minval":
			least := brainToFloat(binary.LittleEndian.Uint16(q.Min[2*block:]))
			x[k] = toBrain(float64(float32(toBrain(float64(nibble(t.Data, i))*brainToFloat(scale)) + least)))
		}
	}
	return x
}

// nibble is the i-th four bits, the low ones of a byte first.
func nibble(b []byte, i int) byte { return b[i/2] >> (4 * (i % 2)) & 15 }

func brainToFloat(h uint16) float64 { return float64(math.Float32frombits(uint32(h) << 16)) }

// toHalf and toBrain are the nearest binary16 and bfloat16, ties to even.
func toHalf(x float64) float64  { return nearest(x, 11, -24, 65504) }
func toBrain(x float64) float64 { return nearest(x, 8, -133, 0x1.fep127) }

// nearest rounds to so many binary digits, none below 2^least; beyond top is infinite.
func nearest(x float64, digits, least int, top float64) float64 {
	_, e := math.Frexp(x)
	unit := max(e-digits, least)
	r := math.Ldexp(math.RoundToEven(math.Ldexp(x, -unit)), unit)
	if math.Abs(r) > top {
		return math.Inf(int(math.Copysign(1, r)))
	}
	return r
}
