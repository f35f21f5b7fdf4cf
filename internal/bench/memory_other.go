//go:build !linux

package bench

// watchMemory: only Linux tells mapped files from other memory, so nothing is said elsewhere.
func watchMemory() func() (resident, anonymous int64) {
	return func() (int64, int64) { return 0, 0 }
}
