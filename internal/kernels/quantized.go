package kernels

import (
	"encoding/binary"
	"fmt"
	"math"

	"sibyl/precision"
)

// The quantized formats. Each holds integers q and one scale for every block of them; the value of an element is on
// the grid of the scale's own dtype, because that is where the published graphs round it:
//
//	I8Block, I4Block   w = R16(fp16(q) * scale)          scale fp16, q in -128..127 or -8..7
//	U4Minval           w = B(B(scale * q) + minval)      scale and minval bf16, q in 0..15: two roundings
//
// Two q of four bits share a byte, the even column in the low nibble. Sources: DESIGN.md section 5; for U4Minval
// formats/apple-q35.md, "Quantizer".

// Blocks is what a quantized matrix holds besides its q.
type Blocks struct {
	Size int // elements that share a scale
	Axis int // 1: Size neighbours of a row; 0: Size neighbours of a column
	// Scale and Min are little endian, 2 bytes each: [Rows, Cols/Size] for axis 1, [Rows/Size, Cols] for axis 0.
	// Min is of U4Minval only.
	Scale, Min []byte
}

// NewQuantized checks that q and the blocks' parts have the bytes that a matrix [rows, cols] of format f takes.
func NewQuantized(f Format, rows, cols int, q []byte, b Blocks, round precision.Round) (*Matrix, error) {
	if f != I8Block && f != I4Block && f != U4Minval {
		return nil, fmt.Errorf("%v is no quantized format", f)
	}
	if rows <= 0 || cols <= 0 || b.Size <= 0 || b.Axis != 0 && b.Axis != 1 || [2]int{rows, cols}[b.Axis]%b.Size != 0 {
		return nil, fmt.Errorf("a matrix [%d, %d] has no blocks of %d along axis %d", rows, cols, b.Size, b.Axis)
	}
	if f != I8Block && cols%2 != 0 {
		return nil, fmt.Errorf("%v: two q share a byte of a row, so %d columns do not fit", f, cols)
	}
	scale, low := 2*(rows*cols/b.Size), 0
	if f == U4Minval {
		low = scale
	}
	if len(q) != rows*f.rowBytes(cols) || len(b.Scale) != scale || len(b.Min) != low {
		return nil, fmt.Errorf("a %v matrix [%d, %d] with blocks of %d takes %d, %d and %d bytes, not %d, %d and %d",
			f, rows, cols, b.Size, rows*f.rowBytes(cols), scale, low, len(q), len(b.Scale), len(b.Min))
	}
	return (&Matrix{Format: f, Rows: rows, Cols: cols, Data: q, Blocks: b}).WithRound(round), nil
}

// rowBytes is what the q of one row take.
func (f Format) rowBytes(cols int) int {
	if f == I8Block {
		return cols
	}
	return cols / 2
}

// Rows is a matrix whose rows are made when they are read. Row may be called by several goroutines at once and
// must give the same bits each time; Bytes is what reading all rows takes from memory.
type Rows interface {
	Row(dst []float32, i int)
	Bytes() int64
}

// NewComputed is a matrix [rows, cols] of from's rows.
func NewComputed(rows, cols int, from Rows, round precision.Round) *Matrix {
	return (&Matrix{Format: Computed, Rows: rows, Cols: cols, From: from}).WithRound(round)
}

// quantizedRow writes row i of a quantized matrix to dst [Cols]: its q, then their values.
func (m *Matrix) quantizedRow(dst []float32, i int) {
	n := m.Format.rowBytes(m.Cols)
	q := m.Data[i*n:][:n]
	switch m.Format {
	case I8Block:
		for j, v := range q {
			dst[j] = float32(int8(v))
		}
	case I4Block:
		for j, v := range q {
			dst[2*j], dst[2*j+1] = float32(int8(v<<4)>>4), float32(int8(v)>>4)
		}
	case U4Minval:
		for j, v := range q {
			dst[2*j], dst[2*j+1] = float32(v&15), float32(v>>4)
		}
	}
	// Along a row one scale serves Size columns, along a column each column has its own.
	size, first := m.Blocks.Size, i*(m.Cols/max(m.Blocks.Size, 1))
	if m.Blocks.Axis == 0 {
		size, first = 1, i/m.Blocks.Size*m.Cols
	}
	for b := 0; b*size < m.Cols; b++ {
		x, at := dst[b*size:][:size], 2*(first+b)
		s := binary.LittleEndian.Uint16(m.Blocks.Scale[at:])
		if m.Format == U4Minval {
			ScaleMinBF16(x, precision.BF16ToF32(s), precision.BF16ToF32(binary.LittleEndian.Uint16(m.Blocks.Min[at:])))
		} else {
			ScaleF16(x, precision.F16ToF32(s))
		}
	}
}

// ScaleF16 turns q into weights: x = R16(x * s). x holds integers and s is an fp16 value, so the product is exact
// in float32. The common case, a value in the normal range of binary16, is written out: nearest even on the 13 bits
// that go.
func ScaleF16(x []float32, s float32) {
	for i, q := range x {
		v := q * s
		b := math.Float32bits(v)
		if b&0x7fffffff-0x38800000 < 0x477ff000-0x38800000 {
			x[i] = math.Float32frombits((b + 0xfff + b>>13&1) &^ 0x1fff)
		} else if x[i] = v; v != 0 {
			x[i] = precision.F16.Value(v)
		}
	}
}

// ScaleMinBF16 turns q into weights: x = B(B(s * x) + m).
func ScaleMinBF16(x []float32, s, m float32) {
	for i, q := range x {
		x[i] = precision.BF16.Value(precision.BF16.Value(s*q) + m)
	}
}

// sliceQuantized is rows lo..hi of a quantized or computed matrix. Blocks along the columns must not be cut: that is
// the caller's mistake and panics.
func (m *Matrix) sliceQuantized(lo, hi int) *Matrix {
	s := *m
	s.Rows = hi - lo
	if m.Format == Computed {
		s.From = shifted{m.From, lo, s.Rows, m.Rows}
		return &s
	}
	n := m.Format.rowBytes(m.Cols)
	s.Data = m.Data[lo*n : hi*n]
	size, per := m.Blocks.Size, 2*m.Cols
	if m.Blocks.Axis == 1 {
		size, per = 1, 2*(m.Cols/m.Blocks.Size)
	}
	if lo%size != 0 || hi%size != 0 {
		panic(fmt.Sprintf("rows %d..%d cut blocks of %d rows", lo, hi, size))
	}
	s.Blocks.Scale = m.Blocks.Scale[lo/size*per : hi/size*per]
	if m.Format == U4Minval {
		s.Blocks.Min = m.Blocks.Min[lo/size*per : hi/size*per]
	}
	return &s
}

// shifted is rows lo and up of another, rows of all.
type shifted struct {
	of            Rows
	lo, rows, all int
}

func (s shifted) Row(dst []float32, i int) { s.of.Row(dst, s.lo+i) }
func (s shifted) Bytes() int64             { return s.of.Bytes() * int64(s.rows) / int64(s.all) }
