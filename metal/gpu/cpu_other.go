//go:build !linux || !amd64

package gpu

import (
	"runtime"

	"sibyl/internal/inputerr"
)

// CPU opens the device that compiles kernels with clang and runs them here: Linux on x86-64 only.
func CPU(int) (Device, error) {
	return nil, &inputerr.Error{File: "metal-cpu", Field: "platform", Found: runtime.GOOS + "/" + runtime.GOARCH, Want: "linux/amd64",
		Do: "use engine metal on a Mac, or engine cpu"}
}
