//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"math"
	"math/bits"
	"unsafe"

	"sibyl/precision"
)

// A product with few tokens costs the reading of the weights: rows against tokens, gemv. With more it costs the
// multiply-adds: register tiles over weights that are unpacked a block at a time.
const (
	gemvTokensFast  = 6
	gemvTokensExact = 4
	depth           = 256 // columns that are unpacked together: the longest chain of a sum, too
)

// tokenBlock is how many tokens' packed activations, n numbers of size bytes each, are kept: they share one unpacking of the
// weights, and every stripe of rows reads them all, from a cache if they are not too many.
func tokenBlock(n, size int) int {
	if 256*n*size > 16<<20 {
		return 128
	}
	return 256
}

// tiling is how a product is cut (gen/tile.go).
type tiling[T float32 | float64] struct {
	rows   int                           // weight rows of a register tile
	stripe int                           // weight rows whose products are written together, whole tiles
	lanes  int                           // tokens of a register tile
	wide   map[*rowsKernel]func(a *byte) // what unpacks with wider registers
	turn   turn16
	widen  widens
	tile   func(y *T, ldy int, w *T, ldw int, x *T, k int, ahead *byte)
	half   func(y *T, ldy int, w *T, ldw int, x *T, k int, ahead *byte) // of lanes/2 tokens; nil if there is none
	// quick is the fast product of a few tokens where the stored form has a way of its own; nil if none has.
	quick      func(p *Pool, out, x []float32, rows int, w *Matrix) bool
	quickExact func(p *Pool, out []float32, tokens []token, w *Matrix) bool // of exact products
}

// padded is how many places T tokens take in packed activations.
func (g *tiling[T]) padded(tokens int) int {
	all := (tokens + g.lanes - 1) / g.lanes * g.lanes
	if g.half != nil && all-tokens >= g.lanes/2 {
		all -= g.lanes / 2
	}
	return all
}

// width is how many tokens the panel has that begins at token t of so many.
func (g *tiling[T]) width(t, padded int) int { return min(g.lanes, padded-t) }

// multiply adds n columns from j on of the tile's rows from r on, unpacked to w, times those of the packed activations, to
// y [stripe, tokens].
func (g *tiling[T]) multiply(s *stripe, y, w, packed []T, r, j, n int) {
	for t := 0; t < s.tokens; t += g.lanes {
		tile, width := g.tile, g.width(t, s.tokens)
		if width < g.lanes {
			tile = g.half
		}
		tile(&y[r*s.tokens+t], s.tokens, &w[0], depth, &packed[t*s.w.Cols+j*width], n, s.ask(n))
	}
}

// linearAloneSIMD is linearFastSIMD of each token by itself, any number of them: a token's sums do not depend on the others.
func linearAloneSIMD(g *tiling[float32], p *Pool, out, x []float32, rows int, w *Matrix) {
	if g.quick != nil && g.quick(p, out, x, rows, w) {
		return
	}
	// A row's sum may depend on whether it is one of tallRows: parts of whole groups, for any tokens and threads, leave it alone.
	const group = tallRows
	p.For((w.Rows+group-1)/group, group*w.Cols*rows/simdSpeed, func(lo, hi int) {
		gemvFastSIMD(out, x, rows, w, group*lo, min(group*hi, w.Rows))
	})
}

func linearFastSIMD(g *tiling[float32], p *Pool, out, x []float32, rows int, w *Matrix) {
	if rows <= gemvTokensFast {
		linearAloneSIMD(g, p, out, x, rows, w)
		return
	}
	linearsFastSIMD(g, p, x, rows, []Product{{out, w}})
}

