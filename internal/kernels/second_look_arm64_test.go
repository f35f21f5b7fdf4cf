//go:build !noasm

package kernels

func eachExactTiling(f func(g *tiling[float64])) { f(&exactNEON) }
