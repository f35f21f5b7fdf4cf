//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"math"
	"unsafe"

	"sibyl/precision"
)

// gemv walks rows of a matrix for a few tokens: a group of weight rows meets every token before the next is read.
type gemv struct {
	w     *Matrix
	k     *rowsKernel
	args  rowsArgs
	most  int       // rows of a group
	buf   []float32 // decoded rows, where the stored form has no assembly
	whole int       // the columns that assembly reads
	rest  []float32 // the others of one row
	sums  []float64 // of a group
	sqs   []float32
}

// Rows that are read one after the other come in groups: of groupRows for one token, since a call costs what its first lines
// take to come, and of groupBytes for several, which the second-level cache then holds for all of them.
const (
	groupRows  = 512
	groupBytes = 128 << 10
)

func newGEMV(w *Matrix, tokens int) *gemv {
	g := &gemv{w: w, k: w.rowsKernel()}
	if g.k == nil {
		g.k = rowsF32
	}
	if g.most = g.k.rows; g.most == 0 {
		g.most = groupRows
		if tokens > 1 {
			g.most = min(max(tallRows, groupBytes/max(1, w.rowStride())&^(tallRows-1)), groupRows)
		}
	}
	if w.rowsKernel() == nil {
		g.most = min(g.most, 4)
		g.buf = make([]float32, g.most*w.Cols)
	}
	g.whole = w.Cols / g.k.step * g.k.step
	g.rest = make([]float32, w.Cols-g.whole)
	return g
}

// groups points args at each group of rows lo..hi and calls dot with the first row and their number; where the last
// ones are fewer than the assembly takes side by side, they come one by one.
func (g *gemv) groups(lo, hi int, dot func(o, group int)) {
	for o := lo; o < hi; {
		group := min(g.most, hi-o)
		if g.k.rows > 0 && group < g.k.rows {
			group = 1
		}
		m, row := g.w, o
		if g.buf != nil {
			m, row = g.w.decode(g.buf, o, group), 0
		}
		g.args.point(m, row, 0, g.whole)
		g.args.rows = group
		g.args.ahead = 2048
		if g.args.wStride <= 4096 { // short rows: the next group's
			g.args.ahead = group * g.args.wStride
		}
		if group == 1 { // the same row in every place
			g.args.wStride, g.args.sStride = 0, 0
		}
		dot(o, group)
		o += group
	}
}

// fast writes a group's sums to dst.
func (g *gemv) fast(dst []float32) {
	a := g.args
	a.dst = unsafe.Pointer(&dst[0])
	if asksAhead && g.k.ahead != nil {
		a.call(g.k.ahead)
		return
	}
	if tall := len(dst) &^ (tallRows - 1); tall > 0 && g.k.tall != nil && a.n >= tallCols {
		a.rows = tall
		a.call(g.k.tall)
		if dst = dst[tall:]; len(dst) == 0 {
			return
		}
		a.dst, a.w, a.rows = unsafe.Pointer(&dst[0]), unsafe.Add(a.w, tall*a.wStride), len(dst)
	}
	a.call(g.k.fast)
	if g.k.rows > 0 {
		copy(dst, a.sum32[:])
	}
}

// exact leaves a group's sums and what bounds them in sums and sqs.
func (g *gemv) exact() {
	g.args.dst, g.args.sqs = unsafe.Pointer(&g.sums[0]), unsafe.Pointer(&g.sqs[0])
	g.args.call(g.k.exact)
	if g.k.rows > 0 {
		copy(g.sums, g.args.sum64[:])
		copy(g.sqs, g.args.sq[:])
	}
}

// tail gives the columns of row o that assembly does not read.
func (g *gemv) tail(o int) []float32 {
	if len(g.rest) == 0 {
		return nil
	}
	if g.buf != nil {
		g.w.Row(g.buf, o) // this group's sums are made
		return g.buf[g.whole:g.w.Cols]
	}
	g.w.tail(g.rest, o, g.whole)
	return g.rest
}

// decode writes rows o.. of a matrix without assembly to buf, as a float32 matrix.
func (m *Matrix) decode(buf []float32, o, rows int) *Matrix {
	for r := range rows {
		m.Row(buf[r*m.Cols:], o+r)
	}
	return &Matrix{Format: F32, Rows: rows, Cols: m.Cols, Data: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(buf))), 4*rows*m.Cols)}
}

// gemvFastSIMD is out[t, o] for rows lo..hi of w; x [rows, Cols].
func gemvFastSIMD(out, x []float32, rows int, w *Matrix, lo, hi int) {
	n, N := w.Cols, w.Rows
	g := newGEMV(w, rows)
	g.groups(lo, hi, func(o, group int) {
		for t := range rows {
			g.args.x = unsafe.Pointer(&x[t*n])
			g.fast(out[t*N+o:][:group])
		}
		if len(g.rest) == 0 {
			return
		}
		for r := range group {
			rest := g.tail(o + r)
			for t := range rows {
				out[t*N+o+r] += dotFastGo(rest, x[t*n+g.whole:][:len(rest)])
			}
		}
	})
}

