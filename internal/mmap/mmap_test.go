package mmap

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 4095, 4096, 4097} {
		want := bytes.Repeat([]byte{7}, n)
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Bytes(), want) || m.Len() != n {
			t.Errorf("a file of %d bytes maps as %d", n, m.Len())
		}
		for _, a := range []Advice{Normal, Sequential, Random, WillNeed, DontNeed, Forget, Stay} {
			if err := m.Advise(a, n/2, n-n/2); err != nil {
				t.Errorf("Advise(%d) of %d bytes: %v", a, n, err)
			}
		}
		if !bytes.Equal(m.Bytes(), want) {
			t.Errorf("advice changed a file of %d bytes", n)
		}
		for _, r := range [][2]int{{-1, 1}, {0, n + 1}, {n, 1}, {1, -1}} {
			if m.Advise(Normal, r[0], r[1]) == nil {
				t.Errorf("Advise of %d bytes from %d of %d succeeds", r[1], r[0], n)
			}
		}
		for range 2 {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "absent")); !os.IsNotExist(err) {
		t.Errorf("Open of nothing = %v", err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("Open of a folder succeeds")
	}
}

func TestCheckSeesAnotherLength(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, make([]byte, 100), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Check(); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(path, 10); err != nil {
		t.Skip(err) // Windows does not cut a mapped file
	}
	if err := m.Check(); err == nil || !strings.Contains(err.Error(), "had 100 bytes when it was opened and has 10 now") {
		t.Errorf("Check = %v", err)
	}
}

// inMemory is a file that has its bytes already.
type inMemory struct {
	fs.File
	b []byte
}

func (f inMemory) Bytes() []byte { return f.b }

func TestFS(t *testing.T) {
	t.Parallel()
	fsys := fstest.MapFS{"x": {Data: []byte("read")}}
	f, err := fsys.Open("x")
	if err != nil {
		t.Fatal(err)
	}
	m, err := FS(f)
	if err != nil || string(m.Bytes()) != "read" || m.Mapped() {
		t.Errorf("FS of a file without bytes = %q, %v", m.Bytes(), err)
	}
	f, err = fsys.Open("x")
	if err != nil {
		t.Fatal(err)
	}
	own := []byte("own")
	m, err = FS(inMemory{f, own})
	if err != nil || &m.Bytes()[0] != &own[0] {
		t.Errorf("FS copies the bytes of a file that has them (%v)", err)
	}
	if err := m.Advise(WillNeed, 0, 3); err != nil {
		t.Errorf("advice for bytes in memory: %v", err)
	}
}
