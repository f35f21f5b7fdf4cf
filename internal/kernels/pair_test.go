//go:build amd64 && !noasm

package kernels

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"unsafe"

	"sibyl/precision"
)

var pairKinds = []kind{{F32, precision.F32}, {F16, precision.F32}, {BF16, precision.F32}, {BF16, precision.F16}}

// TestPairVariant: one token's exact product has the definition's bits where sums are pairs of float32: at every block and rest of
// columns and every rest of rows, with rows that leave their binade beside others that stay, weights that binary16 rounds, flushes to
// zero or makes infinite, and sums half way between two float32.
func TestPairVariant(t *testing.T) {
	if !usable(AVX512) {
		t.Skip(missing(AVX512))
	}
	run := *linearExactKernel.variants[AVX512]
	r := rand.New(rand.NewPCG(5, 8))
	rows := []int{1, 2, 3, 4, 5, 7, 255, 256, 259}
	i := 0
	for _, n := range []int{64, 128, 192, 448, 960, 1024, 1088, 2048, 2112} {
		for _, k := range pairKinds {
			for _, special := range []int{0, 3000, 40} {
				i++
				w := storedMatrix(t, r, k, rows[i%len(rows)], n, special)
				for o := range w.Rows {
					if r.IntN(8) == 0 {
						scaleRow(w, o, r.IntN(40)-28)
					}
				}
				if w.pair() == nil {
					t.Fatalf("%v: no pairs", w.Format)
				}
				x := guarded[float32](t, n, i%2 == 0)
				fill(r, x, special*4)
				switch i % 5 {
				case 0:
					precision.RoundF16(x)
				case 1: // of one size: sums that few bits hold
					for j := range x {
						x[j] = float32(r.IntN(9) - 4)
					}
				case 2:
					x[r.IntN(n)] *= 0x1p20
				}
				c := newLinearCase(w, x, 1)
				for o, got := range c.run(t, run) {
					if !same(got, c.want[o]) {
						t.Fatalf("%v: [%d] = %x, want %x", c, o, got, c.want[o])
					}
				}
			}
		}
	}
}

// scaleRow multiplies what row o of a plain matrix stores by 2^e.
func scaleRow(w *Matrix, o, e int) {
	row := make([]float32, w.Cols)
	plain := *w
	plain.Round = precision.F32
	plain.Row(row, o)
	for i := range row {
		row[i] = float32(math.Ldexp(float64(row[i]), e))
	}
	copy(w.Data[o*len(w.Data)/w.Rows:], stored(w.Format, row))
}

// TestPairBound: whatever binade h begins in, a row's sum lies within pairBound of the exact one or is none. Worst seen: 0.007 of
// it, since it adds up what every rounding could lose.
func TestPairBound(t *testing.T) {
	if !usable(AVX512) {
		t.Skip(missing(AVX512))
	}
	r := rand.New(rand.NewPCG(6, 8))
	for _, n := range []int{64, 1024, 1152, 3072} {
		for _, kd := range pairKinds {
			t.Run(fmt.Sprintf("%v/%v/%d", kd.f, kd.round, n), func(t *testing.T) {
				const rows = 9
				w := storedMatrix(t, r, kd, rows, n, 0)
				for o := range rows { // some need no rounding, some are above the grid
					scaleRow(w, o, -3*o)
				}
				x := guarded[float32](t, n, true)
				fill(r, x, 0)
				exact := make([]*big.Float, rows)
				held := w.Floats()
				for o := range exact {
					exact[o] = new(big.Float).SetPrec(600)
					for i, v := range held[o*n:][:n] {
						exact[o].Add(exact[o], new(big.Float).SetPrec(600).SetFloat64(float64(v)*float64(x[i])))
					}
				}
				k := w.pair()
				y := x
				if k.order {
					y = make([]float32, n)
					ordered(y, x)
				}
				var worst float64
				stayed, left := 0, 0
				for e := -30; e < 24; e++ {
					begin, sums := float32(math.Ldexp(1.5, e)), guarded[float64](t, rows, true)
					var a rowsArgs
					a.point(w, 0, 0, n)
					a.rows, a.x, a.dst, a.table = rows, unsafe.Pointer(&y[0]), unsafe.Pointer(&sums[0]), unsafe.Pointer(&begin)
					a.call(k.run)
					for o, s := range sums {
						if s != s {
							left++
							continue
						}
						stayed++
						d, _ := new(big.Float).Sub(big.NewFloat(s), exact[o]).Float64()
						if worst = max(worst, math.Abs(d)/pairBound(n, e)); worst > 1 {
							t.Fatalf("h from 1.5*2^%d: row %d is %v, %g off, which is %.2f of the bound", e, o, s, d, worst)
						}
					}
				}
				if stayed < rows*8 || left < rows*8 {
					t.Errorf("%d sums stayed, %d left: not both are tried", stayed, left)
				}
				t.Logf("worst seen: %.3f of the bound; %d of %d stayed", worst, stayed, stayed+left)
			})
		}
	}
}

// TestPairLeaves: what pairs cannot hold is no sum: infinities and NaN, sums that leave their binade on either side and come
// back, and weights that binary16 makes infinite even where x is zero.
func TestPairLeaves(t *testing.T) {
	if !usable(AVX512) {
		t.Skip(missing(AVX512))
	}
	inf := float32(math.Inf(1))
	for _, tt := range []struct {
		name   string
		k      kind
		w, x   []float32 // a lane's first products; the others are 0
		leaves bool
	}{
		{"inside", kind{BF16, precision.F32}, []float32{0.25, 0.25}, []float32{1, -1}, false},
		{"above and back", kind{BF16, precision.F32}, []float32{0.75, -0.75}, []float32{1, 1}, true},
		{"below and back", kind{F32, precision.F32}, []float32{-0.75, 0.75}, []float32{1, 1}, true},
		{"negative and back", kind{F16, precision.F32}, []float32{-4, 4}, []float32{1, 1}, true},
		{"infinite", kind{BF16, precision.F32}, []float32{inf}, []float32{1}, true},
		{"infinity times nothing", kind{F32, precision.F32}, []float32{inf}, []float32{0}, true},
		{"NaN", kind{F16, precision.F32}, []float32{float32(math.NaN())}, []float32{0}, true},
		{"beyond binary16", kind{BF16, precision.F16}, []float32{65536}, []float32{0}, true},
		{"within binary16", kind{BF16, precision.F16}, []float32{0x1p-18, 1}, []float32{0x1p-3, 0.25}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const n = 1024
			w, x := make([]float32, n), make([]float32, n)
			for i := range tt.w {
				w[64*i], x[64*i] = tt.w[i], tt.x[i] // both in lane 0, ordered or not
			}
			m, err := NewMatrix(tt.k.f, 1, n, stored(tt.k.f, w), tt.k.round)
			if err != nil {
				t.Fatal(err)
			}
			begin, sum := float32(1.5), 0.0
			var a rowsArgs
			a.point(m, 0, 0, n)
			a.rows, a.x, a.dst, a.table = 1, unsafe.Pointer(&x[0]), unsafe.Pointer(&sum), unsafe.Pointer(&begin)
			a.call(m.pair().run)
			if left := sum != sum; left != tt.leaves {
				t.Errorf("the sum is %v", sum)
			}
		})
	}
}
