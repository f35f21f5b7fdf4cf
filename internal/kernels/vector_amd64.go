//go:build !noasm

package kernels

// simdLevel is the level of what amd64 and arm64 share but the assembly.
const simdLevel = AVX2

func init() {
	convFastKernel.add(AVX2, convFastSIMD(convFastAVX2, 8))
	convFastKernel.add(AVX512, convFastSIMD(convFastAVX512, 16))
	convExactKernel.add(AVX2, convExactSIMD)
}

// tapsExact is dotExactGo of a conv's taps. Where no sum of two loses anything, as of fp16 values, whose sums often lie half way
// between two float32, the rounding of the last is the only one.
func tapsExact(a, b *[tapsSIMD]float32) float32 {
	s, lost := 0.0, false
	for j := range a {
		t := float64(a[j]) * float64(b[j])
		sum := s + t
		z := sum - s
		e := (s - (sum - z)) + (t - z) // Knuth's two-sum: what is lost
		s, lost = sum, lost || e != 0  // of a NaN, too
	}
	if lost || s == 0 {
		return dotExactGo(a[:], b[:])
	}
	return float32(s)
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
			out[c] = tapsExact(&a, &b)
		}
	}
}
