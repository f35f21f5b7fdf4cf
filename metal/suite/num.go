package suite

import (
	"math"

	"sibyl/precision"
)

// num is a number as float64 computes it, and how far what a kernel computes may be from it: a running error analysis (Higham,
// Accuracy and Stability of Numerical Algorithms, 3.3), so that no tolerance of the suite is chosen. The unit roundoff of float32
// is 2^-24. Functions may err by what the Metal Shading Language specification allows with fast math off (table 8.1): exp and log
// 4 ulp, rsqrt 2 ulp; division and square root are correctly rounded. Subnormals may be flushed, which adds 2^-126.
type num struct {
	v, e float64
	step bool // e is a step of a grid, because the interval lies across the middle of one
}

const (
	unit = 0x1p-24
	tiny = 0x1p-126
)

func exactly(x float32) num { return num{v: float64(x)} }

// rounded is v with the error e of its arguments and k units of its own rounding.
func rounded(v, e, k float64) num { return num{v: v, e: e + k*unit*(math.Abs(v)+e) + tiny} }

func (a num) add(b num) num { return rounded(a.v+b.v, a.e+b.e, 1) }
func (a num) sub(b num) num { return rounded(a.v-b.v, a.e+b.e, 1) }
func (a num) neg() num      { return num{v: -a.v, e: a.e} }

func (a num) mul(b num) num {
	return rounded(a.v*b.v, math.Abs(a.v)*b.e+math.Abs(b.v)*a.e+a.e*b.e, 1)
}

// div is a/b; b's error must leave its sign.
func (a num) div(b num) num {
	low := math.Abs(b.v) - b.e
	return rounded(a.v/b.v, (a.e+math.Abs(a.v/b.v)*b.e)/low, 1)
}

// exp errs by 4 ulp and by what its argument's error makes of it.
func (a num) exp() num {
	v := math.Exp(a.v)
	return rounded(v, v*math.Expm1(a.e), 8)
}

func (a num) log() num {
	v := math.Log(a.v)
	return rounded(v, a.e/(a.v-a.e), 8)
}

func (a num) rsqrt() num {
	v := 1 / math.Sqrt(a.v)
	return rounded(v, v*0.5*a.e/(a.v-a.e), 4)
}

func (a num) sigmoid() num { return exactly(1).div(exactly(1).add(a.neg().exp())) }

// silu is x / (1 + exp(-x)).
func (a num) silu() num { return a.div(exactly(1).add(a.neg().exp())) }

// softplus is log(1 + e^x): in three operations as they stand, in one to a few units whatever 1 + e^x drops: with e and log u each
// within 4 ulp, e / (u - 1) and two products, 2*8 + 4 units are above it. Between both u - 1 is exact (Sterbenz, and Kahan's proof).
func (a num) softplus(three bool) num {
	if a.v > 20 {
		return a
	}
	if three {
		return exactly(1).add(a.exp()).log()
	}
	v := math.Log1p(math.Exp(a.v))
	return rounded(v, a.e, 20)
}

// sum is of any order: n-1 roundings of partial sums, each at most the sum of magnitudes.
func sum(x []num) num {
	var v, e, m float64
	for _, t := range x {
		v, e, m = v+t.v, e+t.e, m+math.Abs(t.v)+t.e
	}
	return num{v: v, e: e + float64(len(x))*unit*m + tiny}
}

// on is a rounded to a grid: where the whole interval goes to one number of it, the result has no error at all.
func (a num) on(r precision.Round) num {
	if r == precision.F32 {
		return a
	}
	lo, mid, hi := grid(r, a.v-a.e), grid(r, a.v), grid(r, a.v+a.e)
	return num{mid, math.Max(mid-lo, hi-mid), lo != hi}
}

// grid rounds a float64 to a grid once, nearest even.
func grid(r precision.Round, x float64) float64 {
	digits, least, top := 11, -24, 65504.0
	if r == precision.BF16 {
		digits, least, top = 8, -133, 0x1.fep127
	}
	_, e := math.Frexp(x)
	u := max(e-digits, least)
	y := math.Ldexp(math.RoundToEven(math.Ldexp(x, -u)), u)
	if math.Abs(y) > top {
		return math.Inf(int(math.Copysign(1, y)))
	}
	return y
}
