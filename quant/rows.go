package quant

import (
	"encoding/binary"
	"slices"
)

// EncodeRows quantizes whole rows of weights, or bands of rows where blocks run along the output: q one byte a value, scales and
// minvals (nil for formats without) as they are stored. w, len(w) = rows * cols, is left as it is. It panics for a spec that is not
// quantized.
func (s Spec) EncodeRows(w []float32, cols int) (q, scale, low []byte) {
	c := s.codec()
	x := slices.Clone(w)
	c.base().Slice(x)
	fits := s.encode(c, x, cols)
	q = make([]byte, len(x))
	packInt8(q, x)
	for _, f := range fits {
		scale = binary.LittleEndian.AppendUint16(scale, f.scale)
		if c.unsigned() {
			low = binary.LittleEndian.AppendUint16(low, f.min)
		}
	}
	return q, scale, low
}
