//go:build noasm || !(amd64 || arm64)

package kernels

import "runtime"

const buildName = runtime.GOARCH + ", no assembly"

// needs is empty: this build holds the portable definitions alone.
var needs [numLevels][]feature
