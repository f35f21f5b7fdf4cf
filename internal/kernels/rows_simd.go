//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"unsafe"

	"sibyl/precision"
)

// rowsArgs is what the assembly reads and writes, by the offsets in gen/rows.go and gen/neon/rows.go. A kernel goes through n
// weights of each row, wStride bytes apart, their scales and minvals sStride bytes apart: of up to four rows side by side, whose
// sums are in sum32, sum64 and sq, or of so many rows one after the other, whose sums it writes to dst and sqs,
// or which it unpacks to dst.
type rowsArgs struct {
	w, scale, min, x unsafe.Pointer
	wStride, sStride int
	n                int
	sum32            [4]float32
	sum64            [4]float64
	sq               [4]float32
	dst              unsafe.Pointer
	ahead            int // bytes from a weight to one that is soon to be read
	off, table       unsafe.Pointer
	rows             int
	sqs              unsafe.Pointer
	dstStride        int // of unpacked rows
}

// rowsKernel is one stored form's assembly.
type rowsKernel struct {
	rows, step          int // rows that fast and exact take side by side, 0 for any number one after the other; what n must be a multiple of
	fast, exact, unpack func(a *byte)
	// What exact gives besides the sums, to bound their errors by: the row's largest weight, as bits that most reads, or,
	// where most is nil, the sum of its squares.
	most func(bits uint32) float64
	// scale is set where exact wants x times 2^scale, in the order of gen/exact.go.
	scale int
	// tall is fast for rows so long that x does not stay in the first-level cache beside them: tallRows of them side by side; nil
	// if there is none.
	tall func(a *byte)
	// ahead is fast, bit by bit, for a processor that wants memory to be asked for early (asksAhead); nil if there is none.
	ahead func(a *byte)
}

// From so many columns on, rows are taken by tall: x has 16 KB then.
const (
	tallRows = 8
	tallCols = 4097
)

func (a *rowsArgs) call(f func(a *byte)) { f((*byte)(unsafe.Pointer(a))) }

// blockSize is the only block the assembly knows: every published bundle's.
const blockSize = 32

// inBlocks says whether the blocks of a quantized m are those that the assembly knows.
func (m *Matrix) inBlocks() bool {
	return m.Round == precision.F32 && m.Blocks.Axis == 1 && m.Blocks.Size == blockSize
}

// rowsKernel is the assembly for the stored form, nil if there is none: other blocks, blocks along columns, rows that
// are computed, and roundings that no contract asks for. Those are decoded row by row.
func (m *Matrix) rowsKernel() *rowsKernel {
	quantized := m.inBlocks()
	switch {
	case m.Format == F32 && m.Round == precision.F32:
		return rowsF32
	case m.Format == F16 && m.Round == precision.F32:
		return rowsF16
	case m.Format == BF16 && m.Round == precision.F32:
		return rowsBF16
	case m.Format == F32 && m.Round == precision.F16:
		return rowsF32R16
	case m.Format == BF16 && m.Round == precision.F16:
		return rowsBF16R16
	case m.Format == I8Block && quantized:
		return rowsI8
	case m.Format == I4Block && quantized:
		return rowsI4
	case m.Format == U4Minval && quantized:
		return rowsU4
	}
	return nil
}

// point sets a to row o of m from column j on, with n columns of it, a multiple of the step.
func (a *rowsArgs) point(m *Matrix, o, j, n int) {
	a.n, a.wStride, a.sStride = n, m.rowStride(), 0
	a.w, a.scale, a.min = at(m.Data, o*a.wStride+j*a.wStride/m.Cols), nil, nil
	if m.Format > BF16 {
		a.sStride = 2 * (m.Cols / blockSize)
		s := o*a.sStride + 2*(j/blockSize)
		a.scale = at(m.Blocks.Scale, s)
		if m.Format == U4Minval {
			a.min = at(m.Blocks.Min, s)
		}
	}
}

// rowStride is the bytes from one row to the next.
func (m *Matrix) rowStride() int {
	if m.Format > BF16 {
		return m.Format.rowBytes(m.Cols)
	}
	return m.Cols * elemSize[m.Format]
}

// at is the address of b[i]; one past the end, of a row without columns, is never read.
func at(b []byte, i int) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i) }

// tail decodes the columns from j on of a plain row.
func (m *Matrix) tail(dst []float32, o, j int) {
	t := *m
	size := elemSize[m.Format]
	t.Rows, t.Cols, t.Data = 1, m.Cols-j, m.Data[(o*m.Cols+j)*size:(o+1)*m.Cols*size]
	t.Row(dst, 0)
}
