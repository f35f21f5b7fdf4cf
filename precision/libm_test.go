package precision

import (
	"hash/fnv"
	"math"
	"testing"
)

// TestLibm holds ExpLibm and LogLibm to glibc 2.36's expf and logf: a checksum over 200,000 arguments, made once by
// calling that library (2,000,000 arguments were compared one by one then, none differed), and single values that the
// nearest float32 gets otherwise.
func TestLibm(t *testing.T) {
	t.Parallel()
	h := fnv.New64a()
	nearest := 0
	for i := range 200000 {
		x := float32(-90 + float64(i)*8.5e-4)
		y := float32(Exp64(float64(x) / 3))
		e, l := ExpLibm(x), LogLibm(y)
		for _, v := range []float32{e, l} {
			b := math.Float32bits(v)
			h.Write([]byte{byte(b), byte(b >> 8), byte(b >> 16), byte(b >> 24)})
		}
		if e == float32(Exp64(float64(x))) && l == float32(Log64(float64(y))) {
			nearest++
		}
	}
	if nearest == 200000 {
		t.Errorf("every value is the nearest float32: that is not libm")
	}
	t.Logf("%d of 200000 argument pairs give the nearest float32", nearest)
	if got := h.Sum64(); got != libmChecksum {
		t.Errorf("checksum %#x, want glibc's %#x", got, uint64(libmChecksum))
	}
}

const libmChecksum = 0xde2916cf2bced40a
