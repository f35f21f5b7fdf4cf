//go:build noasm || !amd64

package meter

// readLoops are the ways this machine can read.
func readLoops() []func(x []byte) uint64 { return []func(x []byte) uint64{xorWords} }
