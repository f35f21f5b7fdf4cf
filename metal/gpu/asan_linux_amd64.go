package gpu

import (
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// asan are functions of AddressSanitizer's runtime, 0 where that was not loaded before the program (LD_PRELOAD). Kernels built with
// -fsanitize=address then report what they touch beside a buffer, with their name, file and line.
var asan = sync.OnceValue(func() (f struct{ poison, unpoison uintptr }) {
	f.poison, _ = purego.Dlsym(purego.RTLD_DEFAULT, "__asan_poison_memory_region")
	f.unpoison, _ = purego.Dlsym(purego.RTLD_DEFAULT, "__asan_unpoison_memory_region")
	return f
})

// forbid makes bytes that no kernel may touch, allow takes that back. They begin where no kernel's do within 8 bytes.
func forbid(b []byte) { mark(asan().poison, b) }
func allow(b []byte)  { mark(asan().unpoison, b) }

func mark(f uintptr, b []byte) {
	if f != 0 && len(b) > 0 {
		purego.SyscallN(f, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	}
}
