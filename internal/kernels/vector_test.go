package kernels

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"sibyl/precision"
)

// vectorCase is guarded memory of n random numbers, one in special of them special.
func vectorCase(t testing.TB, r *rand.Rand, n, special int) []float32 {
	x := guarded[float32](t, n, r.IntN(2) == 0)
	fill(r, x, special)
	return x
}

// eachLength runs f for every length from least to 257 and a few more, plain and with infinities and NaN.
func eachLength(least int, f func(r *rand.Rand, n, special int)) {
	for _, special := range []int{0, 25} {
		r := rand.New(rand.NewPCG(41, uint64(special)))
		for n := least; n <= 257; n++ {
			if testing.Short() && n > 40 && n%32 > 1 && n%32 < 31 {
				continue
			}
			f(r, n, special)
		}
		for _, n := range []int{511, 512, 1000} {
			f(r, n, special)
		}
	}
}

func TestDotVariants(t *testing.T) {
	variants(t, dotExactKernel, func(t *testing.T, run dotFunc) {
		eachLength(0, func(r *rand.Rand, n, special int) {
			a, b := vectorCase(t, r, n, special), vectorCase(t, r, n, special)
			if got, want := run(a, b), dotExactGo(a, b); !same(got, want) {
				t.Fatalf("length %d: %x, want %x", n, got, want)
			}
		})
	})
	variants(t, dotFastKernel, func(t *testing.T, run dotFunc) {
		var worst float64
		eachLength(0, func(r *rand.Rand, n, special int) {
			a, b := vectorCase(t, r, n, special), vectorCase(t, r, n, special)
			_, abs := sumAbs(a, b)
			if got, want := run(a, b), dotExactGo(a, b); !within(got, want, fastBound(n, abs), &worst) {
				t.Fatalf("length %d: %x, want %x within %g", n, got, want, fastBound(n, abs))
			}
		})
		t.Logf("worst seen: %.2f of the bound", worst)
	})
}

func sumAbs(a, b []float32) (s, abs float64) {
	for i := range a {
		p := float64(a[i]) * float64(b[i])
		s, abs = s+p, abs+math.Abs(p)
	}
	return s, abs
}

func TestInvRMSVariants(t *testing.T) {
	variants(t, rmsExactKernel, func(t *testing.T, run rmsFunc) {
		eachLength(1, func(r *rand.Rand, n, special int) {
			x := vectorCase(t, r, n, special)
			if got, want := run(x, 1e-6), invRMSExactGo(x, 1e-6); !same(got, want) {
				t.Fatalf("length %d: %x, want %x", n, got, want)
			}
		})
	})
	variants(t, rmsFastKernel, func(t *testing.T, run rmsFunc) {
		var worst float64
		eachLength(1, func(r *rand.Rand, n, special int) {
			x := vectorCase(t, r, n, special)
			// The sum is float64's; the mean, the sum with eps and the root each round once, squares in the exact form too, and
			// the root halves what lies under it: 2u + 1u each, u = 2^-24.
			want := invRMSExactGo(x, 1e-6)
			if got := run(x, 1e-6); !within(got, want, 4*0x1p-24*float64(want), &worst) {
				t.Fatalf("length %d: %x, want %x", n, got, want)
			}
		})
		t.Logf("worst seen: %.2f of the bound", worst)
	})
}

func TestSumVariants(t *testing.T) {
	variants(t, sumExactKernel, func(t *testing.T, run func([]float32) float32) {
		eachLength(0, func(r *rand.Rand, n, special int) {
			x := vectorCase(t, r, n, special)
			if got, want := run(x), sumExactGo(x); !same(got, want) {
				t.Fatalf("length %d: %x, want %x", n, got, want)
			}
		})
	})
	variants(t, sumFastKernel, func(t *testing.T, run func([]float32) float32) {
		var worst float64
		eachLength(0, func(r *rand.Rand, n, special int) {
			x, abs := vectorCase(t, r, n, special), 0.0
			for _, v := range x {
				abs += math.Abs(float64(v))
			}
			if got, want := run(x), sumExactGo(x); !within(got, want, fastBound(n, abs), &worst) {
				t.Fatalf("length %d: %x, want %x within %g", n, got, want, fastBound(n, abs))
			}
		})
		t.Logf("worst seen: %.2f of the bound", worst)
	})
}

