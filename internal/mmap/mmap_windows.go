package mmap

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

func mapFile(f *os.File, n int) ([]byte, func() error, error) {
	h, err := windows.CreateFileMapping(windows.Handle(f.Fd()), nil, windows.PAGE_READONLY, 0, 0, nil)
	if err != nil {
		return nil, nil, err
	}
	addr, err := windows.MapViewOfFile(h, windows.FILE_MAP_READ, 0, 0, uintptr(n))
	// The view keeps the mapping alive; its handle is not needed any more.
	_ = windows.CloseHandle(h)
	if err != nil {
		return nil, nil, err
	}
	// The address is read through a pointer to it, because vet takes a plain conversion for a lost Go pointer.
	data := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&addr))), n)
	return data, func() error { return windows.UnmapViewOfFile(addr) }, nil
}

// advise does nothing: PrefetchVirtualMemory is the only near thing, and Windows reads ahead by itself.
func advise([]byte, Advice) error { return nil }
