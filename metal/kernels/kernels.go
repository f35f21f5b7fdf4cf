// Package kernels holds the Metal source of sibyl's kernels, one op a file, embedded. The order of the files is that of the unit
// that a device compiles.
package kernels

import (
	"embed"

	"sibyl/metal/msl"
)

//go:embed *.metal
var source embed.FS

var order = []string{"common", "embed", "rmsnorm", "gated_norm", "linear", "swiglu", "residual", "conv", "gdn_step", "rope", "attention", "moe", "head"}

// Files gives the kernels' source.
func Files() []msl.File {
	var out []msl.File
	for _, name := range order {
		text, err := source.ReadFile(name + ".metal")
		if err != nil {
			panic(err) // embedded: a fault of the build
		}
		out = append(out, msl.File{Name: name + ".metal", Text: string(text)})
	}
	return out
}
