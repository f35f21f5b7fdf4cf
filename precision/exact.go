package precision

import (
	"math"
	"math/big"
)

// Exact mode: every named operation is R32(the exact result of its inputs). Each function computes in float64
// with a bound on its error; where the bound straddles a float32 rounding boundary, big.go decides.

// near rounds s to float32 if every number within b of it rounds alike.
func near(s, b float64) (float32, bool) {
	if s-s != 0 { // infinite or NaN, which is one NaN whatever made it: no wider arithmetic will change it
		if s != s {
			return float32(math.NaN()), true
		}
		return float32(s), true
	}
	if b < 0x1p-1000 { // exact zeros and results far below float32
		return float32(s), true
	}
	// Bit by bit: the sign of a sum that rounds to zero is the sum's, not that of its error.
	return float32(s), math.Float32bits(float32(s-b)) == math.Float32bits(float32(s+b))
}

// Near is near for the kernels: the float32 rounding of s, and whether an error of at most b cannot change it.
func Near(s, b float64) (float32, bool) { return near(s, b) }

// ExpR32 is R32(e^x).
func ExpR32(x float32) float32 {
	y := Exp64(float64(x))
	if r, ok := near(y, y*elemErr); ok {
		return r
	}
	return bigF32(bigExp(bigNew(float64(x))))
}

// LogR32 is R32(log x).
func LogR32(x float32) float32 {
	y := Log64(float64(x))
	if r, ok := near(y, math.Abs(y)*elemErr); ok {
		return r
	}
	return bigF32(bigLog(bigNew(float64(x))))
}

// bigSigmoidDen is 1 + e^-x.
func bigSigmoidDen(x float32) *big.Float {
	e := bigExp(bigNew(-float64(x)))
	return e.Add(e, bigNew(1))
}

// SigmoidR32 is R32(1/(1+e^-x)).
func SigmoidR32(x float32) float32 {
	y := Sigmoid64(float64(x))
	if r, ok := near(y, y*elemErr); ok {
		return r
	}
	return bigF32(new(big.Float).SetPrec(bigPrec).Quo(bigNew(1), bigSigmoidDen(x)))
}

// SiLUR32 is R32(x/(1+e^-x)).
func SiLUR32(x float32) float32 {
	y := SiLU64(float64(x))
	if r, ok := near(y, math.Abs(y)*elemErr); ok {
		return r
	}
	return bigF32(new(big.Float).SetPrec(bigPrec).Quo(bigNew(float64(x)), bigSigmoidDen(x)))
}

// SoftplusR32 is R32(log(1+e^x)) as one operation; x above 20 passes.
func SoftplusR32(x float32) float32 {
	y := Softplus64(float64(x))
	if r, ok := near(y, math.Abs(y)*elemErr); ok || x > 20 {
		return r
	}
	e := bigExp(bigNew(float64(x)))
	return bigF32(bigLog(e.Add(e, bigNew(1))))
}

// Softplus3R32 is softplus as an exported graph computes it: R32(log(R32(1 + R32(e^x)))); x above 20 passes.
// At x = -10 it is off by 1.3e-3 of its value, below -16.6 it is 0.
func Softplus3R32(x float32) float32 {
	if x > 20 {
		return x
	}
	return LogR32(1 + ExpR32(x))
}

// RsqrtR32 is R32(1/sqrt(x)).
func RsqrtR32(x float32) float32 {
	y := 1 / math.Sqrt(float64(x))
	if r, ok := near(y, y*0x1p-51); ok {
		return r
	}
	s := new(big.Float).SetPrec(bigPrec).Sqrt(bigNew(float64(x)))
	return bigF32(s.Quo(bigNew(1), s))
}

// SinCosR32 is R32(sin x), R32(cos x).
func SinCosR32(x float32) (sin, cos float32) {
	if x == 0 { // every text's first position; no float64 can decide how a zero rounds
		return x, 1
	}
	s, c, ok := SinCos64(float64(x))
	if !ok && (x-x) != 0 {
		return float32(math.NaN()), float32(math.NaN())
	}
	rs, oks := near(s, 0x1p-50)
	rc, okc := near(c, 0x1p-50)
	if ok && oks && okc {
		return rs, rc
	}
	bs, bc := bigSinCos(float64(x))
	return bigF32(bs), bigF32(bc)
}

// PowR32 is R32(x^y) for x > 0, in wide arithmetic: it runs a few dozen times when a model is bound.
func PowR32(x, y float32) float32 {
	l := bigLog(bigNew(float64(x)))
	return bigF32(bigExp(l.Mul(l, bigNew(float64(y)))))
}

