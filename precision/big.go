package precision

import (
	"math"
	"math/big"
	"sync"
)

// The wide arithmetic behind exact mode: slow, plain, asked only where float64 cannot decide a float32 rounding.
// 800 bits hold every sum of products of float32 exactly (exponents -298 to 256) for up to 2^200 terms.
const bigPrec = 800

func bigNew(x float64) *big.Float { return new(big.Float).SetPrec(bigPrec).SetFloat64(x) }

// bigExp is e^x for finite x of any size that does not overflow big.Float.
func bigExp(x *big.Float) *big.Float {
	// e^x = (e^(x/2^k))^(2^k) with |x/2^k| < 2^-8, then Taylor.
	k := 0
	if x.Sign() != 0 {
		k = max(0, x.MantExp(nil)+8)
	}
	r := new(big.Float).SetPrec(bigPrec).SetMantExp(x, -k)
	sum, term := bigNew(1), bigNew(1)
	for n := int64(1); n < 200; n++ {
		term.Mul(term, r)
		term.Quo(term, bigNew(float64(n)))
		if term.Sign() == 0 || term.MantExp(nil) < -bigPrec {
			break
		}
		sum.Add(sum, term)
	}
	for range k {
		sum.Mul(sum, sum)
	}
	return sum
}

// bigAtanh is atanh(s), |s| <= 1/3.
func bigAtanh(s *big.Float) *big.Float {
	sum, pow := bigNew(0), new(big.Float).Copy(s)
	z := new(big.Float).SetPrec(bigPrec).Mul(s, s)
	for n := int64(1); n < 4000; n += 2 {
		t := new(big.Float).SetPrec(bigPrec).Quo(pow, bigNew(float64(n)))
		if t.Sign() == 0 || t.MantExp(nil) < -bigPrec {
			break
		}
		sum.Add(sum, t)
		pow.Mul(pow, z)
	}
	return sum
}

// bigLog is log(x), x > 0.
func bigLog(x *big.Float) *big.Float {
	m := new(big.Float).SetPrec(bigPrec)
	k := x.MantExp(m) // m in [0.5, 1)
	num := new(big.Float).SetPrec(bigPrec).Sub(m, bigNew(1))
	den := new(big.Float).SetPrec(bigPrec).Add(m, bigNew(1))
	l := bigAtanh(num.Quo(num, den))
	l.Add(l, l)
	ln2 := bigAtanh(new(big.Float).SetPrec(bigPrec).Quo(bigNew(1), bigNew(3))) // ln 2 = 2 atanh(1/3)
	ln2.Add(ln2, ln2)
	return l.Add(l, ln2.Mul(ln2, bigNew(float64(k))))
}

// bigPi is pi by Machin's formula, 16 atan(1/5) - 4 atan(1/239), computed once; it must not be written to.
var bigPi = sync.OnceValue(func() *big.Float {
	atan := func(n float64) *big.Float {
		sum, pow := bigNew(0), new(big.Float).SetPrec(bigPrec).Quo(bigNew(1), bigNew(n))
		z := bigNew(-n * n)
		for i := int64(1); i < 2000; i += 2 {
			t := new(big.Float).SetPrec(bigPrec).Quo(pow, bigNew(float64(i)))
			if t.MantExp(nil) < -bigPrec {
				break
			}
			sum.Add(sum, t)
			pow.Quo(pow, z)
		}
		return sum
	}
	a, b := atan(5), atan(239)
	a.Mul(a, bigNew(16))
	return a.Sub(a, b.Mul(b, bigNew(4)))
})

// bigSinCos is sin and cos of a float64 of any size.
func bigSinCos(x float64) (sin, cos *big.Float) {
	pi := bigPi()
	half := new(big.Float).SetPrec(bigPrec).Quo(pi, bigNew(2))
	q := new(big.Float).SetPrec(bigPrec).Quo(bigNew(x), half)
	q.Add(q, bigNew(math.Copysign(0.5, x)))
	k, _ := q.Int(nil)
	r := new(big.Float).SetPrec(bigPrec).SetInt(k)
	r.Sub(bigNew(x), r.Mul(r, half))
	z := new(big.Float).SetPrec(bigPrec).Mul(r, r)
	z.Neg(z)
	series := func(first *big.Float, n int64) *big.Float {
		sum, term := new(big.Float).Copy(first), new(big.Float).Copy(first)
		for ; n < 400; n += 2 {
			term.Mul(term, z)
			term.Quo(term, bigNew(float64(n*(n+1))))
			if term.Sign() == 0 || term.MantExp(nil) < -bigPrec {
				break
			}
			sum.Add(sum, term)
		}
		return sum
	}
	s, c := series(r, 2), series(bigNew(1), 1)
	quadrant := new(big.Int).And(k, big.NewInt(3)).Int64() // two's complement, as for int64
	for range quadrant {
		s, c = c, new(big.Float).Neg(s)
	}
	return s, c
}

// bigF32 rounds to float32, nearest even. A big.Float has no NaN; zero keeps its sign.
func bigF32(x *big.Float) float32 {
	f, _ := x.Float32()
	return f
}