// TestConvVariants: every number of channels, with four taps and with others.
func TestConvVariants(t *testing.T) {
	each := func(t *testing.T, run convFunc, check func(c, taps int, got, want float32, abs float64)) {
		eachLength(1, func(r *rand.Rand, n, special int) {
			taps := []int{4, 4, 4, 3, 1}[n%5]
			w, x, out, want := vectorCase(t, r, taps*n, special), vectorCase(t, r, taps*n, special), vectorCase(t, r, n, 0), make([]float32, n)
			run(out, w, x)
			convExactGo(want, w, x)
			for c := range out {
				abs := 0.0
				for j := range taps {
					abs += math.Abs(float64(w[j*n+c]) * float64(x[j*n+c]))
				}
				check(c, taps, out[c], want[c], abs)
			}
		})
	}
	variants(t, convExactKernel, func(t *testing.T, run convFunc) {
		each(t, run, func(c, taps int, got, want float32, _ float64) {
			if !same(got, want) {
				t.Fatalf("%d taps: [%d] = %x, want %x", taps, c, got, want)
			}
		})
	})
	variants(t, convFastKernel, func(t *testing.T, run convFunc) {
		var worst float64
		each(t, run, func(c, taps int, got, want float32, abs float64) {
			if !within(got, want, fastBound(taps, abs), &worst) {
				t.Fatalf("%d taps: [%d] = %x, want %x within %g", taps, c, got, want, fastBound(taps, abs))
			}
		})
		t.Logf("worst seen: %.2f of the bound", worst)
	})
}

// TestElementwiseVariants: the definitions' bits, in guarded memory, with one operand longer than asked for.
func TestElementwiseVariants(t *testing.T) {
	compare := func(t *testing.T, got, want []float32) {
		t.Helper()
		for i := range got {
			if !same(got[i], want[i]) {
				t.Fatalf("length %d: [%d] = %x, want %x", len(got), i, got[i], want[i])
			}
		}
	}
	for _, k := range []*kernel[pairFunc]{multiplyKernel, addKernel} {
		variants(t, k, func(t *testing.T, run pairFunc) {
			eachLength(0, func(r *rand.Rand, n, special int) {
				dst, x := vectorCase(t, r, n, special), vectorCase(t, r, n, special)
				want := slices.Clone(dst)
				(*k.variants[NoAsm])(want, x)
				run(dst, x)
				compare(t, dst, want)
			})
		})
	}
	variants(t, scaleKernel, func(t *testing.T, run func([]float32, float32)) {
		eachLength(0, func(r *rand.Rand, n, special int) {
			x := vectorCase(t, r, n, special)
			want := slices.Clone(x)
			scaleGo(want, 0.37)
			run(x, 0.37)
			compare(t, x, want)
		})
	})
	variants(t, gainKernel, func(t *testing.T, run gainFunc) {
		eachLength(0, func(r *rand.Rand, n, special int) {
			dst, x, g := vectorCase(t, r, n, 0), vectorCase(t, r, n, special), vectorCase(t, r, n, special)
			want := make([]float32, n)
			gainGo(want, x, g, 1.7)
			run(dst, x, g, 1.7)
			compare(t, dst, want)
			run(x, x, g, 1.7)
			compare(t, x, want)
		})
	})
	variants(t, turnKernel, func(t *testing.T, run turnFunc) {
		eachLength(0, func(r *rand.Rand, n, special int) {
			a, b, cos, sin := vectorCase(t, r, n, special), vectorCase(t, r, n, special), vectorCase(t, r, n, special), vectorCase(t, r, n, special)
			wantA, wantB := slices.Clone(a), slices.Clone(b)
			turnGo(wantA, wantB, cos, sin)
			run(a, b, cos, sin)
			compare(t, a, wantA)
			compare(t, b, wantB)
		})
	})
}

// TestWeightedRowsVariants: every width, with rows that lie apart as the heads of a cache do.
func TestWeightedRowsVariants(t *testing.T) {
	each := func(t *testing.T, run columnsFunc, check func(n, width int, got, want []float32, abs []float64)) {
		eachLength(1, func(r *rand.Rand, width, special int) {
			n := []int{0, 1, 2, 3, 9, 33}[width%6]
			stride := width + width%3*5
			w, v := vectorCase(t, r, n, special), vectorCase(t, r, max(0, (n-1)*stride+width), special)
			if n == 0 {
				v = nil
			}
			out, want, abs := vectorCase(t, r, width, 0), make([]float32, width), make([]float64, width)
			run(out, w, v, stride)
			weightedRowsExactGo(want, w, v, stride)
			for j, a := range w {
				for d := range width {
					abs[d] += math.Abs(float64(a) * float64(v[j*stride+d]))
				}
			}
			check(n, width, out, want, abs)
		})
	}
	variants(t, columnsExactKernel, func(t *testing.T, run columnsFunc) {
		each(t, run, func(n, width int, got, want []float32, _ []float64) {
			for d := range got {
				if !same(got[d], want[d]) {
					t.Fatalf("%d rows of %d: [%d] = %x, want %x", n, width, d, got[d], want[d])
				}
			}
		})
	})
	variants(t, columnsFastKernel, func(t *testing.T, run columnsFunc) {
		var worst float64
		each(t, run, func(n, width int, got, want []float32, abs []float64) {
			for d := range got {
				if !within(got[d], want[d], fastBound(n, abs[d]), &worst) {
					t.Fatalf("%d rows of %d: [%d] = %x, want %x within %g", n, width, d, got[d], want[d], fastBound(n, abs[d]))
				}
			}
		})
		t.Logf("worst seen: %.2f of the bound", worst)
	})
}

