package mmap

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"unsafe"

	"sibyl/internal/inputerr"
)

// place is where a file is mapped, or was.
type place struct {
	start, end uintptr // whole pages
	name       string
	bytes      int   // when it was opened
	closed     bool  // by us; then
	now        int64 // is its length at that time
}

// places are those of the mappings there are, and of the last ones there were: when a fault is told, what it unwinds has often
// closed the file already. The latest comes last, for addresses are used again.
var places struct {
	sync.Mutex
	all map[*Map]*place
	old []*place
}

const oldPlaces = 64

func (m *Map) enter() {
	page := uintptr(os.Getpagesize())
	start := uintptr(unsafe.Pointer(unsafe.SliceData(m.data)))
	places.Lock()
	defer places.Unlock()
	if places.all == nil {
		places.all = map[*Map]*place{}
	}
	places.all[m] = &place{start: start, end: start + (uintptr(len(m.data))+page-1)/page*page, name: m.file.Name(), bytes: len(m.data)}
}

func (m *Map) leave() {
	now := int64(len(m.data))
	if info, err := m.file.Stat(); err == nil {
		now = info.Size()
	}
	places.Lock()
	defer places.Unlock()
	p := places.all[m]
	p.closed, p.now = true, now
	delete(places.all, m)
	if places.old = append(places.old, p); len(places.old) > oldPlaces {
		places.old = slices.Delete(places.old, 0, 1)
	}
}

// placeOf finds the mapping that holds an address, or held it last.
func placeOf(addr uintptr) (p place, ok bool) {
	places.Lock()
	defer places.Unlock()
	for m, p := range places.all {
		if p.start <= addr && addr < p.end {
			found := *p
			if info, err := m.file.Stat(); err == nil {
				found.now = info.Size()
			} else {
				found.now = int64(p.bytes)
			}
			return found, true
		}
	}
	for _, p := range slices.Backward(places.old) {
		if p.start <= addr && addr < p.end {
			return *p, true
		}
	}
	return place{}, false
}

// Catch is for who reads mapped files: they are others', and may be cut, or their disk may fail, while they are read. It
// makes such faults panics of the goroutine that calls it, and gives what is to be deferred, which turns the panic into
// *err. Any other panic goes on.
//
//	defer mmap.Catch(&err)()
func Catch(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			lost := Fault(r)
			if lost == nil {
				panic(r)
			}
			*err = lost
		}
	}
}

// Fault is the error of r, what recover gave, if that is a fault at an address of a mapped file (an *inputerr.Error); else nil.
func Fault(r any) error {
	fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		return nil
	}
	p, ok := placeOf(fault.Addr())
	if !ok || p.closed && p.now == int64(p.bytes) { // nothing is wrong with a file that we closed: who read it after that is
		return nil
	}
	e := &inputerr.Error{File: p.name, Field: fmt.Sprintf("byte %d", fault.Addr()-p.start), Found: "no data where the file was mapped",
		Want: fmt.Sprintf("the %d bytes it had when it was opened", p.bytes), Do: "see whether its disk fails, and run again"}
	if p.now != int64(p.bytes) {
		e.Found = fmt.Sprintf("a file of %d bytes", p.now)
		e.Do = "another program changed it meanwhile: put it back as it was, and run again"
	}
	return e
}
