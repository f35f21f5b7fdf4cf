//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// exactSum is the sum of w*x, exact.
func exactSum(w, x []float32) *big.Float {
	sum := new(big.Float).SetPrec(700)
	for i, v := range w {
		sum.Add(sum, new(big.Float).SetPrec(700).Mul(big.NewFloat(float64(v)), big.NewFloat(float64(x[i]))))
	}
	return sum
}

// TestCompensated: the sum lies within its bound of the exact one, which says more than float64 does, between guard pages and where
// nearly all of it cancels.
func TestCompensated(t *testing.T) {
	r := rand.New(rand.NewPCG(78, 1))
	variants(t, compensatedKernel, func(t *testing.T, run compensatedFunc) {
		for n := range 200 {
			w, x := guarded[float32](t, n, n%2 == 0), guarded[float32](t, n, n%3 == 0)
			fill(r, w, 0)
			fill(r, x, 0)
			for i := n / 2; i+1 < n && n%4 == 1; i += 2 {
				w[i+1], x[i+1] = -w[i], x[i]
			}
			sum, bound := run(w, x)
			var most float64
			for i, v := range w {
				most += math.Abs(float64(v) * float64(x[i]))
			}
			off, _ := new(big.Float).Sub(exactSum(w, x), big.NewFloat(sum)).Float64()
			if math.Abs(off) > bound {
				t.Fatalf("%d products: %g off by %g, and bound by %g", n, sum, off, bound)
			}
			if bound > math.Abs(sum)*0x1p-50+most*0x1p-85 {
				t.Fatalf("%d products of magnitude %g: the bound of %g is %g, which is no better than float64", n, most, sum, bound)
			}
		}
	})
}

// TestDecide: sums near a tie, on one, of zeros and with what is no number are those of term by term.
func TestDecide(t *testing.T) {
	r := rand.New(rand.NewPCG(78, 2))
	variants(t, compensatedKernel, func(t *testing.T, run compensatedFunc) {
		was := compensatedKernel.run
		compensatedKernel.run = run
		defer func() { compensatedKernel.run = was }()
		for i := range 3000 {
			n := 1 + r.IntN(70)
			w, x := make([]float32, n), make([]float32, n)
			fill(r, w, 0)
			fill(r, x, 0)
			for j := range w { // short numbers, whose sums are often ties
				if i%3 == 0 {
					w[j], x[j] = float32(r.IntN(1<<13)), float32(r.IntN(1<<12)-1<<11)
				}
			}
			switch i % 7 {
			case 1: // one number and half a unit of its last place, less or more a little
				clear(x)
				x[0], w[0] = 1, 1+float32(r.IntN(9))*0x1p-20
				x[n-1], w[n-1] = x[n-1]+0x1p-12, 0x1p-12
				x[n/2] += float32(r.IntN(3)-1) * 0x1p-100
			case 2:
				clear(x)
			case 3:
				x[r.IntN(n)] = []float32{float32(math.Inf(1)), float32(math.NaN()), math.MaxFloat32, 0x1p-149}[r.IntN(4)]
			}
			if got, want := decide(w, x), dotExactGo(w, x); !same(got, want) {
				t.Fatalf("%d products: %x decided, %x term by term\n%v\n%v", n, got, want, w, x)
			}
		}
	})
}

// FuzzDecide: any bytes.
func FuzzDecide(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 128, 191}, []byte{0, 0, 128, 63})
	f.Add([]byte{0, 0, 128, 63, 0, 0, 128, 51, 1, 0, 0, 0}, []byte{0, 0, 128, 63, 0, 0, 128, 63})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		w, x := floats(a), floats(b)
		if len(x) == 0 || len(w) > 4096 {
			return
		}
		for len(x) < len(w) {
			x = append(x, x...)
		}
		if got, want := decide(w, x), dotExactGo(w, x); !same(got, want) {
			t.Fatalf("%x decided, %x term by term", got, want)
		}
	})
}