// TestMapVariants: exp, sigmoid and silu of every length, in place and not, and of every bf16 value; both arithmetics are
// held to the exact definition. In units of the last place, where u = 2^-24 is between a half and one unit, fast may be
// off by: e^x, the rounding of the last step of its series, what the steps before it bring, times |r| <= 0.35 each, and
// the rounding of r, 1.1 units and the half of the definition's own; the others, that error, the sum's rounding and the
// quotient's, 2.1*2u + 2u.
func TestMapVariants(t *testing.T) {
	all := make([]float32, 1<<16)
	for i := range all {
		all[i] = precision.BF16ToF32(uint16(i))
	}
	for _, k := range []struct {
		exact, fast *kernel[mapFunc]
		one         func(float32) float32
		units       int
	}{
		{expExactKernel, expFastKernel, precision.ExpR32, 1},
		{sigmoidExactKernel, sigmoidFastKernel, precision.SigmoidR32, 4},
		{siluExactKernel, siluFastKernel, precision.SiLUR32, 4},
	} {
		check := func(units int) func(t *testing.T, run mapFunc) {
			return func(t *testing.T, run mapFunc) {
				worst := 0
				defer func() { t.Logf("worst seen: %d of %d units", worst, units) }()
				compare := func(x []float32, inPlace bool) {
					dst, want := guarded[float32](t, len(x), true), make([]float32, len(x))
					each(k.one)(want, x)
					in := x
					if inPlace {
						copy(dst, x)
						in = dst
					}
					run(dst, in)
					for i := range dst {
						if same(dst[i], want[i]) {
							continue
						}
						if worst = max(worst, unitsApart(dst[i], want[i])); worst > units {
							t.Fatalf("length %d: of %x: %x, want %x", len(x), x[i], dst[i], want[i])
						}
					}
				}
				compare(all, false)
				eachLength(0, func(r *rand.Rand, n, special int) {
					x := vectorCase(t, r, n, special)
					for i := range x {
						x[i] *= float32(math.Exp(r.NormFloat64() * 3))
					}
					compare(x, n%2 == 0)
				})
			}
		}
		variants(t, k.exact, check(0))
		variants(t, k.fast, check(k.units))
	}
}

// unitsApart counts the float32 between two finite numbers.
func unitsApart(a, b float32) int {
	order := func(x float32) int {
		u := math.Float32bits(x)
		if u>>31 == 1 {
			return -int(u & 0x7fffffff)
		}
		return int(u)
	}
	if a != a || b != b {
		return math.MaxInt
	}
	return max(order(a)-order(b), order(b)-order(a))
}

func TestSoftmaxVariants(t *testing.T) {
	variants(t, softmaxExactKernel, func(t *testing.T, run func([]float32)) {
		eachLength(0, func(r *rand.Rand, n, special int) {
			x := vectorCase(t, r, n, special*8)
			want := slices.Clone(x)
			precision.SoftmaxR32(want)
			run(x)
			for i := range x {
				if !same(x[i], want[i]) {
					t.Fatalf("length %d: [%d] = %x, want %x", n, i, x[i], want[i])
				}
			}
		})
	})
	variants(t, softmaxFastKernel, func(t *testing.T, run func([]float32)) {
		var worst float64
		eachLength(0, func(r *rand.Rand, n, special int) {
			x := vectorCase(t, r, n, special*8)
			want, clone := slices.Clone(x), append(slices.Clone(x), 0)
			top := slices.Max(clone)
			precision.SoftmaxR32(want)
			run(x)
			for i := range x {
				// A sum of n positive numbers in any order, each rounded; exp, the reciprocal, the product; and the difference d
				// from the largest, whose rounding by |d| 2^-24 moves e^d by as much of itself, in this term and in the sum.
				d := float64(top) - float64(slices.Min(clone))
				if bound := 1.01*(float64(n+5)+2*d)*0x1p-24*float64(want[i]) + 0x1p-149; !within(x[i], want[i], bound, &worst) {
					t.Fatalf("length %d: [%d] = %x, want %x within %g", n, i, x[i], want[i], bound)
				}
			}
		})
		t.Logf("worst seen: %.2f of the bound", worst)
	})
}