// linearsFastSIMD is linearFastSIMD of more than a few tokens with several weights.
func linearsFastSIMD(g *tiling[float32], p *Pool, x []float32, rows int, products []Product) {
	n := products[0].W.Cols
	together := tokenBlock(n, 4)
	for t0 := 0; t0 < rows; t0 += together {
		T := min(together, rows-t0)
		padded := g.padded(T)
		packed := scratch32.get(padded * n)
		p.For((padded+g.lanes-1)/g.lanes, g.lanes*n, func(lo, hi int) {
			for t := lo * g.lanes; t < min(hi*g.lanes, padded); t += g.lanes {
				width := g.width(t, padded)
				g.turn.packTokens(packed.x[t*n:][:width*n], x[t0*n:], n, n, t, T, width)
			}
		})
		p.For(g.units(products), g.rows*n*T/simdSpeed, func(lo, hi int) {
			g.eachStripe(products, padded, lo, hi, func(s *stripe, o Product) func() {
				return func() {
					clear(s.y32.x)
					for j := 0; j < n; j += depth {
						d := min(depth, n-j)
						for r := 0; r < s.rows; r += g.rows {
							s.unpack(r, min(g.rows, s.rows-r), j, d)
							g.multiply(s, s.y32.x, s.w32.x, packed.x, r, j, d)
						}
					}
					s.write(o.Out[t0*o.W.Rows:], s.y32.x, T)
				}
			})
		})
		scratch32.put(packed)
	}
}

// severalFast is several products with one x: by tiles together, of a few tokens one after the other.
func severalFast(g *tiling[float32]) linearsFunc {
	return func(p *Pool, x []float32, rows int, products []Product) {
		if rows > gemvTokensFast {
			linearsFastSIMD(g, p, x, rows, products)
			return
		}
		for _, o := range products {
			linearFastSIMD(g, p, o.Out, x, rows, o.W)
		}
	}
}

// severalExact is severalFast of exact products.
func severalExact(g *tiling[float64]) linearsFunc {
	return func(p *Pool, x []float32, rows int, products []Product) {
		if rows > gemvTokensExact {
			linearsExactSIMD(g, p, x, rows, products)
			return
		}
		for _, o := range products {
			linearExactSIMD(g, p, o.Out, x, rows, o.W)
		}
	}
}

// units is how many times the rows of a register tile there are in all the weights: what threads share out, so that they end
// together.
func (g *tiling[T]) units(products []Product) (all int) {
	for _, o := range products {
		all += (o.W.Rows + g.rows - 1) / g.rows
	}
	return all
}

// eachStripe goes through units lo..hi of all the weights together in stripes: begin makes the place for those of a weight,
// and gives what is called for each stripe once it has started.
func (g *tiling[T]) eachStripe(products []Product, padded, lo, hi int, begin func(s *stripe, o Product) func()) {
	for _, o := range products {
		n := (o.W.Rows + g.rows - 1) / g.rows
		if first, end := max(lo, 0)*g.rows, min(hi, n)*g.rows; first < end {
			s := g.newStripe(o.W, padded)
			each := begin(s, o)
			for ; first < end; first += g.stripe {
				s.start(first, min(g.stripe, end-first, o.W.Rows-first))
				each()
			}
			s.free()
		}
		lo, hi = lo-n, hi-n
	}
}

func linearExactSIMD(g *tiling[float64], p *Pool, out, x []float32, rows int, w *Matrix) {
	n := w.Cols
	if rows <= gemvTokensExact {
		wide, tokens, k := scratch64.get(rows*n), make([]token, rows), w.rowsKernel()
		defer scratch64.put(wide)
		if k == nil {
			k = rowsF32
		}
		halves := w.onF16Grid()
		for t := range tokens {
			tokens[t] = token{x: x[t*n:][:n], wide: wide.x[t*n:][:n]}
			if halves {
				tokens[t].exact = exactBelow(tokens[t].x)
			}
		}
		if g.quickExact != nil && g.quickExact(p, out, tokens, w) {
			return
		}
		for t := range tokens {
			tokens[t].prepare(k)
		}
		const group = 4
		p.For((w.Rows+group-1)/group, 2*group*n*rows/simdSpeed, func(lo, hi int) {
			gemvExactSIMD(out, tokens, w, group*lo, min(group*hi, w.Rows))
		})
		return
	}
	linearsExactSIMD(g, p, x, rows, []Product{{out, w}})
}

