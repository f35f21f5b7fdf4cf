//go:build !noasm

package kernels

import (
	"math"
	"unsafe"

	"sibyl/precision"
)

// pairBlockKernel is the exact product of one token with quantized rows in blocks of 32, whose sums are pairs of float32
// (gen/pairblock.go), for the scales that the fast one takes. Rows whose sums do not tell how they round are made again in float64.
type pairBlockKernel struct {
	*quickKernel
	run, again func(a *byte)
	wide       func(dst []float64, x []float32) // x as again wants it
	// largest is what no weight exceeds, of rows whose largest scale has the bits most.
	largest func(q *quickRows, most uint32) float64
}

var (
	pairBlockI8 = &pairBlockKernel{quickRoundI8AVX512, pairI8, quickExactI8x16, func(dst []float64, x []float32) { exactOrder(dst, x, 16) }, largestI8}
	pairBlockI4 = &pairBlockKernel{quickRoundI4AVX512, pairI4, exactI4x8, exactNibbles, largestI4}
	pairBlockU4 = &pairBlockKernel{quickRoundU4AVX512, pairU4, exactU4x8, exactNibbles, largestU4}
)

func largestI8(_ *quickRows, most uint32) float64 {
	return 128 * float64(precision.F16ToF32(uint16(most)))
}

// pairBlocks gives the kernel for the stored form, nil if there is none.
func (m *Matrix) pairBlocks() *pairBlockKernel {
	if !m.inBlocks() {
		return nil
	}
	switch m.Format {
	case I8Block:
		return pairBlockI8
	case I4Block:
		return pairBlockI4
	case U4Minval:
		return pairBlockU4
	}
	return nil
}

// pairBlockCols is how many columns make one pair of sums in each of 128 lanes.
const pairBlockCols = 1024

// pairBlockBound is the error of a sum of n products of which every h stayed in [2^k, 2^(k+1)], as pairBound has it, with its U and u.
// Of a block a lane has eight products, or, beyond the last four blocks of 32, up to ten in 32 of them: (m + m(m+1)/2) u U/2, 22 uU or
// 32.5, 3152 uU in all. Adding eight l of 4 U, two of them 5, in sixteen lanes, adds 3*34 uU in each, 1632. What remains is a few
// roundings to float64 and underflows.
func pairBlockBound(n, k int) float64 {
	b := float64((n + pairBlockCols - 1) / pairBlockCols)
	return b * (4900 + 4*b) * math.Ldexp(1, k-23-24)
}

// pairLanes is at least what |x| adds up to in any lane of a pair of sums: of each pairBlockCols, four blocks of 32 have a lane for
// each column, and those beyond the last four share the first one's.
func pairLanes(x []float32) float64 {
	var most float32
	for len(x) > 0 {
		part := x[:min(pairBlockCols, len(x))]
		x = x[len(part):]
		var lanes [4 * blockSize]float32
		for ; len(part) >= len(lanes); part = part[len(lanes):] {
			for i, v := range part[:len(lanes)] {
				lanes[i] += magnitude(v)
			}
		}
		for i, v := range part {
			lanes[i%blockSize] += magnitude(v)
		}
		for _, v := range lanes {
			most = max(most, v)
			if v != v {
				return math.Inf(1)
			}
		}
	}
	return float64(most) * (1 + 0x1p-16) // covers the sums' own rounding
}

