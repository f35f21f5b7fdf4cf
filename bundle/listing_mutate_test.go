package bundle

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"sibyl/bundle/aicode"
	"sibyl/internal/mlirb"
)

// TestMutatedListings: what still decodes after bytes outside the blobs were changed is recognised, walked and listed without a
// panic. SIBYL_MUTATIONS=N changes N times.
func TestMutatedListings(t *testing.T) {
	total := 400
	if testing.Short() {
		total = 100
	}
	if n, err := strconv.Atoi(os.Getenv("SIBYL_MUTATIONS")); err == nil {
		total = n
	}
	decoded, listed := 0, 0
	for i, name := range samples(t) {
		data, err := os.ReadFile(filepath.Join(sampleAsset(t, name), "main.mlirb"))
		if err != nil {
			t.Fatal(err)
		}
		f, err := mlirb.Parse(name, data)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(uint64(i), 11))
		for range total / 10 {
			undo := map[int64]byte{}
			for range 1 + r.IntN(2) {
				s := f.Sections[r.IntN(len(f.Sections))]
				if len(s.Data) == 0 || len(s.Data) > len(data)/2 { // the blobs
					continue
				}
				at := s.Offset + r.Int64N(int64(len(s.Data)))
				if _, twice := undo[at]; !twice {
					undo[at] = data[at]
				}
				data[at] = byte(r.Uint32())
			}
			if p, err := aicode.Decode(data, name); err == nil {
				decoded++
				b := &Bundle{Asset: &Asset{Name: name, dir: &folder{label: name}}}
				b.decode.Do(func() { b.program = p })
				if l, err := b.Listing(); err == nil {
					listed++
					l.Totals("main")
					for _, w := range l.Weights {
						_ = w.Name() + w.Parameter()
						l.PerToken(w)
					}
				}
			}
			for at, v := range undo {
				data[at] = v
			}
		}
	}
	t.Logf("of %d, %d decode and %d are listed", total, decoded, listed)
}
