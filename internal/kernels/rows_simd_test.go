//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"testing"
	"unsafe"
)

// TestRowsArgs: the assembly finds the arguments by these offsets (gen/rows.go).
func TestRowsArgs(t *testing.T) {
	var a rowsArgs
	for i, got := range []uintptr{unsafe.Offsetof(a.w), unsafe.Offsetof(a.scale), unsafe.Offsetof(a.min), unsafe.Offsetof(a.x),
		unsafe.Offsetof(a.wStride), unsafe.Offsetof(a.sStride), unsafe.Offsetof(a.n),
		unsafe.Offsetof(a.sum32), unsafe.Offsetof(a.sum64), unsafe.Offsetof(a.sq), unsafe.Offsetof(a.dst), unsafe.Offsetof(a.ahead),
		unsafe.Offsetof(a.off), unsafe.Offsetof(a.table), unsafe.Offsetof(a.rows), unsafe.Offsetof(a.sqs),
		unsafe.Offsetof(a.dstStride)} {
		if want := []uintptr{0, 8, 16, 24, 32, 40, 48, 56, 72, 104, 120, 128, 136, 144, 152, 160, 168}[i]; got != want {
			t.Errorf("field %d lies at %d, want %d", i, got, want)
		}
	}
}
