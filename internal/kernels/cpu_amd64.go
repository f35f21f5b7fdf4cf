//go:build !noasm

package kernels

import "golang.org/x/sys/cpu"

const buildName = "amd64"

// needs is what each level of this build asks of the machine.
var needs = [numLevels][]feature{
	AVX2: {{"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA}, {"f16c", cpu.X86.HasF16C}},
}
