//go:build !noasm

package kernels

func init() {
	deltaFastKernel.add(AVX2, deltaStepFastAVX2)
	deltaFastKernel.add(AVX512, deltaStepFastAVX512)
	deltaExactKernel.add(AVX2, deltaExactAVX2.step)
	deltaExactKernel.add(AVX512, deltaExactAVX512.step)
}

var (
	deltaExactAVX2   = deltaExact{8, deltaReadExact8, deltaWriteExact8}
	deltaExactAVX512 = deltaExact{16, deltaReadExact16, deltaWriteExact16}
)

func deltaStepFastAVX2(S, q, k, v, out []float32, decay, beta float32, _ []float64) {
	dv, dk := len(v), len(k)
	var mem [64]float32
	e := 0
	for ; e+64 <= dv; e += 64 {
		deltaReadFast64AVX2(&mem[0], &S[e], &k[0], decay, dv, dk)
		deltas(&mem, v[e:e+64], beta)
		deltaWriteFast32AVX2(&out[e], &S[e], &k[0], &q[0], &mem[0], decay, dv, dk)
		deltaWriteFast32AVX2(&out[e+32], &S[e+32], &k[0], &q[0], &mem[32], decay, dv, dk)
	}
	for ; e+8 <= dv; e += 8 {
		deltaReadFast8AVX2(&mem[0], &S[e], &k[0], decay, dv, dk)
		deltas(&mem, v[e:e+8], beta)
		deltaWriteFast8AVX2(&out[e], &S[e], &k[0], &q[0], &mem[0], decay, dv, dk)
	}
	deltaColumnsFast(S, q, k, v, out, decay, beta, e)
}

func deltaStepFastAVX512(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
	dv, dk := len(v), len(k)
	if dv%64 != 0 {
		deltaStepFastAVX2(S, q, k, v, out, decay, beta, tmp)
		return
	}
	var mem [64]float32
	for e := 0; e < dv; e += 64 {
		deltaReadFast64AVX512(&mem[0], &S[e], &k[0], decay, dv, dk)
		deltas(&mem, v[e:e+64], beta)
		deltaWriteFast64AVX512(&out[e], &S[e], &k[0], &q[0], &mem[0], decay, dv, dk)
	}
}
