package quant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// testdata is the root of the module's.
func testdata(parts ...string) string {
	return filepath.Join(append([]string{"..", "testdata"}, parts...)...)
}

// open opens a golden set's checkpoint; "opticks-2m" is the demo model.
func open(t testing.TB, set string) *bundle.Checkpoint {
	t.Helper()
	ref := testdata("goldens", set)
	if set == "opticks-2m" {
		ref = ""
	}
	ck, err := bundle.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ck.Close() })
	return ck
}

func readJSON(t testing.TB, v any, parts ...string) {
	t.Helper()
	b, err := os.ReadFile(testdata(parts...))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v: %v", parts, err)
	}
}

// scheme is a named scheme.
func scheme(t testing.TB, name string) *Scheme {
	t.Helper()
	s, ok := Lookup(name)
	if !ok {
		t.Fatalf("no scheme %s", name)
	}
	return s
}

// assigned is a scheme's units for a checkpoint, by the names that the field's tools give them.
func assigned(t testing.TB, ck *bundle.Checkpoint, s *Scheme) (*Assignment, map[string]*unit) {
	t.Helper()
	a, err := s.AssignTo(ck)
	if err != nil {
		t.Fatal(err)
	}
	units, err := a.units(ck)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*unit{}
	for i := range units {
		out[fieldName(units[i].name)] = &units[i]
	}
	return a, out
}

// fieldName is a weight's name in the field's export: experts are one tensor a projection, below switch_mlp.
func fieldName(name string) string {
	if name == "lm_head.weight" {
		return name
	}
	if base, proj, ok := strings.Cut(name, "mlp.experts."); ok {
		name = base + "mlp.switch_mlp." + proj + ".weight"
	}
	return "model." + name
}

// lazily reads a unit as the scheme's view gives it: all parts, row by row.
func (u *unit) lazily(t testing.TB, round precision.Round) []float32 {
	t.Helper()
	var out []float32
	for p := range u.parts {
		m, err := u.matrix(p)
		if err != nil {
			t.Fatal(err)
		}
		if m, err = u.spec.view(m.WithRound(round)); err != nil {
			t.Fatal(err)
		}
		out = append(out, m.Floats()...)
	}
	return out
}

func halves(x []float32) []byte {
	var b []byte
	for _, v := range x {
		h := precision.F32ToF16(v)
		b = append(b, byte(h), byte(h>>8))
	}
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// collect encodes a unit and keeps what a file would hold.
func (u *unit) collect(t testing.TB, threads int) (map[string][]byte, hashes, tally) {
	t.Helper()
	got := map[string][]byte{}
	h, sums, err := u.encode(t.Context(), threads, func(what string, offset int64, p []byte) error {
		if offset != int64(len(got[what])) {
			t.Errorf("%s%s: bytes at %d after %d", u.name, what, offset, len(got[what]))
		}
		got[what] = append(got[what], p...)
		return nil
	}, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	return got, h, sums
}

// f32Matrix is a matrix of float32 as a checkpoint would store it.
func f32Matrix(t testing.TB, rows, cols int, x []float32) *kernels.Matrix {
	t.Helper()
	u := unit{spec: Spec{Format: Stored}, parts: []bundle.Tensor{{DType: bundle.F32}}}
	m, err := kernels.NewMatrix(kernels.F32, rows, cols, u.store(x), precision.F32)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
