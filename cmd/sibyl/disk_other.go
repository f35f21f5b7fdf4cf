//go:build !linux && !darwin && !windows

package main

// diskFree knows nothing here.
func diskFree(string) (n int64, ok bool) { return 0, false }
