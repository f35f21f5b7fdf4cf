//go:build !noasm

package kernels

import "sibyl/precision"

func init() {
	linearFastKernel.add(NEON, func(p *Pool, out, x []float32, rows int, w *Matrix) { linearFastSIMD(&fastNEON, p, out, x, rows, w) })
	linearAloneKernel.add(NEON, func(p *Pool, out, x []float32, rows int, w *Matrix) { linearAloneSIMD(&fastNEON, p, out, x, rows, w) })
	linearExactKernel.add(NEON, func(p *Pool, out, x []float32, rows int, w *Matrix) { linearExactSIMD(&exactNEON, p, out, x, rows, w) })
	linearsFastKernel.add(NEON, severalFast(&fastNEON))
	linearsExactKernel.add(NEON, severalExact(&exactNEON))
	attendKernel.add(NEON, func(a *Attention) { attendSIMD(&fastNEON, expSumNEON, a) })
	convFastKernel.add(NEON, convFastSIMD(convFastNEON, 8))
	widenF16Kernel.add(NEON, widenF16SIMD)
	narrowF16Kernel.add(NEON, narrowF16SIMD)
}

// simdLevel is the level of what amd64 and arm64 share but the assembly.
const simdLevel = NEON

// 24 accumulators of 16 bytes, six rows' next columns and two registers of tokens are all 32 registers (gen/neon/tile.go).
var (
	fastNEON  = tiling[float32]{rows: 6, stripe: 24, lanes: 16, tile: tile32NEON}
	exactNEON = tiling[float64]{rows: 6, stripe: 24, lanes: 8, widen: widens{8, widenWhole}, tile: tile64NEON}
)

func roundF16NEON(x []float32) {
	whole := len(x) &^ 7
	if whole > 0 {
		roundF16Whole(&x[0], whole)
	}
	precision.RoundF16Go(x[whole:])
}

func maxWhole(x *float32, n int) (top float32, nan bool) {
	top = maxNEON(x, n)
	return top, top != top
}

func tile32NEON(y *float32, ldy int, w *float32, ldw int, x *float32, k int, _ *byte) {
	tile32(y, ldy, w, ldw, x, k)
}

func tile64NEON(y *float64, ldy int, w *float64, ldw int, x *float64, k int, _ *byte) {
	tile64(y, ldy, w, ldw, x, k)
}