// linearsExactSIMD is linearExactSIMD of more than a few tokens with several weights.
func linearsExactSIMD(g *tiling[float64], p *Pool, x []float32, rows int, products []Product) {
	n := products[0].W.Cols
	halves := false
	for _, o := range products {
		halves = halves || o.W.onF16Grid()
	}
	together := tokenBlock(n, 8)
	for t0 := 0; t0 < rows; t0 += together {
		T := min(together, rows-t0)
		padded := g.padded(T)
		packed, xn, exact := scratch64.get(padded*n), make([]float64, padded), make([]float64, padded)
		p.For((padded+g.lanes-1)/g.lanes, g.lanes*n, func(lo, hi int) {
			narrow := scratch32.get(g.lanes * n)
			defer scratch32.put(narrow)
			for t := lo * g.lanes; t < min(hi*g.lanes, padded); t += g.lanes {
				width := g.width(t, padded)
				g.turn.packTokens(narrow.x[:width*n], x[t0*n:], n, n, t, T, width)
				g.widen.run(packed.x[t*n:][:width*n], narrow.x[:width*n])
			}
			for t := lo * g.lanes; t < min(hi*g.lanes, T); t++ {
				xn[t] = norm2of(x[(t0+t)*n:][:n])
				if halves {
					exact[t] = exactBelow(x[(t0+t)*n:][:n])
				}
			}
		})
		p.For(g.units(products), 2*g.rows*n*T/simdSpeed, func(lo, hi int) {
			g.eachStripe(products, padded, lo, hi, func(s *stripe, o Product) func() {
				s.y64, s.w64 = scratch64.get(g.stripe*padded), scratch64.get(g.rows*depth)
				below := exact
				if halves && !o.W.onF16Grid() { // where none is, exact says so already
					below = make([]float64, padded)
				}
				return func() {
					clear(s.y64.x)
					clear(s.sq)
					for j := 0; j < n; j += depth {
						d := min(depth, n-j)
						for r := 0; r < s.rows; r += g.rows {
							rows := min(g.rows, s.rows-r)
							s.unpack(r, rows, j, d)
							for i := range rows {
								s.sq[r+i] += g.widen.run(s.w64.x[i*depth:][:d], s.w32.x[i*depth:][:d])
							}
							g.multiply(s, s.y64.x, s.w64.x, packed.x, r, j, d)
						}
					}
					s.round(xn, below, x[t0*n:])
					s.write(o.Out[t0*o.W.Rows:], s.y32.x, T)
				}
			})
		})
		scratch64.put(packed)
	}
}

// simdSpeed is how many times faster than portable code these kernels multiply: what Pool.For is told counts in its terms.
const simdSpeed = 8

// turn16 turns 16 rows of n numbers, a multiple of 16 (gen/tile.go); nil where there is no such kernel.
type turn16 func(dst *float32, ldd int, src *float32, lds int, n int)

// packTokens turns tokens t.. of x, T rows of n numbers that begin ld apart, into a panel [n, lanes]: the tokens of one column side by side, zeros where
// there are none.
func (turn turn16) packTokens(panel, x []float32, ld, n, t, T, lanes int) {
	have := max(0, min(lanes, T-t))
	if have > 0 {
		turn.transpose(panel, lanes, x[t*ld:], ld, have, n)
	}
	if have < lanes {
		for i := range n {
			clear(panel[i*lanes+have : (i+1)*lanes])
		}
	}
}