// TestExpDiffVariants: float64's bits, over the whole range and around the assembly's limit.
func TestExpDiffVariants(t *testing.T) {
	variants(t, expDiffKernel, func(t *testing.T, run func([]float64, []float32, float64)) {
		eachLength(0, func(r *rand.Rand, n, special int) {
			x := vectorCase(t, r, n, special)
			for i := range x {
				x[i] *= float32(math.Exp(r.NormFloat64() * 3))
			}
			m := []float64{0, 3.5, 690, float64(float32(1e-30))}[n%4]
			dst, want := guarded[float64](t, n, true), make([]float64, n)
			run(dst, x, m)
			expDiffGo(want, x, m)
			for i := range dst {
				if math.Float64bits(dst[i]) != math.Float64bits(want[i]) && (dst[i] == dst[i] || want[i] == want[i]) {
					t.Fatalf("length %d: e^(%x - %x) = %x, want %x", n, x[i], m, dst[i], want[i])
				}
			}
		})
	})
}

// TestLogSumVariants: the sum of n exponentials, each within four units of 2^-53, in any order: (n+4) u of the sum, and what
// counts as e^-800. Minus infinity adds nothing.
func TestLogSumVariants(t *testing.T) {
	variants(t, logSumKernel, func(t *testing.T, run logSumFunc) {
		var worst float64
		eachLength(0, func(r *rand.Rand, n, _ int) {
			x, m := vectorCase(t, r, n, 0), float32(math.Inf(-1))
			for i := range x {
				x[i] *= float32(math.Exp(r.NormFloat64() * 3))
				m = max(m, x[i])
			}
			for i := range x {
				if r.IntN(8) == 0 && x[i] < m {
					x[i] = float32(math.Inf(-1))
				}
			}
			want := new(big.Float).SetPrec(300)
			for _, v := range x {
				want.Add(want, new(big.Float).SetFloat64(math.Exp(float64(v)-float64(m))))
			}
			sum, _ := want.Float64()
			got := run(x, float64(m))
			bound := float64(n+4)*0x1p-53*sum + float64(n)*0x1p-1100
			if d := math.Abs(got - sum); !(d <= bound) {
				t.Fatalf("length %d: %x, want %x within %g", n, got, sum, bound)
			} else if d > 0 {
				worst = max(worst, d/bound)
			}
		})
		t.Logf("worst seen: %.2f of the bound", worst)
	})
}

func TestMaxVariants(t *testing.T) {
	variants(t, maxKernel, func(t *testing.T, run func([]float32) (float32, bool)) {
		eachLength(1, func(r *rand.Rand, n, special int) {
			x := vectorCase(t, r, n, special*20)
			top, nan := run(x)
			want, bad := maxGo(x)
			if nan != bad || !nan && top != want {
				t.Fatalf("length %d: %x, %v, want %x, %v", n, top, nan, want, bad)
			}
			if !nan && !slices.Contains(x, top) {
				t.Fatalf("length %d: %x is none of them", n, top)
			}
		})
	})
}

// deltaCase is one step and its result by the definition.
type deltaCase struct {
	S, q, k, v  []float32
	decay, beta float32
	wantS, want []float32
}

func deltaCases(t *testing.T, special int) []*deltaCase {
	r := rand.New(rand.NewPCG(51, uint64(special)))
	var out []*deltaCase
	for dv := 1; dv <= 140; dv++ {
		dk := []int{1, 2, 3, 8, 24, 128}[dv%6]
		c := &deltaCase{S: vectorCase(t, r, dk*dv, special*20), q: vectorCase(t, r, dk, special), k: vectorCase(t, r, dk, special),
			v: vectorCase(t, r, dv, special), decay: r.Float32(), beta: r.Float32(), want: make([]float32, dv)}
		c.wantS = slices.Clone(c.S)
		deltaStepExactGo(c.wantS, c.q, c.k, c.v, c.want, c.decay, c.beta, make([]float64, 2*dv))
		out = append(out, c)
	}
	return out
}

