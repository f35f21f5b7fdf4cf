//go:build !noasm

package meter

import "golang.org/x/sys/cpu"

// fmaAVX2 does rounds of twelve independent 8-lane multiply-adds: enough to keep two units of latency 4 or 5 busy.
//
//go:noescape
func fmaAVX2(rounds int)

// fmaAVX512 does rounds of twenty-four independent 16-lane multiply-adds.
//
//go:noescape
func fmaAVX512(rounds int)

func fmaLoop() (loop func(rounds int), how string, flops float64) {
	switch {
	case cpu.X86.HasAVX512F:
		return fmaAVX512, "avx512", 24 * 16 * 2
	case cpu.X86.HasAVX2 && cpu.X86.HasFMA:
		return fmaAVX2, "avx2", 12 * 8 * 2
	}
	return nil, "", 0
}
