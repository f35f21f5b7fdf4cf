//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"math/rand/v2"
	"testing"
)

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
