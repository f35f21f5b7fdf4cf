package kernels

import (
	"sync/atomic"
	"unsafe"
)

// pageFloats is how many numbers lie in the smallest page of the systems that we run on.
const pageFloats = 4096 / 4

// Touch writes to every page of x and changes nothing. What is read before it is written to is a shared page of zeros to Linux,
// which the first write replaces: that is a second fault, and every core is interrupted to forget the first page.
func Touch(x []float32) {
	for i := 0; i < len(x); i += pageFloats {
		atomic.AddUint32((*uint32)(unsafe.Pointer(&x[i])), 0)
	}
	if len(x) > 0 {
		atomic.AddUint32((*uint32)(unsafe.Pointer(&x[len(x)-1])), 0)
	}
}
