// Package cpuenv makes a test binary obey SIBYL_CPU, as the program does: import it for that effect.
//
//	SIBYL_CPU=noasm go test ./model
package cpuenv

import (
	"os"

	"sibyl/internal/kernels"
)

func init() {
	if err := kernels.Use(os.Getenv("SIBYL_CPU")); err != nil {
		panic(err)
	}
}
