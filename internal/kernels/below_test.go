//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"

	"sibyl/precision"
)

// exactBelowPlain says it with integers: x in units of 2^-24.
func exactBelowPlain(x []float32) float64 {
	var all uint64
	for _, v := range x {
		s := math.Abs(float64(v)) * 0x1p24
		i := uint64(s)
		if !(s < 0x1p62) || float64(i) != s {
			return 0
		}
		all |= i
	}
	if all == 0 {
		return 0
	}
	return math.Ldexp(1, 53-24-24+bits.TrailingZeros64(all))
}

// TestExactBelow: on and off the grid, at its ends, and of what is no number.
func TestExactBelow(t *testing.T) {
	edges := []float32{0, float32(math.Copysign(0, -1)), 0x1p-24, 0x1p-25, 0x1.8p-24, 65504, 0x1p37, 0x1.fffffep37, 0x1p38, 0x1p-126, 0x1p-149,
		float32(math.Inf(1)), float32(math.Inf(-1)), float32NaN}
	r := rand.New(rand.NewPCG(53, 1))
	for i := range 20000 {
		x := make([]float32, 1+i%5)
		for j := range x {
			switch r.IntN(4) {
			case 0:
				x[j] = edges[r.IntN(len(edges))]
			case 1:
				x[j] = math.Float32frombits(r.Uint32())
			case 2:
				x[j] = precision.F16ToF32(uint16(r.Uint32()))
			case 3:
				x[j] = float32(r.IntN(1<<24)-1<<23) * float32(math.Ldexp(1, r.IntN(20)-26))
			}
		}
		if got, want := exactBelow(x), exactBelowPlain(x); got != want {
			t.Fatalf("%x: %g, want %g", x, got, want)
		}
	}
}
