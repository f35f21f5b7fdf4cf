//go:build !noasm

package kernels

// simdLevel is the level of what amd64 and arm64 share but the assembly.
const simdLevel = AVX2

func init() {
	convFastKernel.add(AVX2, convFastSIMD(convFastAVX2, 8))
	convFastKernel.add(AVX512, convFastSIMD(convFastAVX512, 16))
	convExactKernel.add(AVX2, convExactSIMD)
}

func convExactSIMD(out, w, x []float32) {
	C := len(out)
	if len(w) != tapsSIMD*C {
		convExactGo(out, w, x)
		return
	}
	var a, b [tapsSIMD]float32
	for c := 0; c < C; {
		if whole := (C - c) &^ 3; whole > 0 {
			c += convExactAVX2(&out[c], &w[c], &x[c], 2*sumBound(tapsSIMD), C, whole)
		}
		for end := min(c+4, C); c < end; c++ {
			for j := range a {
				a[j], b[j] = w[j*C+c], x[j*C+c]
			}
			out[c] = dotExactGo(a[:], b[:])
		}
	}
}
