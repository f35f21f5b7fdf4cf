package mmap

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"

	"sibyl/internal/inputerr"
)

// open holds the mappings there are, so that the address of a fault gives the file.
var open struct {
	sync.Mutex
	maps map[*Map]struct{}
}

func (m *Map) enter() {
	open.Lock()
	defer open.Unlock()
	if open.maps == nil {
		open.maps = map[*Map]struct{}{}
	}
	open.maps[m] = struct{}{}
}

func (m *Map) leave() {
	open.Lock()
	defer open.Unlock()
	delete(open.maps, m)
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

// Fault is the error of r, what recover gave, if that is a fault at an address of a mapped file (an *inputerr.Error, with r
// as its cause); else nil.
func Fault(r any) error {
	fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		return nil
	}
	m, at := mapOf(fault.Addr())
	if m == nil {
		return nil
	}
	e := &inputerr.Error{File: m.file.Name(), Field: fmt.Sprintf("byte %d", at), Found: "no data where the file was mapped", Err: fault,
		Want: fmt.Sprintf("the %d bytes it had when it was opened", m.Len()), Do: "see whether its disk fails, and run again"}
	if info, err := m.file.Stat(); err == nil && info.Size() != int64(m.Len()) {
		e.Found = fmt.Sprintf("a file of %d bytes", info.Size())
		e.Do = "another program changed it meanwhile: put it back as it was, and run again"
	}
	return e
}

// mapOf finds the mapping that holds an address, whose pages may reach beyond the file's end.
func mapOf(addr uintptr) (m *Map, at uintptr) {
	open.Lock()
	defer open.Unlock()
	page := uintptr(os.Getpagesize())
	for m := range open.maps {
		at := addr - uintptr(unsafe.Pointer(unsafe.SliceData(m.data)))
		if at < (uintptr(len(m.data))+page-1)/page*page {
			return m, at
		}
	}
	return nil, 0
}
