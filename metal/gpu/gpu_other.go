//go:build !(cgo && (darwin || gnustep))

package gpu

import (
	"runtime"

	"sibyl/internal/inputerr"
)

// GPU opens the system's GPU, which needs a build for macOS with cgo.
func GPU(int) (Device, error) {
	return nil, &inputerr.Error{File: "metal", Field: "platform", Found: runtime.GOOS + "/" + runtime.GOARCH, Want: "macOS and a build with cgo",
		Do: "run the same kernels on the CPU with engine metal-cpu"}
}
