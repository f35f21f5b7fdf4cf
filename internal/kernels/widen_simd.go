//go:build (amd64 || arm64) && !noasm

package kernels

import "math"

// widen64 writes x as float64 and gives the sum of its squares.
func widen64(dst []float64, x []float32) (sq float64) {
	whole := len(x) &^ 7
	if whole > 0 {
		sq = widenWhole(&dst[0], &x[0], whole)
	}
	for i := whole; i < len(x); i++ {
		v := float64(x[i])
		dst[i] = v
		sq += v * v
	}
	return sq
}

// widens is widen64 by an assembly for multiples of so many numbers.
type widens struct {
	step int
	asm  func(dst *float64, src *float32, n int) float64
}

func (w widens) run(dst []float64, x []float32) (sq float64) {
	whole := len(x) / w.step * w.step
	if whole > 0 {
		sq = w.asm(&dst[0], &x[0], whole)
	}
	if whole < len(x) {
		sq += widen64(dst[whole:], x[whole:])
	}
	return sq
}

// norm is a bound on |x| from a float64 sum of its squares, none of which underflows: the slack covers the sum's own
// rounding.
func norm(sq float64) float64 { return math.Sqrt(sq) * (1 + 0x1p-20) }

// widenNorm writes x as float64 and gives a bound on its norm.
func widenNorm(dst []float64, x []float32) float64 { return norm(widen64(dst, x)) }

// norm1 is a bound on the sum of the magnitudes: the slack covers its own rounding.
func norm1(x []float64) float64 {
	var s [4]float64
	for i, v := range x {
		s[i&3] += math.Abs(v)
	}
	return ((s[0] + s[1]) + (s[2] + s[3])) * (1 + 0x1p-20)
}

// norm2of is a bound on |x|.
func norm2of(x []float32) float64 {
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+3 < len(x); i += 4 {
		a, b, c, d := float64(x[i]), float64(x[i+1]), float64(x[i+2]), float64(x[i+3])
		s0 += a * a
		s1 += b * b
		s2 += c * c
		s3 += d * d
	}
	for ; i < len(x); i++ {
		s0 += float64(x[i]) * float64(x[i])
	}
	return norm((s0 + s1) + (s2 + s3))
}
