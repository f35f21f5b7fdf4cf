//go:build !noasm

package kernels

import (
	"encoding/binary"
	"math"
	"unsafe"

	"sibyl/precision"
)

// pairKernel is the product of one token with rows whose sums are pairs of float32 (gen/pair.go): half of what float64 takes, and
// accurate enough to round all but some in a hundred. Those are made again in float64.
type pairKernel struct {
	run   func(a *byte)
	order bool // x is to come as ordered writes it
}

var (
	pairF32     = &pairKernel{rowsPairF32, false}
	pairF16     = &pairKernel{rowsPairF16, false}
	pairBF16    = &pairKernel{rowsPairBF16, true}
	pairBF16R16 = &pairKernel{rowsPairBF16R16, true}
)

// pair gives the kernel for the stored form, nil if there is none.
func (m *Matrix) pair() *pairKernel {
	switch {
	case m.Cols%64 != 0 || m.Cols == 0:
	case m.Format == F32 && m.Round == precision.F32:
		return pairF32
	case m.Format == F16 && m.Round == precision.F32:
		return pairF16
	case m.Format == BF16 && m.Round == precision.F32:
		return pairBF16
	case m.Format == BF16 && m.Round == precision.F16:
		return pairBF16R16
	}
	return nil
}

// pairBlock is how many columns make one pair of sums in each of 64 lanes.
const pairBlock = 1024

// pairBound is the error of a sum of n products of which every h stayed in [2^k, 2^(k+1)). U = 2^(k-23) is h's unit in the last
// place there, u = 2^-24. A lane has m = 16 products of a block, at most. Its h loses at most U/2 a product, of which l, whose
// j-th value is at most jU/2, loses u times that as it is made and u jU/2 as it is added: (m + m(m+1)/2) u U/2 = 76 uU, and
// 64 lanes 4864 uU. Adding four l, in sixteen lanes, adds 1024 uU; four h are added exactly. What remains is a few roundings
// to float64 of sums of at most 16*2^(k+1) a block, below (2b+6) uU a block where there are b, and underflows of 2^-150, which are
// nothing to uU >= 2^-128 (leastPair).
func pairBound(n, k int) float64 {
	b := float64((n + pairBlock - 1) / pairBlock)
	return b * (6000 + 2*b) * math.Ldexp(1, k-23-24)
}

// The binades that h may have.
const leastPair, mostPair = -80, 80

// pairRows is how many rows are rounded together: those that are made again are still in the second-level cache.
const pairRows = 256

// pairOnes are the bounds of a group's sums in the unit that round64 takes beside them.
var pairOnes = func() (x [pairRows]float64) {
	for i := range x {
		x[i] = 1
	}
	return x
}()

// pairProduct is one token's product by pairs.
type pairProduct struct {
	k      *pairKernel
	w      *Matrix
	tokens []token   // the one, as float64 wants it
	x      []float32 // as the kernel wants it
	spread float64   // about what a lane's x add up to, in units of a weight
}

// linearPair is the exact product of one token by pairs, if the stored form has a kernel.
func linearPair(p *Pool, out []float32, tokens []token, w *Matrix) bool {
	k := w.pair()
	if k == nil || len(tokens) != 1 {
		return false
	}
	tok, n := &tokens[0], w.Cols
	tok.prepare(w.rowsKernel())
	q := &pairProduct{k: k, w: w, tokens: tokens, x: tok.x}
	q.spread = tok.spread()
	if k.order {
		mem := scratch32.get(n)
		defer scratch32.put(mem)
		ordered(mem.x, q.x)
		q.x = mem.x
	}
	const group = 4
	p.For((w.Rows+group-1)/group, 2*group*n/simdSpeed, func(lo, hi int) {
		q.rows(out, group*lo, min(group*hi, w.Rows))
	})
	return true
}

