package plain64

import (
	"math"
	"math/big"
	"slices"
)

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func silu(x float64) float64 { return x * sigmoid(x) }

// softplus is log(1 + exp(x)) without overflow and without losing small results.
func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

func sumSquares(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return sum
}

// add is x += y.
func add(x, y []float64) {
	for i := range x {
		x[i] += y[i]
	}
}

// softmax is in place.
func softmax(x []float64) {
	top, sum := slices.Max(x), 0.0
	for i := range x {
		x[i] = math.Exp(x[i] - top)
		sum += x[i]
	}
	for i := range x {
		x[i] /= sum
	}
}

// logSumExp is log(sum(exp(x))); an infinite maximum is the result itself.
func logSumExp(x []float64) float64 {
	top, sum := slices.Max(x), 0.0
	if math.IsInf(top, 0) {
		return top
	}
	for _, v := range x {
		sum += math.Exp(v - top)
	}
	return top + math.Log(sum)
}

// largest gives the places of the k largest values, largest first, the lower place first among equals. NaN counts as
// larger than any number, so that a broken row shows. 1 <= k <= len(x).
func largest(x []float64, k int) []int {
	larger := func(a, b float64) bool { return a > b || a != a && b == b }
	best := make([]int, 0, k+1)
	for i := range x {
		at := len(best)
		for at > 0 && larger(x[i], x[best[at-1]]) {
			at--
		}
		if at < k {
			best = slices.Insert(best, at, i)
			best = best[:min(k, len(best))]
		}
	}
	return best
}

// inverseFrequencies gives inv_freq[j] = R32(1 / R32(theta ^ R32(2j/rot))), j < rot/2, where R32 is the nearest float32:
// the one table that is float32 by definition, since every implementation of the family computes it so.
func inverseFrequencies(theta float64, rot int) []float32 {
	out := make([]float32, rot/2)
	for j := range out {
		exponent := float32(2*j) / float32(rot)
		out[j] = 1 / power32(theta, exponent)
	}
	return out
}

// power32 is R32(base ^ e), correctly rounded, for base > 0 and 0 <= e < 1: the product of base^(1/2), base^(1/4), ...
// over the binary digits of e, with 256 bits. math.Pow would give other bits on other machines.
func power32(base float64, e float32) float32 {
	product := new(big.Float).SetPrec(256).SetInt64(1)
	root := new(big.Float).SetPrec(256).SetFloat64(base)
	for digits := e; digits > 0; {
		root.Sqrt(root)
		digits *= 2
		if digits >= 1 {
			product.Mul(product, root)
			digits--
		}
	}
	r, _ := product.Float32()
	return r
}

// halfToFloat widens an IEEE binary16: sign, 5 exponent bits, 10 fraction bits. The result is exact.
func halfToFloat(h uint16) float64 {
	sign := 1.0
	if h>>15 == 1 {
		sign = -1
	}
	exponent, fraction := int(h>>10&31), float64(h&1023)
	switch {
	case exponent == 31 && fraction != 0:
		return math.NaN()
	case exponent == 31:
		return sign * math.Inf(1)
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}
