package suite

import (
	"encoding/binary"
	"math"

	"sibyl/metal/gpu"
	"sibyl/metal/ops"
	"sibyl/precision"
)

// weight is a matrix with random elements in a format, and their values.
type weight struct {
	ops.Weight
	at []float32 // [rows, cols], exact
}

// weight makes one of about the given scale.
func (b *bench) weight(f ops.Format, rows, cols int, scale float64, round precision.Round) *weight {
	w := &weight{at: make([]float32, rows*cols)}
	w.Format, w.Rows, w.Cols, w.Round = f, rows, cols, round
	var q, s, m []byte
	switch f {
	case ops.F32, ops.F16, ops.BF16:
		x := b.normals(rows*cols, scale, [...]precision.Round{precision.F32, precision.F16, precision.BF16}[f])
		copy(w.at, x)
		for _, v := range x {
			switch f {
			case ops.F32:
				q = binary.LittleEndian.AppendUint32(q, math.Float32bits(v))
			case ops.F16:
				q = binary.LittleEndian.AppendUint16(q, precision.F32ToF16(v))
			default:
				q = binary.LittleEndian.AppendUint16(q, precision.F32ToBF16(v))
			}
		}
	default:
		q, s, m = b.quantized(f, w.at, scale)
	}
	for i := range w.at {
		w.at[i] = round.Value(w.at[i])
	}
	// Matrices of an odd number of rows lie one element off, as in a file: kernels may ask for no more than an element's alignment.
	off := rows % 2
	place := func(data []byte, element int) gpu.Slice {
		s := b.bytes(append(make([]byte, off*element), data...))
		s.Offset += off * element
		return s
	}
	w.Q = place(q, f.Align())
	if s != nil {
		w.Scale = place(s, 2)
	}
	if m != nil {
		w.Min = place(m, 2)
	}
	return w
}

// quantized fills values with random blocks and gives their bytes. Formulas: DESIGN section 5.
func (b *bench) quantized(f ops.Format, values []float32, scale float64) (q, s, m []byte) {
	nibbles := make([]byte, len(values))
	for i := 0; i < len(values); i += ops.Block {
		d := scale / 40 * (0.5 + b.Float64())
		sc, low := precision.F16.Value(float32(d)), float32(0)
		if f == ops.U4 {
			sc, low = precision.BF16.Value(float32(4*d)), precision.BF16.Value(float32(-30*d))
			s = binary.LittleEndian.AppendUint16(s, precision.F32ToBF16(sc))
			m = binary.LittleEndian.AppendUint16(m, precision.F32ToBF16(low))
		} else {
			s = binary.LittleEndian.AppendUint16(s, precision.F32ToF16(sc))
		}
		for j := i; j < i+ops.Block; j++ {
			switch f {
			case ops.I8:
				v := b.IntN(256) - 128
				q = append(q, byte(v))
				values[j] = float32(grid(precision.F16, float64(v)*float64(sc)))
			case ops.I4:
				v := b.IntN(16) - 8
				nibbles[j] = byte(v) & 15
				values[j] = float32(grid(precision.F16, float64(v)*float64(sc)))
			case ops.U4:
				v := b.IntN(16)
				nibbles[j] = byte(v)
				inner := grid(precision.BF16, float64(v)*float64(sc))
				values[j] = float32(grid(precision.BF16, float64(float32(inner+float64(low)))))
			}
		}
	}
	if f != ops.I8 {
		for i := 0; i < len(nibbles); i += 2 {
			q = append(q, nibbles[i]|nibbles[i+1]<<4)
		}
	}
	return q, s, m
}

// dot is row r against x, as a kernel may sum it: n products, any order.
func (w *weight) dot(r int, x []float32) num {
	row := w.at[r*w.Cols:][:w.Cols]
	var v, m float64
	for i, a := range row {
		p := float64(a) * float64(x[i])
		v, m = v+p, m+math.Abs(p)
	}
	// a product errs by u|p|, the sum by n u sum|p|: (n + 1) u together, fused or not
	return num{v: v, e: float64(w.Cols+1)*unit*m*(1+0x1p-20) + tiny}
}
