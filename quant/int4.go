package quant

// The two int4 ranges; the arithmetic is int8's. Only clipping has a named scheme, as in the field.
var (
	clipping4  = signed{-7, 7, 7}
	symmetric4 = signed{-8, 7, 7.5}
)

// packInt4 stores two q a byte, the even one in the low nibble, signed or not.
func packInt4(dst []byte, q []float32) {
	for i := range dst {
		dst[i] = byte(int32(q[2*i]))&15 | byte(int32(q[2*i+1]))<<4
	}
}

// pack stores q as the format has them in memory and in files.
func (f Format) pack(dst []byte, q []float32) {
	if f == Int8 {
		packInt8(dst, q)
	} else {
		packInt4(dst, q)
	}
}

// packed is what n q take.
func (f Format) packed(n int) int {
	if f == Int8 {
		return n
	}
	return n / 2
}
