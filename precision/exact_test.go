package precision

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestElementaryBound measures our float64 functions against the wide ones; exact mode is only as good as elemErr.
func TestElementaryBound(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	n := 1000
	if testing.Short() {
		n = 100
	}
	one := bigNew(1)
	cases := []struct {
		name   string
		f      func(float64) float64
		wide   func(x float64) *big.Float
		lo, hi float64
	}{
		{"exp", Exp64, func(x float64) *big.Float { return bigExp(bigNew(x)) }, -100, 88},
		{"exp-near-0", Exp64, func(x float64) *big.Float { return bigExp(bigNew(x)) }, -1e-3, 1e-3},
		{"log", Log64, func(x float64) *big.Float { return bigLog(bigNew(x)) }, 1e-30, 10},
		{"log-near-1", Log64, func(x float64) *big.Float { return bigLog(bigNew(x)) }, 0.99, 1.01},
		{"log-large", Log64, func(x float64) *big.Float { return bigLog(bigNew(x)) }, 1, 1e9},
		{"sigmoid", Sigmoid64, func(x float64) *big.Float {
			d := bigExp(bigNew(-x))
			return d.Quo(one, d.Add(d, one))
		}, -80, 80},
		{"softplus", Softplus64, func(x float64) *big.Float {
			d := bigExp(bigNew(x))
			return bigLog(d.Add(d, one))
		}, -60, 20},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(r.Uint64(), 7))
			worst := 0.0
			for range n {
				x := float64(float32(tc.lo + r.Float64()*(tc.hi-tc.lo)))
				want := tc.wide(x)
				if want.Sign() == 0 {
					continue
				}
				d := new(big.Float).SetPrec(bigPrec).Sub(bigNew(tc.f(x)), want)
				rel, _ := d.Quo(d, want).Float64()
				if worst = max(worst, math.Abs(rel)); math.Abs(rel) > elemErr/4 {
					t.Fatalf("%s(%g): relative error %g, bound %g", tc.name, x, rel, elemErr/4)
				}
			}
			t.Logf("worst relative error 2^%.1f, used as bound 2^-49", math.Log2(worst))
		})
	}
}

func TestSinCosBound(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	n := 600
	if testing.Short() {
		n = 60
	}
	worst := 0.0
	for i := range n {
		x := float64(float32(math.Exp(r.Float64()*24-10))) * float64(1-2*(i&1))
		if math.Abs(x) >= 0x1p20 {
			continue
		}
		s, c, ok := SinCos64(x)
		bs, bc := bigSinCos(x)
		for _, p := range []struct {
			got  float64
			want *big.Float
		}{{s, bs}, {c, bc}} {
			d, _ := new(big.Float).SetPrec(bigPrec).Sub(bigNew(p.got), p.want).Float64()
			worst = max(worst, math.Abs(d))
			if !ok || math.Abs(d) > 0x1p-51 {
				t.Fatalf("SinCos64(%g) = %g, %g ok %v: absolute error %g", x, s, c, ok, d)
			}
		}
	}
	t.Logf("worst absolute error 2^%.1f, used as bound 2^-50", math.Log2(worst))
}

// TestNearStraddle: the wide path must be taken and must be right where float64 cannot decide.
func TestNearStraddle(t *testing.T) {
	t.Parallel()
	// 1 + 2^-24 + 2^-80: just above the tie between 1 and 1+2^-23, invisible to float64.
	terms := []float64{1, 0x1p-24, 0x1p-80}
	if got := SumTerms(3, func(i int) float64 { return terms[i] }, 1); got != 1+0x1p-23 {
		t.Errorf("sum just above a tie = %x, want %x", got, float32(1+0x1p-23))
	}
	terms[2] = -0x1p-80
	if got := SumTerms(3, func(i int) float64 { return terms[i] }, 1); got != 1 {
		t.Errorf("sum just below a tie = %x, want 1", got)
	}
	terms[2] = 0
	if got := SumTerms(3, func(i int) float64 { return terms[i] }, 1); got != 1 {
		t.Errorf("exact tie = %x, want the even neighbour 1", got)
	}
	big := []float64{0x1p120, 1, -0x1p120}
	if got := SumTerms(3, func(i int) float64 { return big[i] }, 1); got != 1 {
		t.Errorf("cancelling sum = %g, want 1", got)
	}
	if got := SumTerms(3, func(i int) float64 { return 1 }, 3); got != 1 {
		t.Errorf("mean of ones = %g", got)
	}
}

// TestSumTermsOfHalves: sums of fp16 products, made to lie on and beside ties of float32, against math/big.
func TestSumTermsOfHalves(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 7))
	ties := 0
	for range 20000 {
		terms := make([]float64, 3+rng.IntN(30))
		want := bigNew(0)
		for i := range terms {
			terms[i] = float64(F16ToF32(uint16(rng.IntN(0x7c00)))) * float64(F16ToF32(uint16(rng.IntN(0x7c00))|0x8000*uint16(rng.IntN(2))))
			want.Add(want, bigNew(terms[i]))
		}
		f, _ := want.Float64()
		// One more term takes the sum to halfway above its float32, or just beside that.
		near := float32(f)
		half := (float64(math.Nextafter32(near, float32(math.Inf(1)))) - float64(near)) / 2
		rest, _ := new(big.Float).Sub(bigNew(float64(near)+half), want).Float64()
		last := rest + []float64{0, 0x1p-40, -0x1p-40, half * 0x1p-52}[rng.IntN(4)]
		terms = append(terms, last)
		want.Add(want, bigNew(last))
		if got := SumTerms(len(terms), func(i int) float64 { return terms[i] }, 1); got != bigF32(want) {
			t.Fatalf("SumTerms(%v) = %x, want %x", terms, got, bigF32(want))
		}
		if half != 0 && new(big.Float).Sub(want, bigNew(float64(near)+half)).Sign() == 0 {
			ties++
		}
	}
	if ties < 1000 {
		t.Errorf("%d of 20000 sums were ties: the test does not ask what it is for", ties)
	}
}

