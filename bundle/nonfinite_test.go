package bundle

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/x448/float16"
)

// TestCountNonFinite takes every 16-bit value, alone in each lane of a word of otherwise finite neighbours that
// make borrows likely, and a sample of 32-bit ones around the border.
func TestCountNonFinite(t *testing.T) {
	t.Parallel()
	is := map[DType]func(uint16) float64{
		BF16: func(u uint16) float64 { return float64(math.Float32frombits(uint32(u) << 16)) },
		F16:  func(u uint16) float64 { return float64(float16.Frombits(u).Float32()) },
	}
	for dtype, value := range is {
		for u := range 1 << 16 {
			x := value(uint16(u))
			for lane := range 5 { // the fifth stands in a tail shorter than a word
				b := make([]byte, 10)
				for i := range 5 {
					binary.LittleEndian.PutUint16(b[2*i:], 1)
				}
				binary.LittleEndian.PutUint16(b[2*lane:], uint16(u))
				nan, inf := countNonFinite(b, dtype)
				if (nan == 1) != math.IsNaN(x) || (inf == 1) != math.IsInf(x, 0) || nan+inf > 1 {
					t.Fatalf("%s 0x%04x in lane %d: %d NaN, %d Inf, want those of %v", dtype, u, lane, nan, inf, x)
				}
			}
		}
	}
	for _, u := range []uint32{0, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fffffff, 0xff7fffff, 0xff800000, 0xffc00000, 0x80000000, 1} {
		for lane := range 3 {
			b := make([]byte, 12)
			binary.LittleEndian.PutUint32(b[4*lane:], u)
			x := float64(math.Float32frombits(u))
			nan, inf := countNonFinite(b, F32)
			if (nan == 1) != math.IsNaN(x) || (inf == 1) != math.IsInf(x, 0) || nan+inf > 1 {
				t.Errorf("F32 0x%08x in lane %d: %d NaN, %d Inf, want those of %v", u, lane, nan, inf, x)
			}
		}
	}
}

func BenchmarkCountNonFinite(b *testing.B) {
	data := make([]byte, 64<<20)
	for i := range data {
		data[i] = 0x3f
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		countNonFinite(data, BF16)
	}
}
