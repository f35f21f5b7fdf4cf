package kernels

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sibyl/precision"
)

// attendCase is some rows of one sequence; Q, Out and the cache hold other heads beside those asked for.
func attendCase(t testing.TB, r *rand.Rand, rows, group, hd, visible int) *Attention {
	a := &Attention{Rows: rows, Group: group, HeadDim: hd, Visible: visible, Scale: float32(1 / math.Sqrt(float64(hd))), Stride: 2 * group * hd, KVStride: 3*hd + 1}
	keys := visible + rows - 1
	a.Q, a.Out = guarded[float32](t, (rows-1)*a.Stride+group*hd, true), guarded[float32](t, (rows-1)*a.Stride+group*hd, true)
	a.K, a.V = guarded[float32](t, (keys-1)*a.KVStride+hd, true), guarded[float32](t, (keys-1)*a.KVStride+hd, true)
	for _, x := range [][]float32{a.Q, a.K, a.V} {
		fill(r, x, 0)
	}
	for i := range a.Out {
		a.Out[i] = 12345
	}
	return a
}

// check holds a.Out to float64, and what lies between the heads to what it was. In float32, u = 2^-24, a score errs by
// s = (hd+3) u Scale sum|q k| at most, and e^(score-top) by that, by the top's s, by |score-top| u and two units of its
// own for each block that raised the top and for itself; the sum over n keys adds n u, and so does the weighted one.
func (a *Attention) check(t testing.TB, name string, worst *float64) {
	t.Helper()
	const u = 0x1p-24
	seen := make([]bool, len(a.Out))
	for i := range a.Rows * a.Group {
		q, out, n := a.head(i)
		s, w, off, far := make([]float64, n), make([]float64, n), 0.0, 0.0
		for j := range s {
			abs := 0.0
			for d, x := range q {
				p := float64(x) * float64(a.K[j*a.KVStride+d])
				s[j], abs = s[j]+p, abs+math.Abs(p)
			}
			s[j] *= float64(a.Scale)
			off = max(off, float64(a.HeadDim+3)*u*abs*float64(a.Scale))
		}
		top, sum := slices.Max(s), 0.0
		for j := range s {
			w[j] = math.Exp(s[j] - top)
			sum += w[j]
			far = max(far, top-s[j])
		}
		for d := range out {
			seen[i/a.Group*a.Stride+i%a.Group*a.HeadDim+d] = true
			want, abs := 0.0, 0.0
			for j := range w {
				p := w[j] / sum * float64(a.V[j*a.KVStride+d])
				want, abs = want+p, abs+math.Abs(p)
			}
			rel := 2 * (2*off + far*u + float64(2*(n/keysOnce+2)+n+3)*u)
			if e := math.Abs(float64(out[d]) - want); e > rel*abs+float64(n)*0x1p-120 || e != e {
				t.Fatalf("%s: %d rows of %d heads of %d, %d keys: head %d [%d]: off by %g, bound %g", name, a.Rows, a.Group, a.HeadDim, n, i, d, e, rel*abs)
			} else if abs > 0x1p-60 {
				*worst = max(*worst, e/(rel*abs))
			}
		}
	}
	for i, v := range a.Out {
		if !seen[i] && v != 12345 {
			t.Fatalf("%s: wrote %x between the heads, at %d", name, v, i)
		}
	}
}

// keysOnce is at most the block of keys of every variant.
const keysOnce = 128

func TestAttendVariants(t *testing.T) {
	variants(t, attendKernel, func(t *testing.T, run func(*Attention)) {
		r := rand.New(rand.NewPCG(61, 62))
		var worst float64
		for i, rows := range []int{1, 2, 3, 5, 13, 32, 67, 130} {
			for k, visible := range []int{1, 2, 31, 127, 128, 129, 300} {
				hd := []int{8, 16, 24, 48, 64, 256, 1, 600}[(i+k)%8]
				a := attendCase(t, r, rows, []int{1, 4, 3}[(i+k)%3], hd, visible)
				run(a)
				a.check(t, "random", &worst)
			}
		}
		t.Logf("worst seen: %.2f of the bound", worst)
	})
}