// transpose is dst[c*ldd+r] = src[r*lds+c] for r < rows and c < cols.
func (turn turn16) transpose(dst []float32, ldd int, src []float32, lds, rows, cols int) {
	r := 0
	if whole := cols &^ 15; turn != nil && whole > 0 {
		for ; r+16 <= rows; r += 16 {
			turn(&dst[r], ldd, &src[r*lds], lds, whole)
			transposeGo(dst[r:], ldd, src[r*lds:], lds, 16, whole, cols)
		}
	}
	for ; r+8 <= rows; r += 8 {
		c := 0
		for ; c+8 <= cols; c += 8 {
			transpose8(&dst[c*ldd+r], ldd, &src[r*lds+c], lds)
		}
		transposeGo(dst[r:], ldd, src[r*lds:], lds, 8, c, cols)
	}
	if r < rows {
		transposeGo(dst[r:], ldd, src[r*lds:], lds, rows-r, 0, cols)
	}
}

func transposeGo(dst []float32, ldd int, src []float32, lds, rows, c0, cols int) {
	for c := c0; c < cols; c++ {
		for r := range rows {
			dst[c*ldd+r] = src[r*lds+c]
		}
	}
}

// stripe is a worker's place for some rows of the product with all tokens of a block.
type stripe struct {
	w      *Matrix
	k      *rowsKernel
	tokens int // with those that are padding
	size   int // rows there is room for
	first  int // the first row
	rows   int

	args    rowsArgs
	unpacks func(a *byte)
	turn    turn16
	ahead   []byte         // of the next stripe's rows, what has not been asked for
	decoded []float32      // whole rows, where the format has no assembly
	w32     *lent[float32] // a tile's rows [.., depth]
	w64     *lent[float64]
	y32     *lent[float32] // [size, tokens]
	y64     *lent[float64]
	sq      []float64 // sum of w*w of each row
}

func (g *tiling[T]) newStripe(w *Matrix, tokens int) *stripe {
	size := g.stripe
	s := &stripe{w: w, k: w.rowsKernel(), turn: g.turn, tokens: tokens, size: size, sq: make([]float64, size)}
	s.w32, s.y32 = scratch32.get(g.rows*depth), scratch32.get(size*tokens)
	clear(s.w32.x) // rows that a tile reads and nobody asks for hold numbers, not what was left there
	switch {
	case s.k == nil:
		s.decoded = make([]float32, size*w.Cols)
	default:
		if s.unpacks = g.wide[s.k]; s.unpacks == nil {
			s.unpacks = s.k.unpack
		}
	}
	return s
}

// free gives back what was lent.
func (s *stripe) free() {
	scratch32.put(s.w32)
	scratch32.put(s.y32)
	if s.y64 != nil {
		scratch64.put(s.w64)
		scratch64.put(s.y64)
	}
}

// start goes to so many rows from row first on. Where it does not come from the rows before, nobody has asked for these.
func (s *stripe) start(first, rows int) {
	next, stride := first, s.w.rowStride()
	if s.rows > 0 && first == s.first+s.rows {
		next += s.size
	}
	s.first, s.rows = first, rows
	if s.decoded != nil {
		for r := range s.rows {
			s.w.Row(s.decoded[r*s.w.Cols:], first+r)
		}
		return
	}
	end := min(first+2*s.size, s.w.Rows)
	s.ahead = s.w.Data[min(next, end)*stride : end*stride]
}

// ask gives a tile of n columns the lines to ask for while it multiplies: short pieces of rows far apart are what no
// prefetcher foresees, and memory has time here. When all are asked for it is lines that are in the cache.
func (s *stripe) ask(n int) *byte {
	if len(s.ahead) == 0 {
		return (*byte)(unsafe.Pointer(&s.w32.x[0]))
	}
	p := &s.ahead[0]
	s.ahead = s.ahead[min(len(s.ahead), n/4*64):]
	return p
}