// InvFreq is the rope frequency table of DESIGN section 2: R32(1 / R32(theta^R32(2j/rot))), j < rot/2. theta is
// float32 in the formula; 1e7 is exact.
func InvFreq(theta float64, rot int) []float32 {
	out := make([]float32, rot/2)
	for j := range out {
		out[j] = 1 / PowR32(float32(theta), float32(float64(2*j)/float64(rot)))
	}
	return out
}

// twoSum: s + e = a + b exactly.
func twoSum(a, b float64) (s, e float64) {
	s = a + b
	bb := s - a
	return s, (a - (s - bb)) + (b - bb)
}

// roundPair is R32(h + l), |l| at most half a unit in the last place of h: h is moved to the odd one of the two
// float64 that enclose the sum, which rounds to float32 as the sum itself does (53 bits are more than 24+2).
func roundPair(h, l float64) float32 {
	if b := math.Float64bits(h); l != 0 && b&1 == 0 {
		if (l > 0) == (h > 0) {
			b++
		} else {
			b--
		}
		h = math.Float64frombits(b)
	}
	return float32(h)
}

// SumTerms is R32(the sum of n terms), each exact in float64, decided in three steps: compensated float64, the same
// where nothing was lost (products of fp16 values have few bits, and their sums often lie halfway between two float32),
// then wide. scale divides the sum (1 for a sum, n for a mean) and is exact in float64.
func SumTerms(n int, term func(i int) float64, scale float64) float32 {
	var s, c, abs float64
	lost := false
	for i := range n {
		t := term(i)
		var e, r float64
		s, e = twoSum(s, t)
		c, r = twoSum(c, e)
		lost = lost || r != 0
		abs += math.Abs(t)
	}
	// Ogita, Rump, Oishi 2005: the compensated sum errs by at most u|sum| + (n u)^2 sum|t|, u = 2^-53.
	y := (s + c) / scale
	nu := float64(n+2) * 0x1p-53
	b := (math.Abs(s+c)*0x1p-51 + 2*nu*nu*abs) / scale
	if r, ok := near(y, b); ok {
		return r
	}
	if !lost && scale == 1 { // the sum is s + c, to the last bit
		return roundPair(twoSum(s, c))
	}
	sum := bigNew(0)
	for i := range n {
		sum.Add(sum, bigNew(term(i)))
	}
	if sum.Sign() == 0 {
		return 0
	}
	return bigF32(sum.Quo(sum, bigNew(scale)))
}

// SoftmaxR32 replaces x by R32(softmax(x)), the whole as one operation. NaN anywhere, or +Inf, gives NaN.
func SoftmaxR32(x []float32) {
	m := math.Inf(-1)
	for _, v := range x {
		if v != v {
			m = math.NaN()
			break
		}
		m = max(m, float64(v))
	}
	e := make([]float64, len(x))
	var s, c float64
	for i, v := range x {
		e[i] = Exp64(float64(v) - m)
		var r float64
		s, r = twoSum(s, e[i])
		c += r
	}
	sum := s + c
	var wide *wideSoftmax
	for i, v := range x {
		y := e[i] / sum
		// The difference v-m is exact unless the exponents lie far apart; then it errs by |d| 2^-53 at most.
		b := elemErr
		if d, lost := twoSum(float64(v), -m); lost != 0 {
			b += math.Abs(d) * 0x1p-53
		}
		r, ok := near(y, y*b*2)
		if !ok {
			if wide == nil {
				wide = newWideSoftmax(x, m)
			}
			r = wide.at(v)
		}
		e[i] = float64(r) // x is still needed as it was
	}
	for i := range x {
		x[i] = float32(e[i])
	}
}

// wideSoftmax decides single values of a softmax in wide arithmetic; the denominator is summed once.
type wideSoftmax struct {
	m   float64
	den *big.Float
}

func newWideSoftmax(x []float32, m float64) *wideSoftmax {
	w := &wideSoftmax{m: m, den: bigNew(0)}
	for _, v := range x {
		if !math.IsInf(float64(v), -1) { // e^-Inf adds nothing
			w.den.Add(w.den, bigExp(bigDiff(v, m)))
		}
	}
	return w
}

func (w *wideSoftmax) at(v float32) float32 {
	q := bigExp(bigDiff(v, w.m))
	return bigF32(q.Quo(q, w.den))
}

func bigDiff(v float32, m float64) *big.Float {
	return new(big.Float).SetPrec(bigPrec).Sub(bigNew(float64(v)), bigNew(m))
}
