package aicode

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"

	"sibyl/internal/mlirb"
)

// span is bytes of a file.
type span struct{ off, size int64 }

// spots are the stretches of a file that hold no blob: what a reader interprets.
func spots(t testing.TB, b []byte) []span {
	t.Helper()
	f, err := mlirb.Parse("sample", b)
	if err != nil {
		t.Fatal(err)
	}
	list := []span{{0, 32}}
	for _, s := range f.Sections {
		if len(s.Data) > 0 && len(s.Data) < len(b)/2 {
			list = append(list, span{s.Offset - 8, int64(len(s.Data)) + 8})
		}
	}
	for _, r := range f.Resources {
		list = append(list, span{r.Offset - 8, 8})
	}
	return list
}

// mutate changes b and gives what to decode and how to undo it.
func mutate(r *rand.Rand, b []byte, spots []span) (in []byte, undo func()) {
	type edit struct {
		at  int64
		old byte
	}
	var edits []edit
	set := func(at int64, v byte) {
		if at >= 0 && at < int64(len(b)) {
			edits = append(edits, edit{at, b[at]})
			b[at] = v
		}
	}
	in = b
	s := spots[r.IntN(len(spots))]
	at := s.off + r.Int64N(s.size)
	switch r.IntN(8) {
	case 0: // cut
		in = b[:r.IntN(len(b))]
	case 1: // a count becomes 2^63 and more
		for i, v := range binary.LittleEndian.AppendUint64([]byte{0}, r.Uint64()) {
			set(at+int64(i), v)
		}
	case 2: // a count of one byte becomes the largest of its length
		set(at, 0xff)
	case 3: // the largest of two bytes
		set(at, 0xfe)
		set(at+1, 0xff)
	case 4: // bytes of one place stand at another
		o := spots[r.IntN(len(spots))]
		from := o.off + r.Int64N(o.size)
		for i := range r.Int64N(16) {
			if from+i >= 0 && from+i < int64(len(b)) {
				set(at+i, b[from+i])
			}
		}
	default:
		set(at, byte(r.Uint32()))
		for range r.IntN(3) {
			o := spots[r.IntN(len(spots))]
			set(o.off+r.Int64N(o.size), byte(r.Uint32()))
		}
	}
	return in, func() {
		for i := len(edits) - 1; i >= 0; i-- {
			b[edits[i].at] = edits[i].old
		}
	}
}

// allocated is how many bytes the process has allocated so far.
func allocated() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// TestMutations decodes damaged samples: bytes flipped, files cut, counts inflated. None panics, none takes long, and all
// that one allocates, garbage included, stays below twice the file and 1 MiB. (A sound tiny-moe-apple-q35 is 1.6 MB, of which
// most is 10,000 operations; it allocates 3.3 MB, and 2.7 of them stay.)
// SIBYL_MUTATIONS=1000000 runs that many.
func TestMutations(t *testing.T) {
	total := 3000
	if testing.Short() {
		total = 500
	}
	if n, err := strconv.Atoi(os.Getenv("SIBYL_MUTATIONS")); err == nil {
		total = n
	}
	files, err := filepath.Glob("../../testdata/bundles/*/*.aimodel/main.mlirb")
	if err != nil || len(files) == 0 {
		t.Fatal("no samples", err)
	}
	var accepted, n int
	var worst float64
	var slowest time.Duration
	for i, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at := spots(t, b)
		r := rand.New(rand.NewPCG(uint64(i), 7))
		for range total / len(files) {
			in, undo := mutate(r, b, at)
			before, start := allocated(), time.Now()
			p, err := Decode(in, "mutated")
			took, used := time.Since(start), allocated()-before
			if err == nil && p == nil {
				t.Fatalf("%s: neither a program nor an error", file)
			}
			if err == nil {
				accepted++
			}
			undo()
			n++
			slowest = max(slowest, took)
			worst = max(worst, float64(used)/float64(len(b)))
			if used > 2*int64(len(b))+1<<20 || took > 5*time.Second {
				t.Errorf("%s: mutation %d: %d bytes allocated, %v", file, n, used, took)
			}
		}
	}
	t.Logf("%d mutations, %d still decode; at most %.2f times the file allocated, at most %v", n, accepted, worst, slowest)
}
