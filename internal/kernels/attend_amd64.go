//go:build !noasm

package kernels

func init() {
	expSumKernel.add(AVX2, expSumSIMD(expSumAVX2, 8))
	expSumKernel.add(AVX512, expSumSIMD(expSumAVX512, 16))
	attendKernel.add(AVX2, func(a *Attention) { attendSIMD(&fastAVX2, expSumSIMD(expSumAVX2, 8), a) })
	attendKernel.add(AVX512, func(a *Attention) { attendSIMD(&fastAVX512, expSumSIMD(expSumAVX512, 16), a) })
	widenF16Kernel.add(AVX2, widenF16SIMD)
	narrowF16Kernel.add(AVX2, narrowF16SIMD)
}

func expSumSIMD(f func(x *float32, m float32, n int) float32, group int) expSumFunc {
	return func(x []float32, m float32) (sum float32) {
		whole := len(x) / group * group
		if whole > 0 {
			sum = f(&x[0], m, whole)
		}
		return sum + expSumGo(x[whole:], m)
	}
}
