//go:build (amd64 || arm64) && !noasm

package kernels

import "unsafe"

func widenF16SIMD(dst []float32, src []uint16) {
	whole := len(dst) &^ 7
	if whole > 0 {
		widenF16Whole(&dst[0], &src[0], whole)
	}
	widenF16Go(dst[whole:], src[whole:])
}

func narrowF16SIMD(dst []uint16, src []float32) {
	whole := len(src) &^ 7
	if whole > 0 {
		narrowF16Whole(&dst[0], &src[0], whole)
	}
	narrowF16Go(dst[whole:], src[whole:])
}

const (
	keyBlock  = 128 // keys that all queries meet before the next ones
	fewHeads  = 8   // up to so many query heads do without register tiles: packing the keys costs more
	headsOnce = 264 // query heads at a time: whole tiles of both levels
)

// attendSIMD is attention with an online softmax: queries meet a block of keys after the other, and what they have
// gathered is scaled down whenever a larger score shows up. Each weight errs by what its score does and, for every block
// that raised the maximum, by a product; no scores are kept but a block's.
func attendSIMD(g *tiling[float32], expSum expSumFunc, a *Attention) {
	heads := a.Rows * a.Group
	for lo := 0; lo < heads; lo += headsOnce {
		b := &attendBlock{g: g, a: a, expSum: expSum, first: lo, heads: min(headsOnce, heads-lo)}
		b.run()
	}
}

// attendBlock is some of the query heads of an Attention.
type attendBlock struct {
	g      *tiling[float32]
	a      *Attention
	expSum expSumFunc
	first  int // query head
	heads  int
	width  int // of out: HeadDim in whole panels

	q, out, scores []float32 // [heads in whole tiles, HeadDim], [.., width], [.., keyBlock]
	k, v           []float32 // [HeadDim, keyBlock] and [keyBlock, width] in panels
	top, sum       []float32 // of each head: the largest score so far, the sum of e^(score-top); NaN where a score was not finite
}

func (b *attendBlock) run() {
	a, hd := b.a, b.a.HeadDim
	b.width = (hd + b.g.lanes - 1) / b.g.lanes * b.g.lanes
	tiled := (b.heads + b.g.rows - 1) / b.g.rows * b.g.rows
	n := tiled*(hd+b.width+keyBlock) + keyBlock*(hd+b.width) + 2*b.heads
	room := scratch32.get(n)
	defer scratch32.put(room)
	rest := room.x
	take := func(n int) (x []float32) { x, rest = rest[:n], rest[n:]; return x }
	b.q, b.out, b.scores = take(tiled*hd), take(tiled*b.width), take(tiled*keyBlock)
	b.k, b.v, b.top, b.sum = take(keyBlock*hd), take(keyBlock*b.width), take(b.heads), take(b.heads)
	clear(b.out)
	clear(b.sum)
	clear(b.q[b.heads*hd:])
	most := 0
	for i := range b.heads {
		q, _, visible := a.head(b.first + i)
		copy(b.q[i*hd:][:hd], q)
		multiplyBy(b.q[i*hd:][:hd], a.Scale)
		most = visible
	}
	for j := 0; j < most; j += keyBlock {
		b.meet(j, min(keyBlock, most-j))
	}
	for i := range b.heads {
		_, out, visible := a.head(b.first + i)
		if !isFinite(b.sum[i]) || !allFinite(b.out[i*b.width:][:hd]) {
			// Not for speed: a value that is not finite, of a key that the head does not see, must not show.
			a.row(b.first+i, make([]float32, visible), dotFastGo, softmaxFastGo, weightedRowsFastGo)
			continue
		}
		copy(out, b.out[i*b.width:][:hd])
		multiplyBy(out, 1/b.sum[i])
	}
}

func multiplyBy(x []float32, r float32) { scaleSIMD(x, r) }

// sees is how many of the n keys from j on head i sees.
func (b *attendBlock) sees(i, j, n int) int {
	return max(0, min(n, b.a.Visible+(b.first+i)/b.a.Group-j))
}

// meet adds keys j..j+n to what the heads have gathered.
func (b *attendBlock) meet(j, n int) {
	a, hd := b.a, b.a.HeadDim
	few := b.heads <= fewHeads
	from := 0 // heads before this one see none of these keys
	for b.sees(from, j, n) == 0 {
		from++
	}
	from = from / b.g.rows * b.g.rows
	if few {
		for c := range n {
			key := a.K[(j+c)*a.KVStride:][:hd]
			for i := range b.heads {
				b.scores[i*keyBlock+c] = dotFastSIMD(b.q[i*hd:][:hd], key)
			}
		}
	} else {
		b.tiles(from, b.scores, keyBlock, b.q, hd, b.k, n, func(panel []float32, c int) {
			b.g.turn.packTokens(panel, a.K[j*a.KVStride:], a.KVStride, hd, c, n, b.g.lanes)
		}, hd, true)
	}
	for i := from; i < b.heads; i++ {
		b.weigh(i, b.scores[i*keyBlock:][:keyBlock], b.sees(i, j, n))
	}
	if few {
		var part [512]float32
		for i := range b.heads {
			for c := 0; c < hd; c += len(part) {
				p := part[:min(len(part), hd-c)]
				weightedRowsFastSIMD(p, b.scores[i*keyBlock:][:b.sees(i, j, n)], a.V[j*a.KVStride+c:], a.KVStride)
				addSIMD(b.out[i*b.width+c:][:len(p)], p)
			}
		}
		return
	}
	b.tiles(from, b.out, b.width, b.scores, keyBlock, b.v, hd, func(panel []float32, c int) {
		width := min(b.g.lanes, hd-c)
		for k := range n {
			dst := panel[k*b.g.lanes:][:b.g.lanes]
			copy(dst, a.V[(j+k)*a.KVStride+c:][:width])
			clear(dst[width:])
		}
	}, n, false)
}

// tiles is y [heads, ldy] += w [heads, ldw] x [k, cols], from head from on, with x packed by pack, a panel of columns at a
// time.
func (b *attendBlock) tiles(from int, y []float32, ldy int, w []float32, ldw int, packed []float32, cols int, pack func(panel []float32, c int), k int, zero bool) {
	if zero {
		clear(y[from*ldy:])
	}
	for c := 0; c < cols; c += b.g.lanes {
		panel := packed[c*k:][:k*b.g.lanes]
		pack(panel, c)
		for r := from; r < b.heads; r += b.g.rows {
			b.g.tile(&y[r*ldy+c], ldy, &w[r*ldw], ldw, &panel[0], k, (*byte)(unsafe.Pointer(&panel[0])))
		}
	}
}

// weigh turns the scores of head i into weights under its largest score so far, zero beyond what it sees.
func (b *attendBlock) weigh(i int, scores []float32, sees int) {
	if sees > 0 {
		top, nan := maxSIMD(scores[:sees])
		switch {
		case nan || !isFinite(top):
			b.top[i] = float32NaN // stays: no comparison with it is true
			b.sum[i] = float32NaN
		case b.sum[i] == 0:
			b.top[i] = top
		case top > b.top[i]:
			down := exp1(b.top[i] - top)
			multiplyBy(b.out[i*b.width:][:b.a.HeadDim], down)
			b.sum[i] *= down
			b.top[i] = top
		}
		b.sum[i] += b.expSum(scores[:sees], b.top[i])
	}
	clear(scores[sees:])
}
