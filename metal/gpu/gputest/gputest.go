// Package gputest opens the CPU device for tests.
package gputest

import (
	"errors"
	"os"
	"slices"
	"testing"

	"sibyl/internal/inputerr"
	"sibyl/metal/gpu"
	"sibyl/metal/kernels"
)

// CPU gives the device that compiles kernels for the CPU, or skips the test where that needs something this machine lacks. In CI
// nothing is skipped: its first step installs the compiler.
func CPU(t testing.TB) gpu.Device {
	t.Helper()
	d, err := gpu.CPU(2)
	if err == nil {
		_, err = d.Library(kernels.Files())
	}
	if err != nil {
		var missing *inputerr.Error
		if errors.As(err, &missing) && slices.Contains(gpu.Lacks, missing.Field) && os.Getenv("CI") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// Device gives another CPU device where CPU gave one.
func Device(t testing.TB) gpu.Device {
	t.Helper()
	d, err := gpu.CPU(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
