//go:build !noasm

package kernels

import (
	"math"
	"math/rand/v2"
	"testing"

	"sibyl/precision"
)

// TestTapsExact: the bits of the definition, where a sum is half way between two float32, loses bits, is a zero or not finite.
func TestTapsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(54, 1))
	specials := []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), float32NaN, 0x1p-149, math.MaxFloat32}
	for range 100000 {
		var a, b [tapsSIMD]float32
		kind := r.IntN(3)
		for _, x := range []*[tapsSIMD]float32{&a, &b} {
			for j := range x {
				x[j] = precision.F16ToF32(uint16(r.Uint32()))
				switch {
				case kind == 1:
					x[j] = math.Float32frombits(r.Uint32())
				case kind == 2 && r.IntN(3) == 0:
					x[j] = specials[r.IntN(len(specials))]
				}
			}
		}
		if got, want := tapsExact(&a, &b), dotExactGo(a[:], b[:]); !same(got, want) {
			t.Fatalf("%x, %x: %x, want %x", a, b, got, want)
		}
	}
}
