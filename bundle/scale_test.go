package bundle

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"sibyl/config"
)

// sparse27B writes a checkpoint of the 27B's shape as files without blocks: headers are real, weights are holes.
func sparse27B(tb testing.TB, dir string) (bytes int64) {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("..", "config", "testdata", "27b.json"))
	if err != nil {
		tb.Fatal(err)
	}
	cfg, err := config.Parse("27b.json", text)
	if err != nil {
		tb.Fatal(err)
	}
	entries := map[string]any{}
	add := func(name string, shape []int) {
		n := int64(2)
		for _, d := range shape {
			n *= int64(d)
		}
		entries[name] = map[string]any{"dtype": "BF16", "shape": shape, "data_offsets": []int64{bytes, bytes + n}}
		bytes += n
	}
	for _, r := range []config.Role{config.Embed, config.FinalNorm} {
		add("model.language_model."+r.Name(0), r.Shape(cfg))
	}
	add("lm_head.weight", config.Head.Shape(cfg))
	for l, kind := range cfg.Layers {
		for _, r := range cfg.LayerRoles(kind) {
			add("model.language_model."+r.Name(l), r.Shape(cfg))
		}
	}
	header, err := json.Marshal(entries)
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, "model.safetensors")
	if err := os.WriteFile(path, append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), 0o644); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(path, 8+int64(len(header))+bytes); err != nil {
		tb.Skip("needs a file system with sparse files: ", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644); err != nil {
		tb.Fatal(err)
	}
	return bytes
}

// TestOpen27B: 54 GB open without reading a weight: allocations are those of the header. Not parallel, because
// TotalAlloc counts the whole process. The time is reported; its bound only catches a read of the weights.
func TestOpen27B(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("needs sparse files")
	}
	dir := t.TempDir()
	size := sparse27B(t, dir)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	c, err := open(dir, noEnv)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	used := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d bytes of weights: %v, %d bytes allocated in all", size, took.Round(time.Millisecond), used)
	if used > 8<<20 || took > 2*time.Second {
		t.Errorf("opening %d bytes took %v and allocated %d bytes, want at most 2 s and 8 MB", size, took, used)
	}
	if got := c.Sizes().Total(); got != size || size < 53e9 {
		t.Errorf("Sizes().Total() = %d, want %d, above 53 GB", got, size)
	}
}

func BenchmarkOpen27B(b *testing.B) {
	dir := b.TempDir()
	sparse27B(b, dir)
	b.ReportAllocs()
	for b.Loop() {
		c, err := open(dir, noEnv)
		if err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
}
