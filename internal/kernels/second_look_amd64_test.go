//go:build !noasm

package kernels

func eachExactTiling(f func(g *tiling[float64])) {
	for l, g := range map[Level]*tiling[float64]{AVX2: &exactAVX2, AVX512: &exactAVX512} {
		if usable(l) {
			f(g)
		}
	}
}
