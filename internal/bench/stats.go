package bench

import (
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// Median of at least one value; of two in the middle, their mean. x stays as it is.
func Median(x []float64) float64 {
	sorted := slices.Clone(x)
	slices.Sort(sorted)
	n := len(sorted)
	return stat.Mean(sorted[(n-1)/2:n/2+1], nil)
}

// spread is the least and the most.
func spread(x []float64) (least, most float64) { return floats.Min(x), floats.Max(x) }
