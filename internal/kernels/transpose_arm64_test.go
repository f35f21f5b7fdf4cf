//go:build !noasm

package kernels

// turns are the ways to transpose that this machine can run.
var turns = map[string]turn16{"neon": nil}
