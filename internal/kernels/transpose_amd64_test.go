//go:build !noasm

package kernels

// turns are the ways to transpose that this machine can run.
var turns = func() map[string]turn16 {
	all := map[string]turn16{"avx2": nil}
	if usable(AVX512) {
		all["avx512"] = transpose16
	}
	return all
}()
