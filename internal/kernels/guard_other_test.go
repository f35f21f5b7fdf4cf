//go:build !unix

package kernels

import "testing"

// guarded is n elements; there are no guard pages on this system.
func guarded[T any](t testing.TB, n int, end bool) []T { return make([]T, n) }
