// Package mmap maps files read-only, so that a checkpoint of 54 GB costs no memory of its own. Where a platform
// has no mapping the bytes are read instead; there is no cgo.
package mmap

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"
	"unsafe"

	"sibyl/internal/userfile"
)

// Advice tells the kernel how a range will be read.
type Advice uint8

// Advices. They are hints: a platform without them does nothing.
const (
	Normal     Advice = iota
	Sequential        // read once, front to back: layer streaming, hashing
	Random            // rows of an embedding
	WillNeed          // start reading now
	DontNeed          // not needed again soon: its pages may go from this process
	Forget            // nor by anybody: they may go from memory, where the system can be told so
	Stay              // read again and again: in large pages, where the system has them for files
)

// Map is a file's bytes. Reading them after Close, or after another program shortened the file, is a fault of the
// process, which Catch makes an error; see Check.
type Map struct {
	data   []byte
	file   *os.File     // nil when the bytes are not a mapping of an open file
	mtime  time.Time    // of file when it was opened
	unmap  func() error // nil when there is nothing to give back
	mapped bool
}

// Open maps the regular file at path.
func Open(path string) (*Map, error) {
	f, err := userfile.Open(path)
	if err != nil {
		return nil, err
	}
	return File(f)
}

// File maps all of f, which it takes over: Close closes it, and so does an error. An empty file is an empty map.
func File(f *os.File) (*Map, error) {
	m, err := fileMap(f)
	if err != nil {
		_ = f.Close() // the first error is the one to tell
		return nil, err
	}
	return m, nil
}

func fileMap(f *os.File) (*Map, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &userfile.NotRegular{Mode: info.Mode()}
	}
	size := info.Size()
	if size < 0 || size > math.MaxInt {
		return nil, fmt.Errorf("%s: %d bytes do not fit this platform's address space", f.Name(), size)
	}
	if size == 0 {
		return &Map{file: f, mtime: info.ModTime()}, nil
	}
	data, unmap, err := mapFile(f, int(size))
	if err != nil {
		return nil, fmt.Errorf("map %s (%d bytes): %w", f.Name(), size, err)
	}
	m := &Map{data: data, file: f, mtime: info.ModTime(), unmap: unmap, mapped: unmap != nil}
	if m.mapped {
		m.enter()
	}
	return m, nil
}

// Byter is a file whose bytes are in memory already, as an embedded one's are.
type Byter interface {
	// Bytes gives the whole content, which must not be written to.
	Bytes() []byte
}

// FS maps f, a file of any file system, and takes it over: an *os.File is mapped, a Byter is used as it is, and
// anything else is read.
func FS(f fs.File) (*Map, error) {
	if o, ok := f.(*os.File); ok {
		return File(o)
	}
	defer func() { _ = f.Close() }() // nothing was written
	if b, ok := f.(Byter); ok {
		return &Map{data: b.Bytes()}, nil
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return &Map{data: data}, nil
}

// Bytes gives the whole file. The slice is valid until Close and must not be written to.
func (m *Map) Bytes() []byte { return m.data }

// Len is the file's length when it was mapped.
func (m *Map) Len() int { return len(m.data) }

// Mapped says whether the bytes are the kernel's pages, false if they were read into memory.
func (m *Map) Mapped() bool { return m.mapped }

// Advise passes a hint for bytes [off, off+n). It widens the range to whole pages (DontNeed too: pages of a
// read-only mapping come back from the file). Ranges outside the map are an error.
func (m *Map) Advise(a Advice, off, n int) error {
	if off < 0 || n < 0 || off > len(m.data) || n > len(m.data)-off {
		return fmt.Errorf("advice for bytes %d..%d of a map of %d bytes", off, off+n, len(m.data))
	}
	if !m.mapped || n == 0 {
		return nil
	}
	page := os.Getpagesize()
	start := off / page * page
	switch a {
	case Forget:
		return forget(m.file, int64(start), int64(off+n-start))
	case Stay:
		return stay(m.data[start : off+n])
	}
	return advise(m.data[start:off+n], a)
}

// AdviseView passes a hint for b, a view of the map's bytes. Any other slice is left alone: it says whether b is one.
func (m *Map) AdviseView(a Advice, b []byte) bool {
	if len(b) == 0 || len(m.data) == 0 {
		return false
	}
	off := uintptr(unsafe.Pointer(&b[0])) - uintptr(unsafe.Pointer(&m.data[0])) // far beyond the map for what lies before it
	if off >= uintptr(len(m.data)) || uintptr(len(b)) > uintptr(len(m.data))-off {
		return false
	}
	_ = m.Advise(a, int(off), len(b)) // the range is inside: what is left is a hint that the system did not take
	return true
}

// Check says whether the file still is what was mapped, by its length and the time of its last change: one that was cut
// faults only when pages behind the new end are read, and one that was overwritten never. A file that took another's
// place under its name changes nothing: the mapping keeps the one that was opened.
func (m *Map) Check() error {
	if m.file == nil {
		return nil
	}
	info, err := m.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == int64(len(m.data)) && !info.ModTime().Equal(m.mtime) {
		return fmt.Errorf("%s was last changed at %s when it was opened and at %s now: another program writes to it", m.file.Name(), m.mtime.Format(time.RFC3339Nano), info.ModTime().Format(time.RFC3339Nano))
	}
	if info.Size() != int64(len(m.data)) {
		return fmt.Errorf("%s had %d bytes when it was opened and has %d now: another program changed it", m.file.Name(), len(m.data), info.Size())
	}
	return nil
}

// Close gives the mapping and the file back. A second Close does nothing.
func (m *Map) Close() error {
	var err error
	if m.unmap != nil {
		m.leave()
		err = m.unmap()
	}
	if m.file != nil {
		if cerr := m.file.Close(); err == nil {
			err = cerr
		}
	}
	*m = Map{}
	return err
}
