//go:build amd64 && !noasm

package kernels

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"sibyl/precision"
)

var pairBlockKinds = []kind{{I8Block, precision.F32}, {I8Block, precision.F16}, {I4Block, precision.F32}, {I4Block, precision.F16}, {U4Minval, precision.BF16}}

// TestPairBlockVariant: one token's exact product with quantized rows has the definition's bits where sums are pairs of float32: at
// every block and rest of columns and every rest of rows, with scales that are not quick beside others, sums half way between two float32,
// x of one size, with an outlier, large, subnormal, zero, infinite or NaN.
func TestPairBlockVariant(t *testing.T) {
	if !usable(AVX512) {
		t.Skip(missing(AVX512))
	}
	run := *linearExactKernel.variants[AVX512]
	r := rand.New(rand.NewPCG(7, 8))
	rows := []int{1, 2, 3, 4, 5, 7, 33, 67}
	i := 0
	for _, n := range []int{32, 64, 96, 128, 160, 992, 1024, 1056, 1120, 2016, 2048, 2144} {
		for _, k := range pairBlockKinds {
			for _, special := range []int{0, 3000, 40} {
				i++
				w := storedMatrix(t, r, k, rows[i%len(rows)], n, special)
				if w.pairBlocks() == nil {
					t.Fatalf("%v: no pairs", w.Format)
				}
				x := guarded[float32](t, n, i%2 == 0)
				fill(r, x, special*4)
				switch i % 9 {
				case 0:
					precision.RoundF16(x)
				case 1: // of one size: sums that few bits hold
					for j := range x {
						x[j] = float32(r.IntN(9) - 4)
					}
				case 2:
					x[r.IntN(n)] *= 0x1p20
				case 3:
					for j := range x {
						x[j] *= 0x1p100
					}
				case 4:
					for j := range x {
						x[j] *= 0x1p-130
					}
				case 5:
					clear(x)
				case 6:
					x[r.IntN(n)] = specials[r.IntN(len(specials))]
				}
				c := newLinearCase(w, x, 1)
				for o, got := range c.run(t, run) {
					if !same(got, c.want[o]) {
						t.Fatalf("%v, case %d: [%d] = %x, want %x", c, i, o, got, c.want[o])
					}
				}
			}
		}
	}
}

// TestPairBlockBound: in the binade that scales and x give, or a wider one, a row's sum lies within pairBlockBound of the exact one,
// also where all products have one sign and the largest size there is, so that h comes as near to the ends of its binade as it can.
func TestPairBlockBound(t *testing.T) {
	if !usable(AVX512) {
		t.Skip(missing(AVX512))
	}
	r := rand.New(rand.NewPCG(8, 8))
	for _, n := range []int{32, 96, 992, 1024, 1152, 3072} {
		for _, kd := range []kind{{I8Block, precision.F32}, {I4Block, precision.F32}, {U4Minval, precision.BF16}} {
			for _, one := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v/%d/one=%v", kd.f, n, one), func(t *testing.T) {
					const rows = 9
					w := storedMatrix(t, r, kd, rows, n, 0)
					x := guarded[float32](t, n, true)
					fill(r, x, 0)
					if one { // the largest q with one scale throughout
						for i := range w.Data {
							w.Data[i] = map[Format]byte{I8Block: 127, I4Block: 0x77, U4Minval: 0xff}[kd.f]
						}
						for i := range w.Blocks.Scale {
							w.Blocks.Scale[i] = w.Blocks.Scale[i%2]
						}
						for i := range w.Blocks.Min {
							w.Blocks.Min[i] = w.Blocks.Scale[i%2]
						}
						for i := range x {
							x[i] = 1 + float32(r.IntN(1<<20))*0x1p-23
						}
					}
					k := w.pairBlocks()
					q := &pairBlockProduct{k: k, w: w, x: x}
					if k.order != nil {
						q.x = make([]float32, n)
						k.order(q.x, x)
					}
					q.lane = pairLanes(q.x)
					places := rows*n/32 + 16
					at := pairBlockRows{pairBlockProduct: q, scales: quickRows{scale: make([]float32, places), low: make([]float32, places), off: make([]float32, places)}}
					_, most := k.prepare(&at.scales, w.Blocks.Scale, w.Blocks.Min)
					e := q.binade(k.largest(&at.scales, most))
					held := w.Floats()
					exact := make([]*big.Float, rows)
					for o := range exact {
						exact[o] = new(big.Float).SetPrec(600)
						for i, v := range held[o*n:][:n] {
							exact[o].Add(exact[o], new(big.Float).SetPrec(600).SetFloat64(float64(v)*float64(x[i])))
						}
					}
					var worst float64
					for wider := range 24 {
						sums := guarded[float64](t, rows, true)
						at.sums(sums, 0, e+wider)
						for o, s := range sums {
							d, _ := new(big.Float).Sub(big.NewFloat(s), exact[o]).Float64()
							if worst = max(worst, math.Abs(d)/pairBlockBound(n, e+wider)); !(worst <= 1) {
								t.Fatalf("h from 1.5*2^%d: row %d is %v, %g off, which is %.2f of the bound", e+wider, o, s, d, worst)
							}
						}
					}
					t.Logf("worst seen: %.4f of the bound", worst)
				})
			}
		}
	}
}
