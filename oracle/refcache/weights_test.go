package refcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"sibyl/bundle"
	"sibyl/engine"
)

// modelCopy copies a small checkpoint, with times of change an hour ago.
func modelCopy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	from := filepath.Join("..", "..", "testdata", "goldens", "tiny-asym")
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
		old(t, filepath.Join(dir, name), time.Hour)
	}
	return dir
}

func old(t *testing.T, file string, age time.Duration) {
	t.Helper()
	at := time.Now().Add(-age)
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

// hashed is the hash of a checkpoint by way of a store, and whether its bytes were read for it.
func hashed(t *testing.T, s *Store, dir string) (sum string, read bool) {
	t.Helper()
	c, err := bundle.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sum, err = s.WeightsSHA256(t.Context(), c, func(int64, int64) { read = true })
	if err != nil {
		t.Fatal(err)
	}
	return sum, read
}

// TestWeightsSHA256: weights are read once for each state of the files.
func TestWeightsSHA256(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be edited there")
	}
	model, cache := modelCopy(t), t.TempDir()
	weights := filepath.Join(model, "model.safetensors")
	first, read := hashed(t, open(t, cache, nil), model)
	if !read {
		t.Fatal("a hash from nowhere")
	}
	if sum, read := hashed(t, open(t, cache, nil), model); read || sum != first {
		t.Errorf("again: read %v, %s, want %s from the file", read, sum, first)
	}
	data, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(weights, data, 0o644); err != nil {
		t.Fatal(err)
	}
	changed, read := hashed(t, open(t, cache, nil), model)
	if !read || changed == first {
		t.Errorf("weights of the same size, changed just now: read %v, %s; want another hash", read, changed)
	}
	if _, read := hashed(t, open(t, cache, nil), model); !read {
		t.Error("files changed less than two seconds ago were taken for unchanged")
	}
	old(t, weights, 30*time.Minute)
	if sum, read := hashed(t, open(t, cache, nil), model); !read || sum != changed {
		t.Errorf("another time of change: read %v, %s, want %s", read, sum, changed)
	}
	old(t, weights, 30*time.Minute)

	var warnings []string
	files, _ := filepath.Glob(filepath.Join(cache, "weights-*"))
	for _, f := range files {
		if err := os.WriteFile(f, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old(t, weights, time.Hour)
	if sum, read := hashed(t, open(t, cache, &warnings), model); !read || sum != changed {
		t.Errorf("damaged files: read %v, %s, want %s", read, sum, changed)
	}

	demo, err := bundle.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer demo.Close()
	if _, ok := stamps(demo); ok {
		t.Error("the embedded model has files")
	}
}

// TestNonFinite: weights are scanned once for each hash.
func TestNonFinite(t *testing.T) {
	t.Parallel()
	c, err := bundle.Open(filepath.Join("..", "..", "testdata", "checkpoints", "nonfinite"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want, err := c.NonFinite(context.Background(), nil)
	if err != nil || len(want) == 0 {
		t.Fatalf("%v, %v: the fixture has no NaN", want, err)
	}
	dir := t.TempDir()
	for _, again := range []bool{false, true} {
		read := false
		got, err := open(t, dir, nil).NonFinite(t.Context(), c, "w", func(int64, int64) { read = true })
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || read == again {
			t.Errorf("again %v: read %v, %v, %v, want %v", again, read, got, err, want)
		}
	}
}

// TestNumerics holds the exact engine's logits on the demo model to the hash that belongs to Numerics. If it fails,
// results kept by an earlier sibyl are not this one's: raise Numerics, then put the new hash here.
func TestNumerics(t *testing.T) {
	t.Parallel()
	const numerics, want = 1, "07dec13130d797bd653cc78795ced2b1ebe734de8c11f51ce905fe3c7a93a029"
	e, err := engine.Open(t.Context(), "cpu", engine.Spec{Mode: "exact"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	h := sha256.New()
	err = e.Score(t.Context(), []engine.Prompt{{IDs: []int32{599, 447, 270, 411, 359, 783, 267, 283}}}, engine.Want{Logits: true}, func(p *engine.Position) error {
		_, err := fmt.Fprintf(h, "%d %x\n", p.ID, p.Logits)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want || numerics != Numerics {
		t.Errorf("Numerics is %d and the demo model's exact logits have the hash %s; they were %d and %s", Numerics, got, numerics, want)
	}
}
