package kernels

import (
	"encoding/binary"
	"math"

	"sibyl/precision"
)

// gemvExact is linearExact for one token, whose cost is the reading of the weights: each row is read once, in its
// stored form, for its product with x and for the norm that bounds the sum's error. out [w.Rows], x [w.Cols].
func gemvExact(p *Pool, out, x []float32, w *Matrix) {
	n := w.Cols
	x64 := make([]float64, n)
	widen(x64, x[:n])
	bound := norm2(x64) * sumBound(n) * (1 + 0x1p-20) // the slack covers the rounding of a row's own norm
	p.For(w.Rows, 2*n, func(lo, hi int) {
		row := make([]float32, n)
		for o := lo; o < hi; o++ {
			s, sq := w.dotNorm(x64, o, row)
			r, ok := precision.Near(s, math.Sqrt(sq)*bound)
			if !ok {
				w.Row(row, o)
				r = precision.SumTerms(n, func(i int) float64 { return float64(row[i]) * x64[i] }, 1)
			}
			out[o] = r
		}
	})
}

// dotNorm is the sum of w*x and of w*w over row o, in four chains each. buf [Cols] is used for formats that have no
// loop of their own.
func (m *Matrix) dotNorm(x []float64, o int, buf []float32) (dot, sq float64) {
	n := m.Cols
	switch {
	case m.Format == BF16 && m.Round == precision.F32:
		return dotNormBF16(x, m.Data[2*o*n:][:2*n])
	case m.Format == F32 && m.Round == precision.F32:
		return dotNormF32(x, m.Data[4*o*n:][:4*n])
	}
	m.Row(buf, o)
	var s, q [4]float64
	for i, v := range buf {
		a := float64(v)
		s[i&3] += a * x[i]
		q[i&3] += a * a
	}
	return (s[0] + s[1]) + (s[2] + s[3]), (q[0] + q[1]) + (q[2] + q[3])
}

func bf16At(bits uint64) float64 { return float64(math.Float32frombits(uint32(bits) << 16)) }

func dotNormBF16(x []float64, p []byte) (dot, sq float64) {
	var s0, s1, s2, s3, q0, q1, q2, q3 float64
	n := len(x)
	p = p[:2*n]
	i := 0
	for ; i+3 < n; i += 4 {
		y, u := x[i:i+4:i+4], binary.LittleEndian.Uint64(p[2*i:2*i+8:2*i+8])
		a, b, c, d := bf16At(u), bf16At(u>>16), bf16At(u>>32), bf16At(u>>48)
		s0 += a * y[0]
		s1 += b * y[1]
		s2 += c * y[2]
		s3 += d * y[3]
		q0 += a * a
		q1 += b * b
		q2 += c * c
		q3 += d * d
	}
	for ; i < n; i++ {
		a := bf16At(uint64(binary.LittleEndian.Uint16(p[2*i:])))
		s0 += a * x[i]
		q0 += a * a
	}
	return (s0 + s1) + (s2 + s3), (q0 + q1) + (q2 + q3)
}

func f32At(bits uint64) float64 { return float64(math.Float32frombits(uint32(bits))) }

func dotNormF32(x []float64, p []byte) (dot, sq float64) {
	var s0, s1, s2, s3, q0, q1, q2, q3 float64
	n := len(x)
	p = p[:4*n]
	i := 0
	for ; i+3 < n; i += 4 {
		y, z := x[i:i+4:i+4], p[4*i:4*i+16:4*i+16]
		u, v := binary.LittleEndian.Uint64(z), binary.LittleEndian.Uint64(z[8:])
		a, b, c, d := f32At(u), f32At(u>>32), f32At(v), f32At(v>>32)
		s0 += a * y[0]
		s1 += b * y[1]
		s2 += c * y[2]
		s3 += d * y[3]
		q0 += a * a
		q1 += b * b
		q2 += c * c
		q3 += d * d
	}
	for ; i < n; i++ {
		a := f32At(uint64(binary.LittleEndian.Uint32(p[4*i:])))
		s0 += a * x[i]
		q0 += a * a
	}
	return (s0 + s1) + (s2 + s3), (q0 + q1) + (q2 + q3)
}
