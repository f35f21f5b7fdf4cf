// Package kernels holds the CPU engine's arithmetic: a portable Go definition of every kernel, always compiled in,
// for each weight format as stored, in two kinds: exact (order-free, one rounding a named operation) and fast
// (float32 in any order). Weights stay as stored; nothing is upcast into a second copy.
package kernels

import (
	"encoding/binary"
	"fmt"
	"math"

	"sibyl/precision"
)

// Format is how a weight's elements are stored.
type Format uint8

// The stored formats, little endian.
const (
	F32 Format = iota
	F16
	BF16
	// I8Block, I4Block and U4Minval are quantized (quantized.go), Computed rows are made when they are read.
	I8Block
	I4Block
	U4Minval
	Computed
)

// elemSize is bytes per element of the plain formats.
var elemSize = [...]int{F32: 4, F16: 2, BF16: 2}

// String is the safetensors name of a plain format, our own of the others.
func (f Format) String() string {
	return [...]string{"F32", "F16", "BF16", "I8Block", "I4Block", "U4Minval", "Computed"}[f]
}

// Matrix is a read-only view of a weight [Rows, Cols], row-major, as stored. Round is applied to every element when
// it is read: a contract with fp16 weights reads a bf16 file without a second copy.
type Matrix struct {
	Format     Format
	Rows, Cols int
	Data       []byte
	Round      precision.Round
	Asked      precision.Round // Round as it was asked for, before it was found to change nothing
	Blocks     Blocks          // of the quantized formats
	From       Rows            // of Computed
}

// NewMatrix checks that data holds rows*cols elements.
func NewMatrix(f Format, rows, cols int, data []byte, round precision.Round) (*Matrix, error) {
	if rows <= 0 || cols <= 0 || len(data) != rows*cols*elemSize[f] {
		return nil, fmt.Errorf("a %v matrix [%d, %d] takes %d bytes, not %d", f, rows, cols, rows*cols*elemSize[f], len(data))
	}
	return (&Matrix{Format: f, Rows: rows, Cols: cols, Data: data}).WithRound(round), nil
}

// WithRound is the same weight read under another rounding, in place of the one it has.
func (m *Matrix) WithRound(round precision.Round) *Matrix {
	s := *m
	s.Round, s.Asked = round, round
	if m.Format.onGrid(round) {
		s.Round = precision.F32
	}
	return &s
}

// onGrid says whether every value of the format is one of the grid already.
func (f Format) onGrid(r precision.Round) bool {
	switch f {
	case F16, I8Block, I4Block:
		return r == precision.F16
	case BF16, U4Minval:
		return r == precision.BF16
	}
	return false
}

// Slice is rows lo..hi as a view.
func (m *Matrix) Slice(lo, hi int) *Matrix {
	if m.Format > BF16 {
		return m.sliceQuantized(lo, hi)
	}
	s := *m
	n := m.Cols * elemSize[m.Format]
	s.Rows, s.Data = hi-lo, m.Data[lo*n:hi*n]
	return &s
}

// Bytes is what reading the matrix once takes: with scales, and of the source where rows are computed.
func (m *Matrix) Bytes() int64 {
	if m.Format == Computed {
		return m.From.Bytes()
	}
	return int64(len(m.Data) + len(m.Blocks.Scale) + len(m.Blocks.Min))
}

// Row writes row i to dst [Cols], rounded as Round says.
func (m *Matrix) Row(dst []float32, i int) {
	n := m.Cols
	dst = dst[:n]
	switch m.Format {
	case F32:
		p := m.Data[i*n*4:][:n*4]
		for j := range dst {
			dst[j] = math.Float32frombits(binary.LittleEndian.Uint32(p[4*j:]))
		}
	case F16:
		p := m.Data[i*n*2:][:n*2]
		table := f16Table()
		for j := range dst {
			dst[j] = table[binary.LittleEndian.Uint16(p[2*j:])]
		}
	case BF16:
		p := m.Data[i*n*2:][:n*2]
		for j := range dst {
			dst[j] = precision.BF16ToF32(binary.LittleEndian.Uint16(p[2*j:]))
		}
	case Computed:
		m.From.Row(dst, i)
	default:
		m.quantizedRow(dst, i)
	}
	m.Round.Slice(dst)
}

// Floats gives the whole matrix as float32: for small vectors only (norm gains, A_log, conv taps).
func (m *Matrix) Floats() []float32 {
	out := make([]float32, m.Rows*m.Cols)
	for i := range m.Rows {
		m.Row(out[i*m.Cols:], i)
	}
	return out
}
