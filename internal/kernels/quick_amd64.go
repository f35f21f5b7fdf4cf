//go:build !noasm

package kernels

import (
	"math"
	"sync"
	"unsafe"

	"sibyl/precision"
)

// quickKernel is the fast product of a few tokens with quantized rows in blocks of 32 (gen/quick.go), for scales within
// bounds: then no weight overflows its grid. Rows with other scales take rowsKernel.
type quickKernel struct {
	run         func(a *byte)
	prepare     func(q *quickRows, scale, low []byte) (least, most uint32)
	least, most uint32                 // bits of a scale, without sign
	table       func() []float32       // what the kernel looks weights up in, if it does
	order       func(dst, x []float32) // how x is to come, if not as it is; x is whole rows of n
}

// The scales that are quick: of binary16 those that leave 128*s finite, of bf16 2^-60 .. 2^60, so that no sum of a product and
// a minval is subnormal. Where q*s is subnormal in binary16 it lies on its grid, as s does, and rounding to eleven bits leaves
// it there.
const (
	leastF16Scale, mostF16Scale   = 0, 0x5fff
	leastBF16Scale, mostBF16Scale = (127 - 60) << 7, (127 + 60) << 7
)

var (
	quickScaleI8AVX2   = &quickKernel{quickScaleI8, widenedF16, leastF16Scale, mostF16Scale, nil, nil}
	quickScaleI8AVX512 = &quickKernel{quickScaleI8x16, widenedF16, leastF16Scale, mostF16Scale, nil, nil}
	quickRoundI8AVX2   = &quickKernel{quickRoundI8, roundingF16, leastF16Scale, mostF16Scale, nil, nil}
	quickRoundI8AVX512 = &quickKernel{quickRoundI8x16, roundingF16, leastF16Scale, mostF16Scale, nil, nil}
	quickScaleI4AVX2   = &quickKernel{quickScaleI4, widenedF16, leastF16Scale, mostF16Scale, nil, nil}
	quickScaleI4AVX512 = &quickKernel{quickScaleI4x16, widenedF16, leastF16Scale, mostF16Scale, nil, byNibble}
	quickRoundI4AVX2   = &quickKernel{quickRoundI4, mantissaF16, leastF16Scale, mostF16Scale, tableF16, nil}
	quickRoundI4AVX512 = &quickKernel{quickRoundI4x16, mantissaF16, leastF16Scale, mostF16Scale, tableF16, ordered}
	quickRoundU4AVX2   = &quickKernel{quickRoundU4, mantissaBF16, leastBF16Scale, mostBF16Scale, tableBF16, nil}
	quickRoundU4AVX512 = &quickKernel{quickRoundU4x16, mantissaBF16, leastBF16Scale, mostBF16Scale, tableBF16, ordered}
)

// quick gives the kernel for the stored form, nil if there is none. A contract with binary16 weights has R16(q*s); where
// the weights are float32, the scale multiplies a block's sum instead, which is within 2^-11 of every weight.
func (m *Matrix) quick(wide bool) *quickKernel {
	if !m.inBlocks() {
		return nil
	}
	scaled := m.Asked == precision.F32
	switch {
	case m.Format == I8Block && scaled && wide:
		return quickScaleI8AVX512
	case m.Format == I8Block && scaled:
		return quickScaleI8AVX2
	case m.Format == I8Block && wide:
		return quickRoundI8AVX512
	case m.Format == I8Block:
		return quickRoundI8AVX2
	case m.Format == I4Block && scaled && wide:
		return quickScaleI4AVX512
	case m.Format == I4Block && wide:
		return quickRoundI4AVX512
	case m.Format == I4Block && scaled:
		return quickScaleI4AVX2
	case m.Format == I4Block:
		return quickRoundI4AVX2
	case m.Format == U4Minval && wide:
		return quickRoundU4AVX512
	case m.Format == U4Minval:
		return quickRoundU4AVX2
	}
	return nil
}

// quickRows is a worker's place for the scales of some rows, four bytes a block.
type quickRows struct {
	scale, low, off []float32
	// Where there are minvals, the bits of the largest scale and minval, without sign.
	mostScale, mostLow uint32
}

// quickRowsIn cuts three places out of mem.
func quickRowsIn(mem []float32, places int) quickRows {
	return quickRows{scale: mem[:places], low: mem[places : 2*places], off: mem[2*places:]}
}

// scales prepares those of rows first..last of w, with their minvals.
func (k *quickKernel) scales(q *quickRows, w *Matrix, first, last int) (least, most uint32) {
	per := w.Cols / blockSize
	var low []byte
	if w.Format == U4Minval {
		low = w.Blocks.Min[2*first*per : 2*last*per]
	}
	return k.prepare(q, w.Blocks.Scale[2*first*per:2*last*per], low)
}

