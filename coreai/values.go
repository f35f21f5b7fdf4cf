package coreai

import (
	"encoding/binary"
	"math"

	"sibyl/precision"
)

// decode reads little-endian values of a dtype; the length was checked.
func decode(dtype string, raw []byte) []float32 {
	size := dtypeBytes[dtype]
	out := make([]float32, len(raw)/size)
	for i := range out {
		switch b := raw[i*size:]; dtype {
		case "F16":
			out[i] = precision.F16ToF32(binary.LittleEndian.Uint16(b))
		case "BF16":
			out[i] = precision.BF16ToF32(binary.LittleEndian.Uint16(b))
		case "F32":
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
		}
	}
	return out
}

// encode writes values in a dtype, each rounded to the nearest, ties to even.
func encode(dtype string, x []float32) []byte {
	out := make([]byte, 0, len(x)*dtypeBytes[dtype])
	for _, v := range x {
		switch dtype {
		case "F16":
			out = binary.LittleEndian.AppendUint16(out, precision.F32ToF16(v))
		case "BF16":
			out = binary.LittleEndian.AppendUint16(out, precision.F32ToBF16(v))
		case "F32":
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		}
	}
	return out
}
