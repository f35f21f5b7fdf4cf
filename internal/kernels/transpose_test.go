//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestTranspose: every size around the blocks of 8 and 16, rows apart by more than their length, in guarded memory that is off
// every line; nothing beside the result is written.
func TestTranspose(t *testing.T) {
	t.Parallel()
	for name, turn := range turns {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(91, 92))
			for _, rows := range []int{1, 7, 8, 15, 16, 17, 31, 48} {
				for _, cols := range []int{1, 8, 15, 16, 17, 33, 128} {
					for _, apart := range []int{0, 3} {
						lds, ldd := cols+apart, rows+apart
						src, dst := guarded[float32](t, (rows-1)*lds+cols, r.IntN(2) == 0), guarded[float32](t, (cols-1)*ldd+rows, r.IntN(2) == 0)
						fill(r, src, 20)
						for i := range dst {
							dst[i] = 12345
						}
						turn.transpose(dst, ldd, src, lds, rows, cols)
						what := fmt.Sprintf("[%d, %d], %d apart", rows, cols, apart)
						for i, got := range dst {
							want, c, k := float32(12345), i/ldd, i%ldd
							if k < rows {
								want = src[k*lds+c]
							}
							if !same(got, want) {
								t.Fatalf("%s: [%d, %d] = %x, want %x", what, c, k, got, want)
							}
						}
					}
				}
			}
		})
	}
}
