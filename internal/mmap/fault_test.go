//go:build linux

package mmap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sibyl/internal/inputerr"
)

// sum reads b, as who catches faults does.
func sum(b []byte) (n int, err error) {
	defer Catch(&err)()
	for _, x := range b {
		n += int(x)
	}
	return n, nil
}

// mapped is a map of a file of three pages of ones.
func mapped(t *testing.T) (*Map, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weights")
	if err := os.WriteFile(path, []byte(strings.Repeat("\x01", 3*os.Getpagesize())), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, path
}

// TestCatchTruncated: reading behind the new end of a file is an error with its name and both lengths.
func TestCatchTruncated(t *testing.T) {
	t.Parallel()
	m, path := mapped(t)
	other, _ := mapped(t)
	if n, err := sum(m.Bytes()); n != m.Len() || err != nil {
		t.Fatalf("the whole file: %d, %v", n, err)
	}
	page := os.Getpagesize()
	if err := os.Truncate(path, int64(page)); err != nil {
		t.Fatal(err)
	}
	_, err := sum(m.Bytes())
	var in *inputerr.Error
	if !errors.As(err, &in) || in.File != path {
		t.Fatalf("%v, want an *inputerr.Error of %s", err, path)
	}
	want := strings.NewReplacer("PATH", path, "P1", strconv.Itoa(page), "P3", strconv.Itoa(3*page)).Replace("PATH: byte P1: found a file of P1 bytes, want the P3 bytes it had when it was opened; " +
		"another program changed it meanwhile: put it back as it was, and run again")
	if got := in.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	closes := func() (err error) { // as who opened it does on its way out
		defer Catch(&err)()
		defer m.Close()
		b := m.Bytes()
		return fmt.Errorf("read %d", b[len(b)-1])
	}
	last := strings.NewReplacer("byte "+strconv.Itoa(page)+":", "byte "+strconv.Itoa(3*page-1)+":").Replace(want)
	if err := closes(); err == nil || err.Error() != last {
		t.Errorf("got  %v\nwant %s", err, last)
	}
	if n, err := sum(other.Bytes()); n != other.Len() || err != nil {
		t.Errorf("another file beside it: %d, %v", n, err)
	}
}

// TestCatchReplaced: a file that takes the place of a mapped one by its name is not what is mapped, and harms nothing; one
// that is overwritten is no fault, and Check tells.
func TestCatchReplaced(t *testing.T) {
	t.Parallel()
	m, path := mapped(t)
	if err := os.WriteFile(path+".new", []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if n, err := sum(m.Bytes()); n != m.Len() || err != nil {
		t.Errorf("after a rename over it: %d, %v, want the bytes that were opened", n, err)
	}
	if err := m.Check(); err != nil {
		t.Errorf("after a rename over it: %v", err)
	}

	m, path = mapped(t)
	if err := os.Chtimes(path, m.mtime, m.mtime.Add(time.Second)); err != nil { // what writing does, without waiting for the clock
		t.Fatal(err)
	}
	if err := m.Check(); err == nil || !strings.Contains(err.Error(), "another program writes to it") {
		t.Errorf("Check of a file with another time of change: %v", err)
	}
}

// TestCatchOthers: what is no fault of a mapped file goes on.
func TestCatchOthers(t *testing.T) {
	t.Parallel()
	m, _ := mapped(t)
	for what, f := range map[string]func(){
		"a panic":  func() { panic("other") },
		"an index": func() { _ = m.Bytes()[len(m.Bytes()):][:1][m.Len()] },
	} {
		err := func() (err error) {
			defer func() { recover() }()
			defer Catch(&err)()
			f()
			return nil
		}()
		if err != nil {
			t.Errorf("%s became %v", what, err)
		}
	}
}
