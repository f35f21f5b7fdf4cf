//go:build !noasm

package kernels

import "golang.org/x/sys/cpu"

const buildName = "amd64"

var avx2 = []feature{{"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA}, {"f16c", cpu.X86.HasF16C}}

// needs is what each level of this build asks of the machine, and of a system that keeps the registers.
var needs = [numLevels][]feature{
	AVX2: avx2,
	AVX512: append(avx2[:3:3], feature{"avx512f", cpu.X86.HasAVX512F}, feature{"avx512bw", cpu.X86.HasAVX512BW},
		feature{"avx512dq", cpu.X86.HasAVX512DQ}, feature{"avx512vl", cpu.X86.HasAVX512VL}),
}
