//go:build !noasm

package kernels

const buildName = "arm64"

// needs is what each level of this build asks of the machine: every arm64 processor that Go runs on has vectors of 16 bytes
// and converts binary16.
var needs = [numLevels][]feature{NEON: {{"asimd", true}}}