// magnitude is |x|.
func magnitude(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// pairBlockProduct is one token's product by pairs.
type pairBlockProduct struct {
	k      *pairBlockKernel
	w      *Matrix
	tokens []token   // the one, as float64 wants it
	x      []float32 // as the kernel wants it
	lane   float64   // pairLanes of it
}

// linearPairBlocks is the exact product of one token by pairs, if the stored form has a kernel.
func linearPairBlocks(p *Pool, out []float32, tokens []token, w *Matrix) bool {
	k := w.pairBlocks()
	if k == nil || len(tokens) != 1 {
		return false
	}
	tok, n := &tokens[0], w.Cols
	tok.prepare(w.rowsKernel())
	q := &pairBlockProduct{k: k, w: w, tokens: tokens, x: tok.x}
	if k.order != nil {
		mem := scratch32.get(n)
		defer scratch32.put(mem)
		k.order(mem.x, q.x)
		q.x = mem.x[:n]
	}
	q.lane = pairLanes(q.x)
	const group = 4
	p.For((w.Rows+group-1)/group, 2*group*n/simdSpeed, func(lo, hi int) {
		q.rows(out, group*lo, min(group*hi, w.Rows))
	})
	return true
}

// binade is k with which sums of products of x with weights up to largest, begun at 1.5*2^k, stay between 2^k and 2^(k+1):
// they add up to less than 2^(k-1), with their roundings, below 2^-18 of it. It is above mostPair for what is no number.
func (q *pairBlockProduct) binade(largest float64) int {
	most := 2 * largest * q.lane * (1 + 0x1p-16)
	if most-most != 0 {
		return mostPair + 1
	}
	_, e := math.Frexp(most)
	return max(e, leastPair)
}

// pairBlockRows is a worker's place for the product of some rows.
type pairBlockRows struct {
	*pairBlockProduct
	scales quickRows
	args   rowsArgs
	wide   *lent[float64] // the token as again wants it, once it is wanted
	begin  float32        // of the sums
	sum    float64        // of the row that is made again
}

// rows is out[lo..hi]. Rows with scales that are not quick, or with sums that have no binade, take rowsKernel.
func (q *pairBlockProduct) rows(out []float32, lo, hi int) {
	w, k := q.w, q.k
	n, per := w.Cols, w.Cols/blockSize
	batch := min(max(1, scalesAtOnce/per), pairRows)
	places := batch*per + 16
	mem, sums := scratch32.get(3*places), scratch64.get(batch)
	defer scratch32.put(mem)
	defer scratch64.put(sums)
	at := pairBlockRows{pairBlockProduct: q, scales: quickRowsIn(mem.x, places)}
	for first := lo; first < hi; first += batch {
		last := min(first+batch, hi)
		least, most := k.scales(&at.scales, w, first, last)
		largest := k.largest(&at.scales, most)
		e := q.binade(largest)
		if least < k.least || most > k.most || e > mostPair {
			gemvExactSIMD(out, q.tokens, w, first, last)
			continue
		}
		at.sums(sums.x[:last-first], first, e)
		roundRows(out[first:last], sums.x, pairBlockBound(n, e), func(r int) {
			at.again(out, first, r, largest)
		})
	}
	if at.wide != nil {
		scratch64.put(at.wide)
	}
}

// sums makes those of rows from first on, whose scales are prepared, begun at 1.5*2^k.
func (at *pairBlockRows) sums(dst []float64, first, k int) {
	at.begin = float32(math.Ldexp(1.5, k))
	at.point(first, 0, len(dst))
	at.args.x, at.args.dst, at.args.sqs = unsafe.Pointer(&at.x[0]), unsafe.Pointer(&dst[0]), unsafe.Pointer(&at.begin)
	at.args.call(at.k.run)
}

// point makes args of so many rows, from r on after the first of those whose scales are prepared.
func (at *pairBlockRows) point(first, r, rows int) {
	at.args.point(at.w, first+r, 0, at.w.Cols)
	block := r * at.w.Cols / blockSize
	at.args.scale, at.args.min, at.args.off = unsafe.Pointer(&at.scales.scale[block]), unsafe.Pointer(&at.scales.low[block]), unsafe.Pointer(&at.scales.off[block])
	at.args.rows = rows
	if at.k.table != nil {
		at.args.table = unsafe.Pointer(unsafe.SliceData(at.k.table()))
	}
}

// again is the product of row first+r, whose weights are at most largest, in float64: 32 chains, five additions that join them. What
// that does not decide either, rowsKernel does, which knows the row's norm.
func (at *pairBlockRows) again(out []float32, first, r int, largest float64) {
	n, tok := at.w.Cols, &at.tokens[0]
	if at.wide == nil {
		at.wide = scratch64.get(n)
		at.k.wide(at.wide.x[:n], tok.x)
	}
	at.point(first, r, 1)
	at.args.x, at.args.dst = unsafe.Pointer(&at.wide.x[0]), unsafe.Pointer(&at.sum)
	at.args.call(at.k.again)
	abs := largest * tok.two * math.Sqrt(float64(n)) * (1 + 0x1p-20) // at least sum |w||x|
	v, ok := precision.Near(at.sum, abs*float64(n/32+8)*0x1p-53)
	if !ok && abs < tok.exact {
		v, ok = float32(at.sum), true
	}
	if !ok {
		gemvExactSIMD(out, at.tokens, at.w, first+r, first+r+1)
		return
	}
	out[first+r] = v
}
