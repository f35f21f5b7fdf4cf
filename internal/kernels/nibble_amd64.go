//go:build !noasm

package kernels

import (
	"unsafe"

	"sibyl/precision"
)

// nibbleKernel is the exact product of a few tokens with weights of four bits in blocks of 32 (gen/nibble.go), for the scales that
// its fast one takes.
type nibbleKernel struct {
	*quickKernel
	run     func(a *byte)
	largest func(q *quickRows, most uint32) float64 // what no weight exceeds, of rows whose largest scale has the bits most
}

var (
	nibbleI4 = &nibbleKernel{quickRoundI4AVX512, exactI4x8, largestI4}
	nibbleU4 = &nibbleKernel{quickRoundU4AVX512, exactU4x8, largestU4}
)

func largestI4(_ *quickRows, most uint32) float64 {
	return 8 * float64(precision.F16ToF32(uint16(most)))
}

// largestU4 is 15 scales and a minval, both roundings of 2^-8 at most.
func largestU4(q *quickRows, _ uint32) float64 {
	return (15*float64(precision.BF16ToF32(uint16(q.mostScale))) + float64(precision.BF16ToF32(uint16(q.mostLow)))) * (1 + 0x1p-6)
}

func (m *Matrix) nibble() *nibbleKernel {
	switch {
	case !m.inBlocks():
	case m.Format == I4Block:
		return nibbleI4
	case m.Format == U4Minval:
		return nibbleU4
	}
	return nil
}

// nibbleToken is a token beside its usual form: x in the kernel's order, and at least sum|x|.
type nibbleToken struct {
	wide []float64
	one  float64
}

// exactNibbles writes x as float64, of every 16 the even columns before the odd ones; x is whole blocks.
func exactNibbles(dst []float64, x []float32) {
	for i := 0; i < len(x); i += 16 {
		y, z := x[i:][:16], dst[i:][:16]
		for j := range 8 {
			z[j], z[8+j] = float64(y[2*j]), float64(y[2*j+1])
		}
	}
}

// linearNibbles is the exact product of a few tokens, if the stored form has a kernel.
func linearNibbles(p *Pool, out []float32, tokens []token, w *Matrix) bool {
	k := w.nibble()
	if k == nil {
		return false
	}
	n := w.Cols
	mem := scratch64.get(len(tokens) * n)
	defer scratch64.put(mem)
	own := make([]nibbleToken, len(tokens))
	for t := range own {
		tokens[t].prepare(w.rowsKernel())
		own[t].wide = mem.x[t*n:][:n]
		exactNibbles(own[t].wide, tokens[t].x)
		own[t].one = norm1(own[t].wide)
	}
	const group = 4
	p.For((w.Rows+group-1)/group, 2*group*n*len(tokens)/simdSpeed, func(lo, hi int) {
		gemvNibbles(k, out, tokens, own, w, group*lo, min(group*hi, w.Rows))
	})
	return true
}

// gemvNibbles is out[t, o] for rows lo..hi of w. Rows with scales that are not quick take rowsKernel.
func gemvNibbles(k *nibbleKernel, out []float32, tokens []token, own []nibbleToken, w *Matrix, lo, hi int) {
	n, N, per := w.Cols, w.Rows, w.Cols/blockSize
	batch := min(max(1, scalesAtOnce/per), pairRows)
	places := batch*per + 16
	mem, sums := scratch32.get(3*places), scratch64.get(batch)
	defer scratch32.put(mem)
	defer scratch64.put(sums)
	q := quickRowsIn(mem.x, places)
	var a rowsArgs
	a.table, a.dst = unsafe.Pointer(unsafe.SliceData(k.table())), unsafe.Pointer(&sums.x[0])
	for first := lo; first < hi; first += batch {
		last := min(first+batch, hi)
		least, most := k.scales(&q, w, first, last)
		if least < k.least || most > k.most {
			gemvExactSIMD(out, tokens, w, first, last)
			continue
		}
		a.point(w, first, 0, n)
		a.scale, a.min, a.off = unsafe.Pointer(&q.scale[0]), unsafe.Pointer(&q.low[0]), unsafe.Pointer(&q.off[0])
		a.rows = last - first
		largest := k.largest(&q, most)
		for t := range tokens {
			a.x = unsafe.Pointer(&own[t].wide[0])
			a.call(k.run)
			// 32 chains of n/32 products, and five additions that join them.
			u := float64(n/32+8) * 0x1p-53
			abs := largest * own[t].one
			roundRows(out[t*N+first:t*N+last], sums.x, abs*u, func(r int) {
				out[t*N+first+r] = tokens[t].round(sums.x[r], abs, u, w, first+r)
			})
		}
	}
}
