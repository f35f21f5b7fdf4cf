//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"math"
	"math/rand/v2"
	"testing"

	"sibyl/precision"
)

// TestSumProducts: one rounding of the exact sum, where products cancel, sums lie half way between two float32, or are not finite.
func TestSumProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(51, 1))
	for n := 1; n < 200; n++ {
		for kind := range 5 {
			a, b := make([]float32, n), make([]float32, n)
			for i := range a {
				a[i], b[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
				switch kind {
				case 1: // they cancel but for what the last bits make
					if i%2 == 1 {
						a[i], b[i] = -a[i-1], math.Nextafter32(b[i-1], 9)
					}
				case 2: // few bits: half way between two
					a[i], b[i] = float32(r.IntN(1<<12))*0x1p-3, float32(r.IntN(1<<13))
				case 3:
					a[i] *= float32(math.Ldexp(1, r.IntN(200)-100))
				case 4:
					if r.IntN(n) == 0 {
						a[i] = []float32{float32(math.Inf(1)), float32(math.Inf(-1)), float32NaN, 0, float32(math.Copysign(0, -1))}[r.IntN(5)]
					}
				}
			}
			var sq [2]float64
			for i := range a {
				sq[0] += float64(a[i]) * float64(a[i])
				sq[1] += float64(b[i]) * float64(b[i])
			}
			got := sumProducts(a, b, norm(sq[0])*norm(sq[1]))
			want := precision.SumTerms(n, func(i int) float64 { return float64(a[i]) * float64(b[i]) }, 1)
			if !same(got, want) {
				t.Fatalf("%d products of kind %d: %x, want %x", n, kind, got, want)
			}
		}
	}
}

// TestStripeRow: the row that a second look has is the row as it is stored, in every form and tail.
func TestStripeRow(t *testing.T) {
	r := rand.New(rand.NewPCG(52, 1))
	for _, n := range []int{1, 2, 16, 31, 32, 100, 288, 300} {
		for _, k := range kinds() {
			if k.f > I8Block && n%2 != 0 {
				continue
			}
			w := storedMatrix(t, r, k, 5, n, 0)
			eachExactTiling(func(g *tiling[float64]) {
				s := g.newStripe(w, g.lanes)
				defer s.free()
				s.start(1, 4)
				got, want := guarded[float32](t, n, true), make([]float32, n)
				for i := range 4 {
					s.row(got, i)
					w.Row(want, 1+i)
					for j := range want {
						if !same(got[j], want[j]) {
							t.Fatalf("%v read as %v, %d columns: row %d, [%d] = %x, want %x", k.f, k.round, n, 1+i, j, got[j], want[j])
						}
					}
				}
			})
		}
	}
}
