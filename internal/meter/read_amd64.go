//go:build !noasm

package meter

import "golang.org/x/sys/cpu"

// readAVX2 is the xor of the 64-bit words of n bytes, a multiple of 512.
//
//go:noescape
func readAVX2(p *byte, n int) uint64

// readAVX512 is readAVX2 by loads of 64 bytes.
//
//go:noescape
func readAVX512(p *byte, n int) uint64

// readLoops are the ways this machine can read, the plain one first.
func readLoops() []func(x []byte) uint64 {
	loops := []func(x []byte) uint64{xorWords}
	if cpu.X86.HasAVX2 {
		loops = append(loops, blocks(readAVX2))
	}
	if cpu.X86.HasAVX512F {
		loops = append(loops, blocks(readAVX512))
	}
	return loops
}

// blocks is loop over the whole of x.
func blocks(loop func(p *byte, n int) uint64) func(x []byte) uint64 {
	return func(x []byte) uint64 {
		n := len(x) &^ 511
		if n == 0 {
			return xorWords(x)
		}
		return loop(&x[0], n) ^ xorWords(x[n:])
	}
}
