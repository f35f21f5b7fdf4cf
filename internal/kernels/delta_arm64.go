//go:build !noasm

package kernels

func init() {
	deltaFastKernel.add(NEON, deltaStepFastNEON)
	deltaExactKernel.add(NEON, deltaExact{8, deltaReadExact8, deltaWriteExact8}.step)
	roundF16Kernel.add(NEON, roundF16NEON)
}

func deltaStepFastNEON(S, q, k, v, out []float32, decay, beta float32, _ []float64) {
	dv, dk := len(v), len(k)
	var mem [64]float32
	e := 0
	for ; e+32 <= dv; e += 32 {
		deltaReadFast32(&mem[0], &S[e], &k[0], decay, dv, dk)
		deltas(&mem, v[e:e+32], beta)
		deltaWriteFast32(&out[e], &S[e], &k[0], &q[0], &mem[0], decay, dv, dk)
	}
	for ; e+8 <= dv; e += 8 {
		deltaReadFast8(&mem[0], &S[e], &k[0], decay, dv, dk)
		deltas(&mem, v[e:e+8], beta)
		deltaWriteFast8(&out[e], &S[e], &k[0], &q[0], &mem[0], decay, dv, dk)
	}
	deltaColumnsFast(S, q, k, v, out, decay, beta, e)
}