// widened runs a loop that takes scales by sixteen over all of them: the last ones come from a copy. It gives the loop the
// place of the first.
func widened(src []byte, loop func(at int, src *byte, n int) (least, most uint32)) (least, most uint32) {
	n := len(src) / 2
	whole := n &^ 15
	least = math.MaxUint32
	if whole > 0 {
		least, most = loop(0, &src[0], whole)
	}
	if whole < n {
		var last [32]byte
		for i := range last {
			last[i] = src[2*whole+i%(2*(n-whole))]
		}
		l, m := loop(whole, &last[0], 16)
		least, most = min(least, l), max(most, m)
	}
	return least, most
}

func widenedF16(q *quickRows, scale, _ []byte) (least, most uint32) {
	return widened(scale, func(at int, src *byte, n int) (least, most uint32) { return widenScales(&q.scale[at], src, n) })
}

// roundingF16 leaves 2^13+1 times the scales in low.
func roundingF16(q *quickRows, scale, _ []byte) (least, most uint32) {
	return widened(scale, func(at int, src *byte, n int) (least, most uint32) {
		return roundScales(&q.scale[at], &q.low[at], src, n)
	})
}

func mantissaF16(q *quickRows, scale, _ []byte) (least, most uint32) {
	return widened(scale, func(at int, src *byte, n int) (least, most uint32) { return splitF16(&q.scale[at], &q.off[at], src, n) })
}

// mantissaBF16: a minval that is too large counts as such a scale.
func mantissaBF16(q *quickRows, scale, low []byte) (least, most uint32) {
	_, q.mostLow = widened(low, func(at int, src *byte, n int) (least, most uint32) { return widenBF16(&q.low[at], src, n) })
	least, q.mostScale = widened(scale, func(at int, src *byte, n int) (least, most uint32) {
		return splitBF16(&q.scale[at], &q.off[at], src, n)
	})
	return least, max(q.mostScale, q.mostLow)
}

// tableF16 holds R16(q*s) for the scales 1 <= s < 2, in the order of their mantissas, sixteen q each as the nibble counts.
var tableF16 = sync.OnceValue(func() []float32 {
	t := make([]float32, 1024*16)
	for i := range t {
		t[i] = precision.F16.Value(float32(int8(i<<4)>>4) * precision.F16ToF32(uint16(0x3c00+i/16)))
	}
	return t
})

// tableBF16 holds B(q*s) for the scales 1 <= s < 2 of bf16.
var tableBF16 = sync.OnceValue(func() []float32 {
	t := make([]float32, 128*16)
	for i := range t {
		t[i] = precision.BF16.Value(float32(i%16) * precision.BF16ToF32(uint16(0x3f80+i/16)))
	}
	return t
})

// ordered writes a row of x in the order in which nibbles are met sixteen at once: of every 32, the even columns, then the odd
// ones.
func ordered(dst, x []float32) {
	for b := 0; b+32 <= len(x); b += 32 {
		even, odd, z := dst[b:b+16:b+16], dst[b+16:b+32:b+32], x[b:b+32:b+32]
		for i := range even {
			even[i], odd[i] = z[2*i], z[2*i+1]
		}
	}
}

// byNibble writes a row of x in the order in which the nibbles of sixteen dwords are met: of every 128, each eighth column
// from the first one on, then from the second. What is left comes by parity.
func byNibble(dst, x []float32) {
	for len(x) >= 128 {
		for i, v := range x[:128] {
			dst[i%8*16+i/8] = v
		}
		dst, x = dst[128:], x[128:]
	}
	ordered(dst, x)
}

// scalesAtOnce is how many scales are widened before their rows are read: they stay in the first-level cache.
const scalesAtOnce = 1024

// gemvQuick is out[t, o] for rows lo..hi of w; x [rows, Cols], ordered the same as the kernel wants it.
func gemvQuick(k *quickKernel, out, x, ordered []float32, rows int, w *Matrix, lo, hi int) {
	n, N, per := w.Cols, w.Rows, w.Cols/blockSize
	batch := max(1, scalesAtOnce/per)
	places := batch*per + 16
	mem := scratch32.get(3 * places)
	defer scratch32.put(mem)
	q := quickRowsIn(mem.x, places)
	var a rowsArgs
	if k.table != nil {
		a.table = unsafe.Pointer(unsafe.SliceData(k.table()))
	}
	for first := lo; first < hi; first += batch {
		last := min(first+batch, hi)
		if least, most := k.scales(&q, w, first, last); least < k.least || most > k.most {
			if last-first == 1 {
				gemvFastSIMD(out, x, rows, w, first, last)
				continue
			}
			for o := first; o < last; o++ { // a row does not depend on those beside it
				gemvQuick(k, out, x, ordered, rows, w, o, o+1)
			}
			continue
		}
		a.point(w, first, 0, n)
		a.scale, a.min, a.off = unsafe.Pointer(&q.scale[0]), unsafe.Pointer(&q.low[0]), unsafe.Pointer(&q.off[0])
		a.rows = last - first
		for t := range rows {
			dst := out[t*N+first : t*N+last]
			a.x, a.dst = unsafe.Pointer(&ordered[t*n]), unsafe.Pointer(&dst[0])
			a.call(k.run)
			for r, v := range dst {
				// A block's sum may overflow before its scale makes it small; what is infinite stays so to the end.
				if v-v != 0 {
					gemvFastSIMD(out[t*N:], x[t*n:], 1, w, first+r, first+r+1)
				}
			}
		}
	}
}