// rowsBound is the error of a sum of n products in the exact kernels, over sum|w*x|: eight chains of n/8, three
// additions that join them, and up to 31 products of the tail in a chain of their own (Higham, Accuracy and
// Stability, 4.2).
func rowsBound(n int) float64 { return float64(n/8+40) * 0x1p-53 }

// token is one row of x as the exact kernels want it.
type token struct {
	x    []float32
	wide []float64
	back float64 // what the sums are to be multiplied with: a power of two
	one  float64 // at least sum|x|
	two  float64 // at least the root of sum x*x
	// exact is what sum |w||x| must stay below for the sum to be exact (exactBelow).
	exact float64
}

// prepare fills t from t.x for kernel k; t.wide [n].
func (t *token) prepare(k *rowsKernel) {
	t.two, t.back = widenNorm(t.wide, t.x), 1
	t.one = 0
	if k.most == nil {
		return
	}
	t.one = norm1(t.wide)
	if k.scale == 0 {
		return
	}
	scale := k.scale
	if limit := 1000 - k.scale; t.one >= math.Ldexp(1, limit) && t.one-t.one == 0 {
		_, e := math.Frexp(t.one)
		scale -= e - limit
		t.back = math.Ldexp(1, e-limit)
	}
	f := math.Ldexp(1, scale)
	for i := 0; i+16 <= len(t.x); i += 16 {
		x, y := t.x[i:i+16], t.wide[i:i+16]
		for l := range 4 {
			y[l], y[4+l], y[8+l], y[12+l] = float64(x[4*l+3])*f, float64(x[4*l+1])*f, float64(x[4*l+2])*f, float64(x[4*l])*f
		}
	}
}

// gemvExactSIMD is out[t, o] for rows lo..hi of w, exact.
func gemvExactSIMD(out []float32, tokens []token, w *Matrix, lo, hi int) {
	newExactGEMV(w, len(tokens), hi-lo).exactRows(out, tokens, lo, hi)
}

// newExactGEMV has room for ranges of so many rows.
func newExactGEMV(w *Matrix, tokens, rows int) *gemv {
	g := newGEMV(w, tokens)
	most := min(g.most, rows) // a short range needs no room for a long group
	g.sums, g.sqs = make([]float64, most), make([]float32, most)
	return g
}

func (g *gemv) exactRows(out []float32, tokens []token, lo, hi int) {
	w := g.w
	n, N := w.Cols, w.Rows
	u := rowsBound(n)
	g.groups(lo, hi, func(o, group int) {
		for t := range tokens {
			tok := &tokens[t]
			g.args.x = unsafe.Pointer(unsafe.SliceData(tok.wide))
			g.exact()
			for r := range group {
				s, q, m := g.sums[r]*tok.back, float64(g.sqs[r]), 0.0
				if g.k.most != nil {
					m = g.k.most(math.Float32bits(g.sqs[r]))
				}
				if rest := g.tail(o + r); rest != nil {
					s, q, m = addTail(s, q, m, rest, tok.x[g.whole:])
				}
				most := m * tok.one // at least sum |w||x|
				if g.k.most == nil {
					most = rowNorm(q, n) * tok.two
				}
				out[t*N+o+r] = tok.round(s, most, u, w, o+r)
			}
			if g.buf != nil && len(g.rest) > 0 && t+1 < len(tokens) { // tail used it
				w.decode(g.buf, o, group)
			}
		}
	})
}

// round is sum s over row o of w, rounded once; most is at least sum |w||x|, u the error of s over it.
func (t *token) round(s, most, u float64, w *Matrix, o int) float32 {
	v, ok := precision.Near(s, most*u)
	// A bound that is no number is of a NaN or an infinity, which the sum need not show.
	if ok && most-most == 0 {
		return v
	}
	if most < t.exact {
		return float32(s)
	}
	row := scratch32.get(w.Cols)
	defer scratch32.put(row)
	w.Row(row.x, o)
	return decide(row.x, t.x)
}

// addTail adds the last products, squares and magnitudes of a row.
func addTail(s, sq, most float64, w, x []float32) (float64, float64, float64) {
	var p, q float64
	for i, v := range w {
		a := float64(v)
		p += a * float64(x[i])
		q += a * a
		most = math.Max(most, math.Abs(a))
	}
	return s + p, sq + q, most
}

// rowNorm is at least |w|, from the float32 sum of squares: that sum errs by n/8+8 roundings of 2^-24 each and by 2^-149
// for each square that underflows.
func rowNorm(sq float64, n int) float64 {
	return math.Sqrt(sq*(1+float64(n/4+64)*0x1p-24)+float64(n)*0x1p-148) * (1 + 0x1p-20)
}