// spread is about what the x of a lane add up to, in units of a weight: sixteen, twice as many to be safe, and the largest.
func (t *token) spread() float64 {
	const sign = 1 << 31
	var a, b, c, d uint32
	x := t.x[:len(t.x)&^3]
	for i := 0; i+4 <= len(x); i += 4 {
		y := x[i : i+4 : i+4]
		a = max(a, math.Float32bits(y[0])&^sign)
		b = max(b, math.Float32bits(y[1])&^sign)
		c = max(c, math.Float32bits(y[2])&^sign)
		d = max(d, math.Float32bits(y[3])&^sign)
	}
	top := float64(math.Float32frombits(max(a, b, c, d)))
	return math.Sqrt(32*t.two*t.two/float64(len(t.x)) + top*top)
}

// rows is out[lo..hi].
func (q *pairProduct) rows(out []float32, lo, hi int) {
	n := q.w.Cols
	sums := scratch64.get(pairRows)
	defer scratch64.put(sums)
	var again *gemv
	var a rowsArgs
	var begin float32
	a.x, a.table, a.dst = unsafe.Pointer(&q.x[0]), unsafe.Pointer(&begin), unsafe.Pointer(&sums.x[0])
	k := q.binade(lo, min(pairRows, hi-lo))
	wider := 0 // binades that h got because rows left it
	for o := lo; o < hi; o += pairRows {
		group := min(pairRows, hi-o)
		if o > lo { // by what was just read: to look ahead is to wait
			k = q.binade(o-pairRows, pairRows)
		}
		k += wider
		if k > mostPair {
			gemvExactSIMD(out, q.tokens, q.w, o, o+group)
			continue
		}
		k = max(k, leastPair)
		begin = float32(math.Ldexp(1.5, k))
		a.point(q.w, o, 0, n)
		a.rows = group
		a.call(q.k.run)
		left := 0
		roundRows(out[o:o+group], sums.x, pairBound(n, k), func(r int) {
			if sums.x[r] != sums.x[r] {
				left++
			}
			if again == nil {
				again = newExactGEMV(q.w, 1, 1)
			}
			again.exactRows(out, q.tokens, o+r, o+r+1)
		})
		if left > group/32 {
			wider++
		}
	}
}

// roundRows writes to dst what sums round to that err by bound at most, and calls again for each one that does not tell.
func roundRows(dst []float32, sums []float64, bound float64, again func(r int)) {
	for r := 0; r < len(dst); {
		if whole := (len(dst) - r) &^ 3; whole > 0 {
			r += round64(&dst[r], &sums[r], &pairOnes[0], bound, whole)
		}
		for end := min(r+4, len(dst)); r < end; r++ {
			// A bound that is no number is of an infinity or a NaN, which the sum need not show.
			if v, ok := precision.Near(sums[r], bound); ok && v == v && bound-bound == 0 {
				dst[r] = v
			} else {
				again(r)
			}
		}
	}
}

// binade guesses k for so many rows from o on: h should stay within 2^(k-1) of where it begins.
func (q *pairProduct) binade(o, rows int) int {
	const of, each = 8, 16
	var sq float64
	var row [each]float32
	n := q.w.Cols
	for i := range of {
		q.w.sample(row[:], o+i*(rows-1)/(of-1), i*(n-each)/(of-1)&^1)
		for _, v := range row {
			sq += float64(v) * float64(v)
		}
	}
	_, e := math.Frexp(8 * math.Sqrt(sq/(of*each)) * q.spread)
	if sq-sq != 0 || q.spread-q.spread != 0 {
		return mostPair + 1
	}
	return e
}

// sample decodes columns j.. of plain row o, not rounded.
func (m *Matrix) sample(dst []float32, o, j int) {
	at := o*m.Cols + j
	switch m.Format {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(m.Data[4*(at+i):]))
		}
	case F16:
		for i := range dst {
			dst[i] = precision.F16ToF32(binary.LittleEndian.Uint16(m.Data[2*(at+i):]))
		}
	case BF16:
		for i := range dst {
			dst[i] = precision.BF16ToF32(binary.LittleEndian.Uint16(m.Data[2*(at+i):]))
		}
	}
}

func exactFewAVX512(p *Pool, out []float32, tokens []token, w *Matrix) bool {
	return linearPair(p, out, tokens, w) || linearPairBlocks(p, out, tokens, w) || linearNibbles(p, out, tokens, w) || exactQuickAVX512(p, out, tokens, w)
}
