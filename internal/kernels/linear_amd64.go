//go:build !noasm

package kernels

func init() {
	linearFastKernel.add(AVX2, func(p *Pool, out, x []float32, rows int, w *Matrix) { linearFastSIMD(&fastAVX2, p, out, x, rows, w) })
	linearAloneKernel.add(AVX2, func(p *Pool, out, x []float32, rows int, w *Matrix) { linearAloneSIMD(&fastAVX2, p, out, x, rows, w) })
	linearAloneKernel.add(AVX512, func(p *Pool, out, x []float32, rows int, w *Matrix) {
		linearAloneSIMD(&fastAVX512, p, out, x, rows, w)
	})
	linearExactKernel.add(AVX2, func(p *Pool, out, x []float32, rows int, w *Matrix) { linearExactSIMD(&exactAVX2, p, out, x, rows, w) })
	linearFastKernel.add(AVX512, func(p *Pool, out, x []float32, rows int, w *Matrix) { linearFastSIMD(&fastAVX512, p, out, x, rows, w) })
	linearExactKernel.add(AVX512, func(p *Pool, out, x []float32, rows int, w *Matrix) {
		linearExactSIMD(&exactAVX512, p, out, x, rows, w)
	})
	linearsFastKernel.add(AVX2, severalFast(&fastAVX2))
	linearsFastKernel.add(AVX512, severalFast(&fastAVX512))
	linearsExactKernel.add(AVX2, severalExact(&exactAVX2))
	linearsExactKernel.add(AVX512, severalExact(&exactAVX512))
}

var (
	fastAVX2    = tiling[float32]{rows: 6, stripe: 24, lanes: 16, tile: tile32, quick: quickAVX2}
	exactAVX2   = tiling[float64]{rows: 6, stripe: 24, lanes: 8, widen: widens{8, widenWhole}, tile: tile64, quickExact: exactQuickAVX2}
	fastAVX512  = tiling[float32]{rows: 12, stripe: 48, lanes: 32, wide: unpacksAVX512, turn: transpose16, tile: tile32x32, half: tile32x16, quick: quickAVX512}
	exactAVX512 = tiling[float64]{rows: 12, stripe: 48, lanes: 16, wide: unpacksAVX512, turn: transpose16, widen: widens{16, widenAVX512}, tile: tile64x16, half: tile64x8, quickExact: exactFewAVX512}
)

var unpacksAVX512 = map[*rowsKernel]func(a *byte){rowsF32: unpackF32AVX512, rowsF16: unpackF16AVX512, rowsBF16: unpackBF16AVX512,
	rowsF32R16: unpackF32R16AVX512, rowsBF16R16: unpackBF16R16AVX512, rowsI8: unpackI8AVX512}