func TestDeltaStepVariants(t *testing.T) {
	for _, special := range []int{0, 25} {
		cases := deltaCases(t, special)
		variants(t, deltaExactKernel, func(t *testing.T, run deltaFunc) {
			for _, c := range cases {
				S, out := guarded[float32](t, len(c.S), true), guarded[float32](t, len(c.v), true)
				copy(S, c.S)
				run(S, c.q, c.k, c.v, out, c.decay, c.beta, make([]float64, 2*len(c.v)))
				for i := range S {
					if !same(S[i], c.wantS[i]) {
						t.Fatalf("dk %d, dv %d: S[%d] = %x, want %x", len(c.k), len(c.v), i, S[i], c.wantS[i])
					}
				}
				for i := range out {
					if !same(out[i], c.want[i]) {
						t.Fatalf("dk %d, dv %d: out[%d] = %x, want %x", len(c.k), len(c.v), i, out[i], c.want[i])
					}
				}
			}
		})
	}
	cases := deltaCases(t, 0)
	variants(t, deltaFastKernel, func(t *testing.T, run deltaFunc) {
		var worst float64
		for _, c := range cases {
			S, out := guarded[float32](t, len(c.S), true), guarded[float32](t, len(c.v), true)
			copy(S, c.S)
			run(S, c.q, c.k, c.v, out, c.decay, c.beta, make([]float64, 2*len(c.v)))
			boundS, bound := c.bounds()
			for i := range S {
				if !within(S[i], c.wantS[i], boundS[i], &worst) {
					t.Fatalf("dk %d, dv %d: S[%d] = %x, want %x within %g", len(c.k), len(c.v), i, S[i], c.wantS[i], boundS[i])
				}
			}
			for i := range out {
				if !within(out[i], c.want[i], bound[i], &worst) {
					t.Fatalf("dk %d, dv %d: out[%d] = %x, want %x within %g", len(c.k), len(c.v), i, out[i], c.want[i], bound[i])
				}
			}
		}
		t.Logf("worst seen: %.2f of the bound", worst)
	})
}

// bounds are what a step in float32, fused or not, in any order, may differ by from the exact one, both of which round,
// u = 2^-24: mem by (dk+3) u sum|decay S k| (Higham 3.1), delta by that and two roundings, S by its own three and |k| times
// delta's error, out by (dk+2) u sum|S q| and what S differs by. 2.02 stands for both sides' roundings and higher powers of u.
func (c *deltaCase) bounds() (boundS, bound []float64) {
	const u = 2.02 * 0x1p-24
	dk, dv := len(c.k), len(c.v)
	boundS, bound = make([]float64, dk*dv), make([]float64, dv)
	for e := range dv {
		var mem, abs float64
		for d, k := range c.k {
			p := float64(c.decay) * float64(c.S[d*dv+e]) * float64(k)
			mem, abs = mem+p, abs+math.Abs(p)
		}
		delta := math.Abs(float64(c.beta) * (float64(c.v[e]) - mem))
		off := float64(c.beta)*float64(dk+3)*u*abs + 3*u*delta + float64(dk)*0x1p-149
		for d, k := range c.k {
			kept, added := math.Abs(float64(c.decay)*float64(c.S[d*dv+e])), math.Abs(float64(k))
			s := 2*u*(kept+added*delta) + added*off + 0x1p-147
			boundS[d*dv+e] = s
			bound[e] += math.Abs(float64(c.q[d])) * (float64(dk+2)*u*math.Abs(float64(c.wantS[d*dv+e])) + s)
		}
		bound[e] += float64(dk) * 0x1p-147
	}
	return boundS, bound
}

// TestRoundVariants: the bits of NaN too, every length, and around every halfway point of the two grids.
func TestRoundVariants(t *testing.T) {
	var edges []float32
	for h := range 1 << 16 {
		for _, b := range []uint32{math.Float32bits(precision.F16ToF32(uint16(h))), uint32(h) << 16} {
			for _, d := range []uint32{0, 1, ^uint32(0), 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001} {
				edges = append(edges, math.Float32frombits(b+d))
			}
		}
	}
	for _, k := range []*kernel[func([]float32)]{roundF16Kernel, roundBF16Kernel} {
		variants(t, k, func(t *testing.T, run func([]float32)) {
			compare := func(x []float32) {
				got, want := guarded[float32](t, len(x), true), slices.Clone(x)
				copy(got, x)
				run(got)
				(*k.variants[NoAsm])(want)
				for i := range got {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
						t.Fatalf("length %d: %08x becomes %08x, want %08x", len(x), math.Float32bits(x[i]), math.Float32bits(got[i]), math.Float32bits(want[i]))
					}
				}
			}
			compare(edges)
			eachLength(0, func(r *rand.Rand, n, special int) { compare(vectorCase(t, r, n, special)) })
		})
	}
}