func TestHalfConversions(t *testing.T) {
	t.Parallel()
	for i := range 1 << 16 {
		h := uint16(i)
		f := F16ToF32(h)
		if f == f && F32ToF16(f) != h {
			t.Fatalf("binary16 %#04x -> %g -> %#04x", h, f, F32ToF16(f))
		}
		if b := BF16ToF32(h); b == b && F32ToBF16(b) != h {
			t.Fatalf("bfloat16 %#04x -> %g -> %#04x", h, b, F32ToBF16(b))
		}
	}
	for _, tc := range []struct {
		in   float32
		want uint16
		why  string
	}{
		{65519.996, 0x7bff, "below the overflow tie"}, {65520, 0x7c00, "the tie rounds to even, which is infinity"},
		{0x1p-25, 0, "the smallest tie rounds to even zero"}, {math.Nextafter32(0x1p-25, 1), 1, "just above it"},
		{0x1.8p-24, 2, "tie between subnormals 1 and 2"}, {-0x1p-26, 0x8000, "sign of zero is kept"},
		{0x1.ff8p-15, 0x03ff, "largest subnormal"}, {0x1.ffcp-15, 0x0400, "tie up to the smallest normal"},
	} {
		if got := F32ToF16(tc.in); got != tc.want {
			t.Errorf("F32ToF16(%x) = %#04x, want %#04x (%s)", tc.in, got, tc.want, tc.why)
		}
	}
}

// TestInvFreq: rounding the exact power once gets 15 of 32 entries wrong; the nested roundings are the definition.
func TestInvFreq(t *testing.T) {
	t.Parallel()
	differ := 0
	for j, got := range InvFreq(1e7, 64) {
		if got != float32(math.Pow(1e7, -float64(j)/32)) {
			differ++
		}
	}
	if differ != 15 {
		t.Errorf("%d of 32 entries differ from the exact value rounded once, want 15", differ)
	}
}

// TestSoftmaxWide: every value, whichever way it was decided, is the wide one's. A wide value must not see
// the values already written before it.
func TestSoftmaxWide(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(9, 9))
	rows := 60
	for range rows {
		x := make([]float32, 24)
		for i := range x {
			x[i] = float32(r.NormFloat64() * 3)
		}
		w := newWideSoftmax(x, float64(slices.Max(x)))
		got := slices.Clone(x)
		SoftmaxR32(got)
		for i := range x {
			if want := w.at(x[i]); got[i] != want {
				t.Fatalf("softmax(%v)[%d] = %x, want %x", x, i, got[i], want)
			}
		}
	}
}

// TestWideRoads holds every function's wide road to its fast one: with the bound made infinite nothing else is left.
func TestWideRoads(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(19, 9))
	for range 60 {
		x := float32(r.NormFloat64() * 8)
		d := bigSigmoidDen(x)
		if got, want := SigmoidR32(x), bigF32(new(big.Float).SetPrec(bigPrec).Quo(bigNew(1), d)); got != want {
			t.Fatalf("sigmoid(%g) = %x, wide %x", x, got, want)
		}
		if got, want := SiLUR32(x), bigF32(new(big.Float).SetPrec(bigPrec).Quo(bigNew(float64(x)), d)); got != want {
			t.Fatalf("silu(%g) = %x, wide %x", x, got, want)
		}
		if got, want := ExpR32(x), bigF32(bigExp(bigNew(float64(x)))); got != want {
			t.Fatalf("exp(%g) = %x, wide %x", x, got, want)
		}
		y := float32(math.Exp(float64(x)))
		if got, want := LogR32(y), bigF32(bigLog(bigNew(float64(y)))); got != want {
			t.Fatalf("log(%g) = %x, wide %x", y, got, want)
		}
		s := new(big.Float).SetPrec(bigPrec).Sqrt(bigNew(float64(y)))
		if got, want := RsqrtR32(y), bigF32(s.Quo(bigNew(1), s)); got != want {
			t.Fatalf("rsqrt(%g) = %x, wide %x", y, got, want)
		}
		sn, cs := SinCosR32(x * 100)
		bs, bc := bigSinCos(float64(x * 100))
		if sn != bigF32(bs) || cs != bigF32(bc) {
			t.Fatalf("sincos(%g) = %x, %x, wide %x, %x", x*100, sn, cs, bigF32(bs), bigF32(bc))
		}
	}
}

// TestSinCosOfZero: what is answered without arithmetic has the bits of the wide arithmetic.
func TestSinCosOfZero(t *testing.T) {
	t.Parallel()
	for _, x := range []float32{0, float32(math.Copysign(0, -1))} {
		s, c := SinCosR32(x)
		bs, bc := bigSinCos(float64(x))
		if math.Float32bits(s) != math.Float32bits(bigF32(bs)) || c != bigF32(bc) {
			t.Errorf("SinCosR32(%v) = %v, %v, want %v, %v", x, s, c, bs, bc)
		}
	}
}
