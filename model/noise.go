package model

import (
	"strconv"
	"strings"

	"sibyl/internal/kernels"
	"sibyl/precision"
)

// NoisePrefix is how a noisy mode begins: "noise:SEED".
const NoisePrefix = "noise:"

const wantMode = `exact, fast, or noise: and a seed up to 999999, under a contract that is one for all layers`

// arithmetic is the table of functions of a mode. A noisy one is exact arithmetic in which every operation that is not
// a single IEEE operation is off by -1, 0 or +1 unit in the last place of what the contract rounds it to, by a hash of the
// seed and the value: one of the engines that a right implementation of the contract may be, and the same bits everywhere.
func arithmetic(mode string, chosen *precision.Custom) (*kernels.Arith, bool) {
	switch mode {
	case "", "exact":
		return kernels.Exact, true
	case "fast":
		return kernels.Fast, true
	}
	digits, found := strings.CutPrefix(mode, NoisePrefix)
	seed, err := strconv.ParseUint(digits, 10, 64)
	if !found || err != nil || seed > 999999 || strconv.FormatUint(seed, 10) != digits || len(chosen.At) > 0 {
		return nil, false
	}
	return kernels.Noisy(kernels.Exact, mode, chosen.Contract, kernels.HashStep(seed)), true
}
