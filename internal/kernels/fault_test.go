//go:build linux

package kernels

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"
)

// TestTruncatedWhileMapped: a file that is cut between two products is a panic of the second that its caller can recover from,
// with the address in it: for every stored form, by every variant, on any thread, inside assembly too. For quantized forms q
// is cut, and then the scales.
func TestTruncatedWhileMapped(t *testing.T) {
	const rows, cols = 64, 4096
	for _, k := range []*kernel[linearFunc]{linearFastKernel, linearAloneKernel, linearExactKernel} {
		variants(t, k, func(t *testing.T, run linearFunc) {
			for _, form := range kinds() {
				for _, tokens := range []int{1, 16} {
					for _, scales := range []bool{false, true}[:1+min(1, int(form.f/I8Block))] {
						m := *storedMatrix(t, rand.New(rand.NewPCG(3, uint64(tokens))), form, rows, cols, 0)
						part := &m.Data
						if scales {
							part = &m.Blocks.Scale
						}
						mapped, cut := cuttable(t, *part)
						*part = mapped
						x, out := make([]float32, tokens*cols), make([]float32, tokens*rows)
						try := func() (e any) {
							defer func() { e = recover() }()
							run(NewPool(2), out, x, tokens, &m)
							return nil
						}
						what := fmt.Sprintf("%v read as %v, %d tokens, scales %v", form.f, form.round, tokens, scales)
						if e := try(); e != nil {
							t.Fatalf("%s: %v before the file was cut", what, e)
						}
						cut()
						e := try()
						fault, ok := e.(interface{ Addr() uintptr })
						if _, isError := e.(runtime.Error); !ok || !isError {
							t.Fatalf("%s: recovered %v, want a memory fault", what, e)
						}
						if at := fault.Addr() - uintptr(unsafe.Pointer(&mapped[0])); at >= uintptr(len(mapped)) {
							t.Errorf("%s: the fault lies %d bytes into a mapping of %d", what, at, len(mapped))
						}
					}
				}
			}
		})
	}
}

// cuttable is a mapping of a file that holds b, and what cuts the file to a page.
func cuttable(t *testing.T, b []byte) (mapped []byte, cut func()) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "weights")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	mapped, err = syscall.Mmap(int(f.Fd()), 0, len(b), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(mapped) })
	return mapped, func() {
		if err := f.Truncate(4096); err != nil {
			t.Fatal(err)
		}
	}
}
