//go:build (amd64 || arm64) && !noasm

package kernels

import "sibyl/precision"

// mapSIMD is f over a slice: by assembly, and by one for the groups that it leaves and the tail.
func mapSIMD(f func(dst, x *float32, n int) int, group int, one func(float32) float32) mapFunc {
	return func(dst, x []float32) {
		for i := 0; i < len(x); {
			if whole := (len(x) - i) / group * group; whole > 0 {
				i += f(&dst[i], &x[i], whole)
			}
			for end := min(i+group, len(x)); i < end; i++ {
				dst[i] = one(x[i])
			}
		}
	}
}

func expDiffSIMD(dst []float64, x []float32, m float64) {
	for i := 0; i < len(x); {
		if whole := (len(x) - i) &^ 3; whole > 0 {
			i += expDiffWhole(&dst[i], &x[i], m, whole)
		}
		for end := min(i+4, len(x)); i < end; i++ {
			dst[i] = precision.Exp64(float64(x[i]) - m)
		}
	}
}

// logSumSIMD is logSumGo in four chains of blocks.
func logSumSIMD(x []float32, m float64) float64 {
	var e [256]float64
	var s [4]float64
	for len(x) > 0 {
		n := min(len(x), len(e))
		expDiffSIMD(e[:n], x[:n], m)
		for i, v := range e[:n] {
			s[i&3] += v
		}
		x = x[n:]
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

// softmaxSIMD is softmax as one operation. A quotient errs by what exp and the difference before it do (the difference,
// where it is not exact, by |d| 2^-53, and d < -104 gives 0), by the sum's len(x) roundings and its own; where that could
// change a rounding, the definition decides the whole row.
func softmaxSIMD(x []float32) {
	if len(x) == 0 {
		return
	}
	m, nan := maxSIMD(x)
	if nan || m-m != 0 {
		precision.SoftmaxR32(x)
		return
	}
	wide := scratch64.get(len(x))
	defer scratch64.put(wide)
	e, sum := wide.x, 0.0
	expDiffSIMD(e, x, float64(m))
	for _, v := range e {
		sum += v
	}
	u := 0x1p-47 + (105+float64(len(x)))*0x1p-52
	kept := scratch32.get(len(x))
	defer scratch32.put(kept)
	whole := len(x) &^ 3
	i := 0
	copy(kept.x, x)
	if whole > 0 {
		i = quotientWhole(&x[0], &e[0], sum, u, whole)
	}
	for ; i < len(x) && i >= whole; i++ {
		r, ok := precision.Near(e[i]/sum, e[i]/sum*u)
		if !ok {
			break
		}
		x[i] = r
	}
	if i < len(x) {
		copy(x, kept.x)
		precision.SoftmaxR32(x)
	}
}
