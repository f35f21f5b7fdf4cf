//go:build !noasm

package kernels

import (
	"unsafe"

	"sibyl/precision"
)

func init() {
	linearFastKernel.add(AVX2, linearFastAVX2)
	linearExactKernel.add(AVX2, linearExactAVX2)
}

// A product with few tokens costs the reading of the weights: rows against tokens, gemv. With more it costs the
// multiply-adds: register tiles over weights that are unpacked a block at a time.
const (
	gemvTokensFast  = 6
	gemvTokensExact = 4
	tileRows        = 6            // weight rows of a register tile (gen/tile.go)
	stripeRows      = 4 * tileRows // weight rows that are unpacked together
	depth           = 256          // columns that are: the longest chain of a sum, too
	tokenBlock      = 128          // tokens whose packed activations are kept
	lanes32         = 16           // tokens of a register tile in float32
	lanes64         = 8            // in float64
)

func linearFastAVX2(p *Pool, out, x []float32, rows int, w *Matrix) {
	if rows <= gemvTokensFast {
		const group = 4
		p.For((w.Rows+group-1)/group, group*w.Cols*rows/simdSpeed, func(lo, hi int) {
			gemvFastAVX2(out, x, rows, w, group*lo, min(group*hi, w.Rows))
		})
		return
	}
	n := w.Cols
	for t0 := 0; t0 < rows; t0 += tokenBlock {
		T := min(tokenBlock, rows-t0)
		panels := (T + lanes32 - 1) / lanes32
		packed := scratch32.get(panels * lanes32 * n)
		p.For(panels, lanes32*n, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				packTokens(packed.x[i*lanes32*n:][:lanes32*n], x[t0*n:], n, i*lanes32, T, lanes32)
			}
		})
		p.For((w.Rows+stripeRows-1)/stripeRows, stripeRows*n*T/simdSpeed, func(lo, hi int) {
			s := newStripe(w, panels*lanes32)
			for i := lo; i < hi; i++ {
				s.product32(i*stripeRows, packed.x)
				s.write(out[t0*w.Rows:], s.y32, T)
			}
		})
		scratch32.put(packed)
	}
}

func linearExactAVX2(p *Pool, out, x []float32, rows int, w *Matrix) {
	n := w.Cols
	if rows <= gemvTokensExact {
		wide, tokens, k := scratch64.get(rows*n), make([]token, rows), w.rowsKernel()
		if k == nil {
			k = rowsF32
		}
		for t := range tokens {
			tokens[t] = token{x: x[t*n:][:n], wide: wide.x[t*n:][:n]}
			tokens[t].prepare(k)
		}
		const group = 4
		p.For((w.Rows+group-1)/group, 2*group*n*rows/simdSpeed, func(lo, hi int) {
			gemvExactAVX2(out, tokens, w, group*lo, min(group*hi, w.Rows))
		})
		scratch64.put(wide)
		return
	}
	for t0 := 0; t0 < rows; t0 += tokenBlock {
		T := min(tokenBlock, rows-t0)
		panels := (T + lanes64 - 1) / lanes64
		packed, xn := scratch64.get(panels*lanes64*n), make([]float64, panels*lanes64)
		p.For(panels, lanes64*n, func(lo, hi int) {
			narrow := make([]float32, lanes64*n)
			for i := lo; i < hi; i++ {
				packTokens(narrow, x[t0*n:], n, i*lanes64, T, lanes64)
				widenAVX2(&packed.x[i*lanes64*n], &narrow[0], lanes64*n)
			}
			for t := lo * lanes64; t < min(hi*lanes64, T); t++ {
				xn[t] = norm2of(x[(t0+t)*n:][:n])
			}
		})
		p.For((w.Rows+stripeRows-1)/stripeRows, 2*stripeRows*n*T/simdSpeed, func(lo, hi int) {
			s := newStripe(w, panels*lanes64)
			s.y64, s.w64 = make([]float64, stripeRows*s.tokens), make([]float64, stripeRows*depth)
			for i := lo; i < hi; i++ {
				s.product64(i*stripeRows, packed.x)
				s.round(xn, x[t0*n:])
				s.write(out[t0*w.Rows:], s.y32, T)
			}
		})
		scratch64.put(packed)
	}
}

// simdSpeed is how many times faster than portable code these kernels multiply: what Pool.For is told counts in its terms.
const simdSpeed = 8

// packTokens turns tokens t.. of x [T, n] into a panel [n, lanes]: the tokens of one column side by side, zeros where
// there are none.
func packTokens(panel, x []float32, n, t, T, lanes int) {
	for g := 0; g < lanes; g += 8 {
		whole := 0
		if t+g+8 <= T {
			for ; whole+8 <= n; whole += 8 {
				transpose8(&panel[whole*lanes+g], lanes, &x[(t+g)*n+whole], n)
			}
		}
		for c := g; c < g+8; c++ {
			if t+c >= T {
				for i := range n {
					panel[i*lanes+c] = 0
				}
				continue
			}
			for i, v := range x[(t+c)*n+whole : (t+c+1)*n] {
				panel[(whole+i)*lanes+c] = v
			}
		}
	}
}

