//go:build !noasm

package kernels

import "sibyl/precision"

func init() {
	for _, k := range []struct {
		exact, fast *kernel[mapFunc]
		asm         func(dst, x *float32, n int) int
		avx2        func(dst, x *float32, n int) int
		avx512      func(dst, x *float32, n int) int
		asm512      func(dst, x *float32, n int) int
		one         func(float32) float32
	}{
		{expExactKernel, expFastKernel, expWhole, expFastAVX2, expFastAVX512, expExactAVX512, precision.ExpR32},
		{sigmoidExactKernel, sigmoidFastKernel, sigmoidWhole, sigmoidFastAVX2, sigmoidFastAVX512, sigmoidExactAVX512, precision.SigmoidR32},
		{siluExactKernel, siluFastKernel, siluWhole, siluFastAVX2, siluFastAVX512, siluExactAVX512, precision.SiLUR32},
	} {
		k.exact.add(AVX2, mapSIMD(k.asm, 4, k.one))
		k.exact.add(AVX512, mapSIMD(k.asm512, 8, k.one))
		k.fast.add(AVX2, mapSIMD(k.avx2, 8, k.one))
		k.fast.add(AVX512, mapSIMD(k.avx512, 16, k.one))
	}
	softmaxExactKernel.add(AVX2, softmaxSIMD)
	softmaxFastKernel.add(AVX2, softmaxSIMD)
	expDiffKernel.add(AVX2, expDiffSIMD)
	logSumKernel.add(AVX2, logSumSIMD)
	logSumKernel.add(AVX512, func(x []float32, m float64) (sum float64) {
		whole := len(x) &^ 15
		if whole > 0 {
			sum = logSumAVX512(&x[0], m, whole)
		}
		return sum + logSumGo(x[whole:], m)
	})
	roundF16Kernel.add(AVX2, func(x []float32) { roundAVX2(x, roundF16Whole, precision.RoundF16Go) })
	roundBF16Kernel.add(AVX2, func(x []float32) { roundAVX2(x, roundBF16AVX2, precision.RoundBF16Go) })
}

func roundAVX2(x []float32, f func(x *float32, n int), rest func([]float32)) {
	whole := len(x) &^ 7
	if whole > 0 {
		f(&x[0], whole)
	}
	rest(x[whole:])
}
