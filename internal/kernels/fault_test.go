//go:build linux

package kernels

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"sibyl/precision"
)

// TestTruncatedWhileMapped: a file that shrinks under its mapping is a panic that the caller of a product can recover from,
// with the address in it, by every variant, on any thread, inside assembly too.
func TestTruncatedWhileMapped(t *testing.T) {
	const rows, cols = 64, 4096
	for _, k := range []*kernel[linearFunc]{linearFastKernel, linearExactKernel} {
		variants(t, k, func(t *testing.T, run linearFunc) {
			for _, tokens := range []int{1, 16} {
				data := truncatedMapping(t, 2*rows*cols)
				m, err := NewMatrix(BF16, rows, cols, data, precision.F32)
				if err != nil {
					t.Fatal(err)
				}
				x, out := make([]float32, tokens*cols), make([]float32, tokens*rows)
				e := func() (e any) {
					defer func() { e = recover() }()
					run(NewPool(2), out, x, tokens, m)
					return nil
				}()
				fault, ok := e.(interface{ Addr() uintptr })
				if _, isError := e.(runtime.Error); !ok || !isError {
					t.Fatalf("%d tokens: recovered %v, want a memory fault", tokens, e)
				}
				if at := fault.Addr() - uintptr(unsafe.Pointer(&data[0])); at >= uintptr(len(data)) {
					t.Errorf("%d tokens: the fault lies %d bytes into a mapping of %d", tokens, at, len(data))
				}
			}
		})
	}
}

// truncatedMapping maps a file of n bytes and then cuts it to a page.
func truncatedMapping(t *testing.T, n int) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "weights")
	if err := os.WriteFile(name, make([]byte, n), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := syscall.Mmap(int(f.Fd()), 0, n, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(data) })
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	return data
}
