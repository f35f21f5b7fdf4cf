//go:build unix

package kernels

import (
	"syscall"
	"testing"
	"unsafe"
)

// guarded is n elements between two pages that fault: right before the second one where end says so, else right after
// the first. A kernel that reads or writes one byte too far kills the test.
func guarded[T any](t testing.TB, n int, end bool) []T {
	t.Helper()
	var zero T
	page, size := syscall.Getpagesize(), n*int(unsafe.Sizeof(zero))
	inner := (size + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, inner+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(m) })
	for _, guard := range [][]byte{m[:page], m[page+inner:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	at := page
	if end {
		at += inner - size
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(m[at:]))), n)
}