// TestAttendSpecials: what is not finite shows where it is seen, and only there; large scores lose nothing.
func TestAttendSpecials(t *testing.T) {
	inf := float32(math.Inf(1))
	variants(t, attendKernel, func(t *testing.T, run func(*Attention)) {
		for _, rows := range []int{2, 40} {
			for name, set := range map[string]func(a *Attention, key int){
				"value-inf": func(a *Attention, key int) { a.V[key*a.KVStride] = inf },
				"value-nan": func(a *Attention, key int) { a.V[key*a.KVStride] = float32NaN },
				"key-inf":   func(a *Attention, key int) { a.K[key*a.KVStride] = inf },
				"key-nan":   func(a *Attention, key int) { a.K[key*a.KVStride] = float32NaN },
			} {
				t.Run(fmt.Sprintf("%s/%d", name, rows), func(t *testing.T) {
					a := attendCase(t, rand.New(rand.NewPCG(63, 64)), rows, 4, 16, 100)
					set(a, 100) // the second row is the first to see it
					want := *a
					want.Out = slices.Clone(a.Out)
					attendGo(&want)
					run(a)
					shown := false
					for i := range a.Rows * a.Group {
						_, out, _ := a.head(i)
						_, def, _ := want.head(i) // a score of minus infinity is a weight of 0
						shown = shown || !isFinite(out[0])
						if isFinite(out[0]) != isFinite(def[0]) || i < a.Group && !isFinite(out[0]) {
							t.Fatalf("head %d: %x, by the definition %x", i, out[0], def[0])
						}
					}
					if !shown {
						t.Fatal("it shows nowhere")
					}
				})
			}
			a, worst := attendCase(t, rand.New(rand.NewPCG(65, 66)), rows, 4, 16, 200), 0.0
			for i := range a.Q {
				a.Q[i] *= 300 // scores hundreds apart
			}
			run(a)
			a.check(t, "large scores", &worst)
		}
	})
}

// TestExpSumVariants: each weight within two units and what the difference's rounding brings, or nothing where it is below
// e^-87; the sum of n of them in any order.
func TestExpSumVariants(t *testing.T) {
	variants(t, expSumKernel, func(t *testing.T, run expSumFunc) {
		eachLength(0, func(r *rand.Rand, n, special int) {
			x := vectorCase(t, r, n, 0)
			for i := range x {
				x[i] *= float32(math.Exp(r.NormFloat64() * 2))
			}
			top := float32(0)
			if n > 0 {
				top = slices.Max(x)
			}
			if special > 0 && n > 3 {
				x[n/2] = float32NaN
			}
			in := slices.Clone(x)
			sum, want := run(x, top), 0.0
			for i, v := range in {
				d := float64(v) - float64(top)
				e := math.Exp(d)
				want += e
				if off := math.Abs(float64(x[i]) - e); off > (2+math.Abs(d))*0x1p-23*e+0x1p-125 || (off != off) != (v != v) {
					t.Fatalf("length %d: e^(%x-%x) = %x, want %g", n, v, top, x[i], e)
				}
			}
			if off := math.Abs(float64(sum) - want); off > float64(n+4)*0x1p-22*want || (off != off) != (want != want) {
				t.Fatalf("length %d: sum %x, want %g", n, sum, want)
			}
		})
	})
}

// TestNarrowVariants: every binary16, and the halfway points between them, both ways, bit by bit.
func TestNarrowVariants(t *testing.T) {
	var x []float32
	all := make([]uint16, 1<<16)
	for h := range all {
		all[h] = uint16(h)
		for _, d := range []uint32{0, 0xfff, 0x1000, 0x1001} {
			x = append(x, math.Float32frombits(math.Float32bits(precision.F16ToF32(uint16(h)))+d))
		}
	}
	variants(t, widenF16Kernel, func(t *testing.T, run func([]float32, []uint16)) {
		got := make([]float32, len(all))
		run(got, all)
		for h, v := range got {
			if math.Float32bits(v) != math.Float32bits(precision.F16ToF32(uint16(h))) {
				t.Fatalf("%04x widens to %x", h, v)
			}
		}
		eachLength(0, func(r *rand.Rand, n, _ int) {
			src, dst := guarded[uint16](t, n, true), guarded[float32](t, n, true)
			copy(src, all[15000:])
			run(dst, src)
			for i, v := range dst {
				if v != precision.F16ToF32(src[i]) {
					t.Fatalf("length %d: [%d] = %x", n, i, v)
				}
			}
		})
	})
	variants(t, narrowF16Kernel, func(t *testing.T, run func([]uint16, []float32)) {
		got := make([]uint16, len(x))
		run(got, x)
		for i, h := range got {
			if h != precision.F32ToF16(x[i]) {
				t.Fatalf("%x narrows to %04x, want %04x", x[i], h, precision.F32ToF16(x[i]))
			}
		}
		eachLength(0, func(r *rand.Rand, n, _ int) {
			src, dst := vectorCase(t, r, n, 0), guarded[uint16](t, n, true)
			run(dst, src)
			for i, h := range dst {
				if h != precision.F32ToF16(src[i]) {
					t.Fatalf("length %d: [%d] = %04x", n, i, h)
				}
			}
		})
	})
	for h := range 1 << 16 { // the other grid, which has no variants
		var w [1]float32
		var n [1]uint16
		Widen(precision.BF16, w[:], []uint16{uint16(h)})
		if Narrow(precision.BF16, n[:], w[:]); w[0] != precision.BF16ToF32(uint16(h)) && w[0] == w[0] || n[0] != precision.F32ToBF16(w[0]) {
			t.Fatalf("bf16 %04x: %x, %04x", h, w[0], n[0])
		}
	}
}
