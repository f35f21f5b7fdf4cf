//go:build !noasm

package kernels

import (
	"math"
	"unsafe"

	"sibyl/precision"
)

// rowsArgs is what the assembly reads and writes, by the offsets in gen/rows.go. A kernel goes through n weights of up
// to four rows, wStride bytes apart, their scales and minvals sStride bytes apart.
type rowsArgs struct {
	w, scale, min, x unsafe.Pointer
	wStride, sStride int
	n                int
	sum32            [4]float32
	sum64            [4]float64
	sq               [4]float32
	dst              unsafe.Pointer
}

// rowsKernel is one weight format's assembly: rows is how many rows fast and exact take at once, step what n must be
// a multiple of.
type rowsKernel struct {
	rows, step          int
	fast, exact, unpack func(a *byte)
}

func (a *rowsArgs) call(f func(a *byte)) { f((*byte)(unsafe.Pointer(a))) }

var (
	rowsF32     = &rowsKernel{4, 16, rowsFastF32, rowsExactF32, unpackF32}
	rowsF16     = &rowsKernel{4, 16, rowsFastF16, rowsExactF16, unpackF16}
	rowsBF16    = &rowsKernel{4, 16, rowsFastBF16, rowsExactBF16, unpackBF16}
	rowsF32R16  = &rowsKernel{4, 16, rowsFastF32R16, rowsExactF32R16, unpackF32R16}
	rowsBF16R16 = &rowsKernel{4, 16, rowsFastBF16R16, rowsExactBF16R16, unpackBF16R16}
	rowsI8      = &rowsKernel{2, 32, rowsFastI8, rowsExactI8, unpackI8}
	rowsI4      = &rowsKernel{2, 32, rowsFastI4, rowsExactI4, unpackI4}
	rowsU4      = &rowsKernel{2, 32, rowsFastU4, rowsExactU4, unpackU4}
)

// blockSize is the only block the assembly knows: every published bundle's.
const blockSize = 32

// rowsKernel is the assembly for the stored form, nil if there is none: other blocks, blocks along columns, rows that
// are computed, and roundings that no contract asks for. Those are decoded row by row.
func (m *Matrix) rowsKernel() *rowsKernel {
	quantized := m.Round == precision.F32 && m.Blocks.Axis == 1 && m.Blocks.Size == blockSize
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

// stripe walks the rows lo..hi of a matrix, rows at a time, and hands dot the arguments for each; where the last ones
// are fewer, they come one by one.
func (k *rowsKernel) stripe(lo, hi int, dot func(o, n int)) {
	o := lo
	for ; o+k.rows <= hi; o += k.rows {
		dot(o, k.rows)
	}
	for ; o < hi; o++ {
		dot(o, 1)
	}
}

// gemvFastAVX2 is out[t, o] for rows lo..hi of w and a few tokens: x [rows, Cols]. A group of weight rows meets every
// token before the next group is read.
func gemvFastAVX2(out, x []float32, rows int, w *Matrix, lo, hi int) {
	n, N := w.Cols, w.Rows
	k := w.rowsKernel()
	a, decoded := &rowsArgs{}, w
	var buf []float32
	if k == nil {
		k, buf = rowsF32, make([]float32, rowsF32.rows*n)
	}
	whole := n / k.step * k.step
	rest := make([]float32, n-whole)
	k.stripe(lo, hi, func(o, group int) {
		row := o
		if buf != nil {
			decoded, row = w.decode(buf, o, group), 0
		}
		a.point(decoded, row, 0, whole)
		if group == 1 {
			a.wStride, a.sStride = 0, 0 // the same row in every place
		}
		for t := range rows {
			xt := x[t*n:][:n]
			a.x = unsafe.Pointer(unsafe.SliceData(xt))
			a.call(k.fast)
			for r := range group {
				s := a.sum32[r]
				if len(rest) > 0 {
					decoded.tail(rest, row+r, whole)
					s += dotFast(rest, xt[whole:])
				}
				out[t*N+o+r] = s
			}
		}
	})
}

// decode writes rows o.. of a matrix without assembly to buf, as a float32 matrix.
func (m *Matrix) decode(buf []float32, o, rows int) *Matrix {
	for r := range rows {
		m.Row(buf[r*m.Cols:], o+r)
	}
	return &Matrix{Format: F32, Rows: rows, Cols: m.Cols, Data: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(buf))), 4*rows*m.Cols)}
}

// rowsBound is the error of a sum of n products in rowsExact, over sum|w*x|: eight chains of n/8, three additions
// that join them, and up to 15 products of the tail in a chain of their own (Higham, Accuracy and Stability, 4.2).
func rowsBound(n int) float64 { return float64(n/8+24) * 0x1p-53 }

// norm is at least |w|, from the float32 sum of squares: that sum errs by n/8+8 roundings of 2^-24 each and by 2^-149
// for each square that underflows.
func rowNorm(sq float64, n int) float64 {
	return math.Sqrt(sq*(1+float64(n/4+64)*0x1p-24)+float64(n)*0x1p-148) * (1 + 0x1p-20)
}

// gemvExactAVX2 is gemvFastAVX2 in exact arithmetic: x [rows, Cols] in float64, xn the bounds on each token's norm.
func gemvExactAVX2(out []float32, x, xn []float64, rows int, w *Matrix, lo, hi int) {
	n, N := w.Cols, w.Rows
	k := w.rowsKernel()
	a, decoded := &rowsArgs{}, w
	var buf, wide []float32
	if k == nil {
		k, buf = rowsF32, make([]float32, rowsF32.rows*n)
	}
	whole, u := n/k.step*k.step, rowsBound(n)
	rest := make([]float32, n-whole)
	k.stripe(lo, hi, func(o, group int) {
		row := o
		if buf != nil {
			decoded, row = w.decode(buf, o, group), 0
		}
		a.point(decoded, row, 0, whole)
		if group == 1 {
			a.wStride, a.sStride = 0, 0
		}
		for t := range rows {
			xt := x[t*n:][:n]
			a.x = unsafe.Pointer(unsafe.SliceData(xt))
			a.call(k.exact)
			for r := range group {
				s, sq := a.sum64[r], float64(a.sq[r])
				if len(rest) > 0 {
					decoded.tail(rest, row+r, whole)
					s, sq = addTail(s, sq, rest, xt[whole:])
				}
				v, ok := precision.Near(s, rowNorm(sq, n)*xn[t]*u)
				if !ok {
					if wide == nil {
						wide = make([]float32, n)
					}
					w.Row(wide, o+r)
					v = precision.SumTerms(n, func(i int) float64 { return float64(wide[i]) * xt[i] }, 1)
				}
				out[t*N+o+r] = v
			}
		}
	})
}

// addTail adds the last products and squares of a row.
func addTail(s, sq float64, w []float32, x []float64) (float64, float64) {
	var p, q float64
	for i, v := range w {
		a := float64(v)
		p += a * x[i]
		q += a * a
	}
	return s + p, sq + q
}
