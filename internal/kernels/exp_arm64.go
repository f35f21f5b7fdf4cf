//go:build !noasm

package kernels

import "sibyl/precision"

func init() {
	for _, k := range []struct {
		exact, fast *kernel[mapFunc]
		run         mapFunc
	}{
		{expExactKernel, expFastKernel, expNEON},
		{sigmoidExactKernel, sigmoidFastKernel, mapSIMD(sigmoidWhole, 4, precision.SigmoidR32)},
		{siluExactKernel, siluFastKernel, mapSIMD(siluWhole, 4, precision.SiLUR32)},
	} {
		// One float64 form serves both: a fast result is the exact one.
		k.exact.add(NEON, k.run)
		k.fast.add(NEON, k.run)
	}
	softmaxExactKernel.add(NEON, softmaxSIMD)
	softmaxFastKernel.add(NEON, softmaxSIMD)
	expDiffKernel.add(NEON, expDiffSIMD)
	logSumKernel.add(NEON, logSumSIMD)
	expSumKernel.add(NEON, expSumNEON)
}

var expNEON = mapSIMD(expWhole, 4, precision.ExpR32)

// expSumNEON replaces x by e^(x-m) and gives their sum.
func expSumNEON(x []float32, m float32) float32 {
	for i := range x {
		x[i] -= m
	}
	expNEON(x, x)
	return sumFastSIMD(x)
}
