package attention

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sibyl/precision"
)

// TestStore: what is appended comes back rounded to the grid, bit by bit, and takes two bytes a number where the grid is
// one of two bytes; a clone has a life of its own.
func TestStore(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(71, 72))
	for _, grid := range []precision.Round{precision.F32, precision.F16, precision.BF16} {
		c := NewCache(grid)
		var want []float32
		for n := range 40 {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(r.NormFloat64() * math.Exp(8*r.NormFloat64()))
			}
			if n == 20 {
				copy(x, []float32{float32(math.Inf(1)), 0, float32(math.Copysign(0, -1)), 65520, 0x1p-25, 0x1.8p-24, 0x1p-140})
			}
			c.V.Append(x)
			grid.Slice(x)
			want = append(want, x...)
		}
		bits := func(x []float32) (b []uint32) {
			for _, v := range x {
				b = append(b, math.Float32bits(v))
			}
			return b
		}
		if !slices.Equal(bits(c.V.Floats()), bits(want)) {
			t.Errorf("%v: what comes back is not what was appended", grid)
		}
		per := map[precision.Round]int{precision.F32: 4, precision.F16: 2, precision.BF16: 2}[grid]
		if got := c.V.Bytes(); got != per*len(want) {
			t.Errorf("%v: %d numbers take %d bytes, want %d", grid, len(want), got, per*len(want))
		}
		clone := c.Clone()
		clone.V.Append([]float32{1})
		if len(c.V.Floats()) != len(want) || len(clone.V.Floats()) != len(want)+1 {
			t.Errorf("%v: a clone shares its numbers", grid)
		}
		const width, stride = 3, 8 // rows 2.. of a head in the middle
		room := make([]float32, 4*width)
		x, apart := c.V.rows(room, 2*stride+1, 4, width, stride)
		for j := range 4 {
			for d := range width {
				if got := x[j*apart+d]; math.Float32bits(got) != math.Float32bits(want[(2+j)*stride+1+d]) {
					t.Errorf("%v: row %d [%d] is %x", grid, j, d, got)
				}
			}
		}
	}
}
