package precision

import "math"

// Our own float64 elementary functions: the same bits on every machine. Every product that is added to something is
// wrapped in float64(), which the Go specification says prevents fusing; package math is used only for operations
// that are exact by definition (Floor, Sqrt, Frexp, Ldexp). Errors are relative, measured against bigexp.go by the
// tests: below elemErr for all arguments that do not under- or overflow.
const elemErr = 0x1p-49

const (
	ln2Hi = 6.93147180369123816490e-01 // 33 bits, so that k*ln2Hi is exact for |k| < 2^20
	ln2Lo = 1.90821492927058770002e-10
	log2e = 1.44269504088896338700
)

// expTaylor: 1/n!, n = 13 down to 2. |r| <= ln2/2, so the first term left out is below 2^-57.
var expTaylor = [...]float64{1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320,
	1. / 5040, 1. / 720, 1. / 120, 1. / 24, 1. / 6, 1. / 2}

// Exp64 is e**x.
func Exp64(x float64) float64 {
	switch {
	case x != x:
		return x
	case x > 709.8:
		return math.Inf(1)
	case x < -745.2:
		return 0
	}
	k := math.Floor(float64(x*log2e) + 0.5)
	r := x - float64(k*ln2Hi)
	lo := float64(k * ln2Lo)
	hi := r
	r = hi - lo
	c := (hi - r) - lo // what the subtraction lost
	p := expTaylor[0]
	for _, a := range expTaylor[1:] {
		p = float64(p*r) + a
	}
	// e^(r+c) = 1 + r + r^2*p + c*(1+r)
	y := 1 + (r + (float64(float64(r*r)*p) + float64(c*(1+r))))
	return math.Ldexp(y, int(k))
}

// logSeries: 2/(2n+1), n = 12 down to 1. |s| <= 0.1716.
var logSeries = [...]float64{2. / 25, 2. / 23, 2. / 21, 2. / 19, 2. / 17, 2. / 15, 2. / 13, 2. / 11, 2. / 9, 2. / 7, 2. / 5, 2. / 3}

// Log64 is the natural logarithm of a positive number.
func Log64(x float64) float64 {
	switch {
	case x != x || x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case math.IsInf(x, 1):
		return x
	}
	m, k := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m *= 2
		k--
	}
	// log m = 2 atanh(s), s = (m-1)/(m+1)
	f := m - 1
	s := f / (2 + f)
	z := float64(s * s)
	p := logSeries[0]
	for _, a := range logSeries[1:] {
		p = float64(p*z) + a
	}
	// 2s = f - s*f exactly in the reals; f is exact, so the small part carries the error.
	tail := float64(s * (float64(z*p) - f))
	if k == 0 {
		return f + tail
	}
	kf := float64(k)
	return float64(kf*ln2Hi) + (f + (tail + float64(kf*ln2Lo)))
}

// Log1p64 is log(1+y), y > -1.
func Log1p64(y float64) float64 {
	u := 1 + y
	if u == 1 || math.IsInf(u, 1) {
		return y
	}
	// Kahan: log(u) is for u, not 1+y; the quotient puts the lost part back.
	return float64(Log64(u)*y) / (u - 1)
}

// Sigmoid64 is 1/(1+e^-x).
func Sigmoid64(x float64) float64 { return 1 / (1 + Exp64(-x)) }

// SiLU64 is x*sigmoid(x).
func SiLU64(x float64) float64 { return x / (1 + Exp64(-x)) }

// Softplus64 is log(1+e^x); x above 20 passes, as in torch.nn.functional.softplus with its defaults.
func Softplus64(x float64) float64 {
	if x > 20 {
		return x
	}
	return Log1p64(Exp64(x))
}

// pi/2 in three parts of 33, 33 and 53 bits (fdlibm's constants).
const (
	pio2a = 1.57079632673412561417e+00
	pio2b = 6.07710050630396597660e-11
	pio2c = 2.02226624879595063154e-21
)

// sinTaylor and cosTaylor: the odd and even terms, highest first. |r| <= pi/4.
var (
	sinTaylor = [...]float64{1. / 355687428096000, -1. / 1307674368000, 1. / 6227020800, -1. / 39916800, 1. / 362880, -1. / 5040, 1. / 120, -1. / 6}
	cosTaylor = [...]float64{1. / 6402373705728000 * -1, 1. / 20922789888000, -1. / 87178291200, 1. / 479001600, -1. / 3628800, 1. / 40320, -1. / 720, 1. / 24, -1. / 2}
)

// SinCos64 gives sin and cos of |x| < 2^20 (a rope angle is at most position times 1). The error is absolute,
// below 2^-50; ok is false outside the range.
func SinCos64(x float64) (sin, cos float64, ok bool) {
	if !(x < 0x1p20 && x > -0x1p20) {
		return math.NaN(), math.NaN(), false
	}
	k := math.Floor(float64(x*(2/math.Pi)) + 0.5)
	// k has at most 20 bits, so k*pio2a and k*pio2b are exact.
	t := x - float64(k*pio2a)
	w := float64(k * pio2b)
	r := t - w
	c := (t - r) - w - float64(k*pio2c)
	r, c = r+c, c-((r+c)-r)
	z := float64(r * r)
	ps, pc := sinTaylor[0], cosTaylor[0]
	for _, a := range sinTaylor[1:] {
		ps = float64(ps*z) + a
	}
	for _, a := range cosTaylor[1:] {
		pc = float64(pc*z) + a
	}
	s := r + (float64(float64(r*z)*ps) + c)
	co := 1 + (float64(z*pc) - float64(r*c))
	switch int64(k) & 3 {
	case 0:
		return s, co, true
	case 1:
		return co, -s, true
	case 2:
		return -s, -co, true
	}
	return -co, s, true
}
