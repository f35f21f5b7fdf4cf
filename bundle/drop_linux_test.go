package bundle

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/internal/demo"
)

// TestScansTakeNoRoom: what reads all weights leaves few of their pages in this process.
func TestScansTakeNoRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := fs.ReadFile(demo.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	total := c.Sizes().Total()
	read := 0
	for _, b := range c.maps[0].Bytes() {
		read += int(b)
	}
	if n := resident(t, dir); n < total || read == 0 {
		t.Fatalf("%d bytes resident after reading %d: the test cannot see pages", n, total)
	}
	for name, scan := range map[string]func() error{
		"WeightsSHA256": func() error { _, err := c.WeightsSHA256(t.Context(), nil); return err },
		"NonFinite":     func() error { _, err := c.NonFinite(t.Context(), nil); return err },
	} {
		for _, b := range c.maps[0].Bytes() {
			read += int(b)
		}
		if err := scan(); err != nil {
			t.Fatal(err)
		}
		// Small weights keep what a fault brings in around them.
		if n := resident(t, dir); n > total/4 {
			t.Errorf("%s leaves %d of %d bytes resident", name, n, total)
		}
	}
}

// resident is how much of the files below dir is mapped into this process now.
func resident(t *testing.T, dir string) (n int64) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	within := false
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if head, _, _ := strings.Cut(line, " "); strings.Contains(head, "-") {
			within = strings.Contains(line, dir)
		}
		var kb int64
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &kb); err == nil && within {
			n += kb << 10
		}
	}
	return n
}