// unpack writes columns j..j+n of so many of the stripe's rows from r on to w32: a register tile's, which stay in the
// first-level cache. Where tiles do not ask for the next ones, it does.
func (s *stripe) unpack(r, rows, j, n int) {
	if s.decoded != nil {
		for i := range rows {
			copy(s.w32.x[i*depth:][:n], s.decoded[(r+i)*s.w.Cols+j:])
		}
		return
	}
	whole := n / s.k.step * s.k.step
	if whole > 0 {
		stride := s.w.rowStride()
		if s.args.ahead = depth * stride / s.w.Cols; j+n == s.w.Cols {
			s.args.ahead = s.size*stride - j*stride/s.w.Cols
		}
		s.args.point(s.w, s.first+r, j, whole)
		s.args.dst, s.args.dstStride, s.args.rows = unsafe.Pointer(&s.w32.x[0]), 4*depth, rows
		s.args.call(s.unpacks)
	}
	if whole < n { // then it is the last block of columns
		for i := range rows {
			s.w.tail(s.w32.x[i*depth:][whole:n], s.first+r+i, j+whole)
		}
	}
}

// onF16Grid says whether every weight is an fp16 value.
func (m *Matrix) onF16Grid() bool {
	return m.Round == precision.F16 || m.Format == F16 && m.Round == precision.F32 ||
		(m.Format == I8Block || m.Format == I4Block) && m.Round == precision.F32
}

// exactBelow is what sum |w||x| must stay below for every sum of products of fp16 weights with x, in any order, to be exact in
// float64: 2^53 times the unit that the products are multiples of, which is 2^-24 times that of x. It is 0, never true, where x
// is not of fp16's grid. What lies half way between two float32, as sums of few bits often do, then needs no second look.
func exactBelow(x []float32) float64 {
	const none = 1000
	least := none // the exponent of the last bit that is set, of any x
	for _, v := range x {
		b := math.Float32bits(v) &^ (1 << 31)
		if b == 0 {
			continue
		}
		e := int(b >> 23)
		if e > 127+37 || e == 0 { // 2^38 and above, infinite, NaN; below the grid
			return 0
		}
		if e += bits.TrailingZeros32(b|1<<23) - 127 - 23; e < least {
			if e < -24 {
				return 0
			}
			least = e
		}
	}
	if least == none {
		return 0
	}
	return math.Ldexp(1, 53-24+least)
}

// round makes y32 of y64. Each sum is chains of depth products and one of the blocks' sums.
func (s *stripe) round(xn, exact []float64, x []float32) {
	n := s.w.Cols
	bound := float64(depth+n/depth+4) * 0x1p-53
	var row *lent[float32]
	for r := range s.rows {
		have := false
		wn := norm(s.sq[r])
		u := wn * bound
		y, dst := s.y64.x[r*s.tokens:][:s.tokens], s.y32.x[r*s.tokens:][:s.tokens]
		for i := 0; i < s.tokens; i += 4 {
			i += round64(&dst[i], &y[i], &xn[i], u, s.tokens-i)
			for t := i; t < min(i+4, s.tokens); t++ {
				v, ok := precision.Near(y[t], xn[t]*u)
				if !ok && wn*xn[t] < exact[t] {
					v, ok = float32(y[t]), true
				}
				if !ok {
					if row == nil {
						row = scratch32.get(n)
					}
					if !have {
						s.row(row.x, r)
						have = true
					}
					v = decide(row.x, x[t*n:][:n])
				}
				dst[t] = v
			}
		}
	}
	if row != nil {
		scratch32.put(row)
	}
}

// row writes the stripe's row r to dst [w.Cols], as unpack gives it.
func (s *stripe) row(dst []float32, r int) {
	n := s.w.Cols
	if s.decoded != nil {
		copy(dst, s.decoded[r*n:][:n])
		return
	}
	whole := n / s.k.step * s.k.step
	if whole > 0 {
		s.args.ahead = 0
		s.args.point(s.w, s.first+r, 0, whole)
		s.args.dst, s.args.dstStride, s.args.rows = unsafe.Pointer(&dst[0]), 4*n, 1
		s.args.call(s.unpacks)
	}
	if whole < n {
		s.w.tail(dst[whole:], s.first+r, whole)
	}
}

// write turns y [rows, tokens] into out [T, w.Rows].
func (s *stripe) write(out, y []float32, T int) {
	s.turn.transpose(out[s.first:], s.w.Rows, y, s.tokens, s.rows, T)
}