// gemvExactQuick is out[t, o] for rows lo..hi of w, bytes in blocks of 32, exact. Rows with scales that are not quick take
// rowsKernel; no weight of the others is larger than 128 times their largest scale. x is the tokens' by exactOrder.
func gemvExactQuick(run func(a *byte), out []float32, tokens []token, x []float64, w *Matrix, lo, hi int) {
	n, N, per := w.Cols, w.Rows, w.Cols/blockSize
	batch := min(max(1, scalesAtOnce/per), pairRows)
	places := batch*per + 16
	mem, sums := scratch32.get(2*places), scratch64.get(batch)
	defer scratch32.put(mem)
	defer scratch64.put(sums)
	q := quickRows{scale: mem.x[:places], low: mem.x[places:]}
	var a rowsArgs
	for first := lo; first < hi; first += batch {
		last := min(first+batch, hi)
		least, most := roundingF16(&q, w.Blocks.Scale[2*first*per:2*last*per], nil)
		if least < leastF16Scale || most > mostF16Scale {
			gemvExactSIMD(out, tokens, w, first, last)
			continue
		}
		largest := 128 * float64(precision.F16ToF32(uint16(most)))
		a.point(w, first, 0, n)
		a.scale, a.min = unsafe.Pointer(&q.scale[0]), unsafe.Pointer(&q.low[0])
		a.rows, a.dst = last-first, unsafe.Pointer(&sums.x[0])
		for t := range tokens {
			tok := &tokens[t]
			a.x = unsafe.Pointer(&x[t*n])
			a.call(run)
			abs, u := largest*tok.one, rowsBound(n)
			roundRows(out[t*N+first:t*N+last], sums.x, abs*u, func(r int) {
				out[t*N+first+r] = tok.round(sums.x[r], abs, u, w, first+r)
			})
		}
	}
}

func exactQuickAVX2(p *Pool, out []float32, tokens []token, w *Matrix) bool {
	return linearExactQuick(quickExactI8, 8, p, out, tokens, w)
}

func exactQuickAVX512(p *Pool, out []float32, tokens []token, w *Matrix) bool {
	return linearExactQuick(quickExactI8x16, 16, p, out, tokens, w)
}

// exactOrder writes x 2^896 times as large, which float64 holds of every float32, and of every so many lanes the even ones before
// the odd ones; x is whole blocks.
func exactOrder(dst []float64, x []float32, lanes int) {
	for half := lanes / 2; len(x) > 0; dst, x = dst[lanes:], x[lanes:] {
		even, odd := dst[:half], dst[half:lanes]
		for i := range even {
			even[i], odd[i] = float64(x[2*i])*0x1p896, float64(x[2*i+1])*0x1p896
		}
	}
}

// linearExactQuick is the exact product of a few tokens with bytes in blocks of 32, by run, which takes so many at once.
func linearExactQuick(run func(a *byte), lanes int, p *Pool, out []float32, tokens []token, w *Matrix) bool {
	if w.Format != I8Block || !w.inBlocks() {
		return false
	}
	n := w.Cols
	x := scratch64.get(len(tokens) * n)
	defer scratch64.put(x)
	for t := range tokens {
		tokens[t].prepare(rowsF32) // the norms that are wanted here, and what rows with other scales want
		exactOrder(x.x[t*n:][:n], tokens[t].x, lanes)
	}
	const group = 4
	p.For((w.Rows+group-1)/group, 2*group*w.Cols*len(tokens)/simdSpeed, func(lo, hi int) {
		gemvExactQuick(run, out, tokens, x.x, w, group*lo, min(group*hi, w.Rows))
	})
	return true
}

func quickAVX2(p *Pool, out, x []float32, rows int, w *Matrix) bool {
	return linearQuick(w.quick(false), p, out, x, rows, w)
}

func quickAVX512(p *Pool, out, x []float32, rows int, w *Matrix) bool {
	return linearQuick(w.quick(true), p, out, x, rows, w)
}

// linearQuick is the product of a few tokens with kernel k, if there is one.
func linearQuick(k *quickKernel, p *Pool, out, x []float32, rows int, w *Matrix) bool {
	if k == nil {
		return false
	}
	y := x
	if k.order != nil {
		n := w.Cols
		mem := scratch32.get(rows * n)
		defer scratch32.put(mem)
		y = mem.x
		for t := range rows {
			k.order(y[t*n:][:n], x[t*n:][:n])
		}
	}
	const group = 4
	p.For((w.Rows+group-1)/group, group*w.Cols*rows/simdSpeed, func(lo, hi int) {
		gemvQuick(k, out, x, y, rows, w, group*lo, min(group*hi, w.Rows))
	})
	return true
}
