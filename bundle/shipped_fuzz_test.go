package bundle

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"sibyl/bundle/aicode"
	"sibyl/internal/inputerr"
)

// programs are the samples' main.mlirb.
func programs(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range samples(t) {
		data, err := os.ReadFile(filepath.Join(sampleAsset(t, name), mainFile))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = data
	}
	return out
}

// read opens a program as a model without its hash. It must not panic, and what it refuses it refuses as bad input.
func read(t *testing.T, data []byte) {
	t.Helper()
	files := map[string]string{metadataFile: `{"assetVersion": "2.0"}`, mainFile: string(data)}
	b, err := openBundleIn(context.Background(), &folder{fsys: mapFS(files), label: "x.aimodel"}, "x.aimodel", BundleOptions{SkipHash: true})
	var in *inputerr.Error
	if err == nil {
		defer func() { _ = b.Close() }()
		_, err = b.Weights()
	}
	if err == nil {
		for _, function := range []string{"main", "prefill"} {
			if r, err := b.Roles(function); err == nil && len(r.Uses) == 0 {
				t.Errorf("%s: no weight is recovered and nothing is said", function)
			}
		}
		return
	}
	if !errors.As(err, &in) {
		t.Errorf("%T is no *inputerr.Error: %v", err, err)
	}
}

// damage changes a few bytes in front of the blobs, where operations, types and small constants are.
func damage(r *rand.Rand, data []byte) []byte {
	out := append([]byte(nil), data...)
	n := len(out)
	if p, err := aicode.Decode(out, "x"); err == nil {
		for _, res := range p.Resources {
			n = min(n, int(res.Offset))
		}
	}
	for range 1 + r.IntN(3) {
		at := r.IntN(n)
		switch r.IntN(3) {
		case 0:
			out[at] ^= 1 << r.IntN(8)
		case 1:
			out[at] = byte(r.Uint32())
		default:
			out[at] += byte(2 * (r.IntN(3) - 1)) // an index of another value, of the same width
		}
	}
	return out
}

// TestDamagedPrograms: programs whose operations, operands and constants were changed are refused or read, and cost no more
// memory than a sound one.
func TestDamagedPrograms(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 6
	}
	for name, data := range programs(t) {
		r := rand.New(rand.NewPCG(1, uint64(len(data))))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read(t, data)
		runtime.ReadMemStats(&after)
		sound := after.TotalAlloc - before.TotalAlloc
		for range rounds {
			bad := damage(r, data)
			runtime.ReadMemStats(&before)
			read(t, bad)
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > 2*sound+uint64(2*len(data)) {
				t.Errorf("%s: a damaged program takes %d bytes, a sound one of %d bytes %d", name, used, len(data), sound)
			}
		}
	}
}

// FuzzShipped: no panic whatever the program is.
func FuzzShipped(f *testing.F) {
	all := programs(f)
	names := samples(f)
	f.Add(uint64(0), uint8(0))
	f.Add(uint64(12345), uint8(5))
	f.Fuzz(func(t *testing.T, seed uint64, which uint8) {
		r := rand.New(rand.NewPCG(seed, uint64(which)))
		read(t, damage(r, all[names[int(which)%len(names)]]))
	})
}

// rewire changes one operation of main in a decoded program: another operand, one less, a result of another type.
func rewire(r *rand.Rand, p *aicode.Program) {
	ops := p.Graph("main").Body.Ops
	op := ops[r.IntN(len(ops))]
	drop := func(v *aicode.Value) {
		for i, u := range v.Users {
			if u == op {
				v.Users = append(v.Users[:i:i], v.Users[i+1:]...)
				return
			}
		}
	}
	other := ops[r.IntN(len(ops))]
	switch n := len(op.Operands); {
	case n > 0 && r.IntN(8) == 0:
		drop(op.Operands[n-1])
		op.Operands = op.Operands[:n-1]
	case n > 0 && len(other.Results) > 0 && r.IntN(3) > 0:
		i := r.IntN(n)
		drop(op.Operands[i])
		op.Operands[i] = other.Results[0]
		other.Results[0].Users = append(other.Results[0].Users, op)
	case len(op.Results) > 0 && len(other.Results) > 0:
		op.Results[0].Type = other.Results[0].Type
	}
}

// TestRewiredPrograms: graphs whose operations were changed at random are read or refused, function by function.
func TestRewiredPrograms(t *testing.T) {
	t.Parallel()
	rounds := 60
	if testing.Short() {
		rounds = 8
	}
	for name, data := range programs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(2, uint64(len(data))))
			for range rounds {
				p, err := aicode.Decode(data, "x")
				if err != nil {
					t.Fatal(err)
				}
				for range 1 + r.IntN(4) {
					rewire(r, p)
				}
				b := openSample(t, sampleAsset(t, name))
				b.decode.Do(func() { b.program = p })
				var in *inputerr.Error
				if _, err := b.Weights(); err != nil && !errors.As(err, &in) {
					t.Errorf("%T is no *inputerr.Error: %v", err, err)
				}
				if _, err := b.shipped(true); err != nil && !errors.As(err, &in) {
					t.Errorf("%T is no *inputerr.Error: %v", err, err)
				}
			}
		})
	}
}