// stripe is a worker's place for stripeRows rows of the product with all tokens of a block.
type stripe struct {
	w      *Matrix
	k      *rowsKernel
	tokens int // a multiple of the lanes
	first  int // the first row
	rows   int

	args    rowsArgs
	decoded []float32 // whole rows, where the format has no assembly
	w32     []float32 // [stripeRows, depth]
	w64     []float64
	y32     []float32 // [stripeRows, tokens]
	y64     []float64
	sq      [stripeRows]float64 // sum of w*w of each row
}

func newStripe(w *Matrix, tokens int) *stripe {
	s := &stripe{w: w, k: w.rowsKernel(), tokens: tokens, w32: make([]float32, stripeRows*depth), y32: make([]float32, stripeRows*tokens)}
	if s.k == nil {
		s.decoded = make([]float32, stripeRows*w.Cols)
	}
	return s
}

// start goes to row first.
func (s *stripe) start(first int) {
	s.first, s.rows = first, min(stripeRows, s.w.Rows-first)
	if s.decoded != nil {
		for r := range s.rows {
			s.w.Row(s.decoded[r*s.w.Cols:], first+r)
		}
	}
}

// unpack writes columns j..j+n of the stripe's rows to w32, and asks for the next ones, or the first of the next
// stripe's: short pieces of rows far apart are what no prefetcher foresees.
func (s *stripe) unpack(j, n int) {
	stride := s.w.rowStride()
	s.args.ahead = depth * stride / s.w.Cols
	if j+n == s.w.Cols {
		s.args.ahead = stripeRows*stride - j*stride/s.w.Cols
	}
	for r := range s.rows {
		dst := s.w32[r*depth:][:n]
		if s.decoded != nil {
			copy(dst, s.decoded[r*s.w.Cols+j:])
			continue
		}
		whole := n / s.k.step * s.k.step
		s.args.point(s.w, s.first+r, j, whole)
		s.args.dst = unsafe.Pointer(&s.w32[r*depth])
		s.args.call(s.k.unpack)
		if whole < n { // then it is the last block of columns
			s.w.tail(dst[whole:], s.first+r, j+whole)
		}
	}
}

// product32 makes y32 from row first on.
func (s *stripe) product32(first int, packed []float32) {
	s.start(first)
	clear(s.y32)
	for j := 0; j < s.w.Cols; j += depth {
		n := min(depth, s.w.Cols-j)
		s.unpack(j, n)
		for r := 0; r < s.rows; r += tileRows {
			for t := 0; t < s.tokens; t += lanes32 {
				tile32(&s.y32[r*s.tokens+t], s.tokens, &s.w32[r*depth], depth, &packed[t*s.w.Cols+j*lanes32], n)
			}
		}
	}
}

// product64 makes y64 and sq from row first on.
func (s *stripe) product64(first int, packed []float64) {
	s.start(first)
	clear(s.y64)
	clear(s.sq[:])
	for j := 0; j < s.w.Cols; j += depth {
		n := min(depth, s.w.Cols-j)
		s.unpack(j, n)
		for r := range s.rows {
			s.sq[r] += widen64(s.w64[r*depth:][:n], s.w32[r*depth:][:n])
		}
		for r := 0; r < s.rows; r += tileRows {
			for t := 0; t < s.tokens; t += lanes64 {
				tile64(&s.y64[r*s.tokens+t], s.tokens, &s.w64[r*depth], depth, &packed[t*s.w.Cols+j*lanes64], n)
			}
		}
	}
}

// round makes y32 of y64. Each sum is chains of depth products and one of the blocks' sums.
func (s *stripe) round(xn []float64, x []float32) {
	n := s.w.Cols
	bound := float64(depth+n/depth+4) * 0x1p-53
	var row []float32
	for r := range s.rows {
		u := norm(s.sq[r]) * bound
		y, dst := s.y64[r*s.tokens:][:s.tokens], s.y32[r*s.tokens:][:s.tokens]
		for i := 0; i < s.tokens; i += 4 {
			i += round64(&dst[i], &y[i], &xn[i], u, s.tokens-i)
			for t := i; t < min(i+4, s.tokens); t++ {
				v, ok := precision.Near(y[t], xn[t]*u)
				if !ok {
					if row == nil {
						row = make([]float32, n)
					}
					s.w.Row(row, s.first+r)
					xt := x[t*n:][:n]
					v = precision.SumTerms(n, func(i int) float64 { return float64(row[i]) * float64(xt[i]) }, 1)
				}
				dst[t] = v
			}
		}
	}
}

// write turns y [stripeRows, tokens] into out [T, w.Rows].
func (s *stripe) write(out, y []float32, T int) {
	N := s.w.Rows
	r := 0
	for ; r+8 <= s.rows; r += 8 {
		t := 0
		for ; t+8 <= T; t += 8 {
			transpose8(&out[t*N+s.first+r], N, &y[r*s.tokens+t], s.tokens)
		}
		s.writeRest(out, y, r, r+8, t, T)
	}
	s.writeRest(out, y, r, s.rows, 0, T)
}

func (s *stripe) writeRest(out, y []float32, r0, r1, t0, T int) {
	for t := t0; t < T; t++ {
		for r := r0; r < r1; r++ {
			out[t*s.w.Rows+s.first+r] = y[r*s.tokens+t]
		}
	}
}
