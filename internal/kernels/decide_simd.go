//go:build (amd64 || arm64) && !noasm

package kernels

import (
	"math"

	"sibyl/precision"
)

var compensatedKernel = define[compensatedFunc]("compensated sum of products", compensatedGo)

// compensatedFunc is the sum of w*x in float64 of twice the length, and what it errs by at most; w and x are of one length.
type compensatedFunc = func(w, x []float32) (sum, bound float64)

// decide is R32(sum of w*x), for the few sums that lie too near to the middle between two float32 for float64: a compensated
// sum decides all but ties, at a fraction of what term by term takes.
func decide(w, x []float32) float32 {
	s, bound := compensatedKernel.run(w, x[:len(w)])
	if r, ok := precision.Near(s, bound); ok && bound-bound == 0 { // an infinity or a NaN need not show in what was lost
		return r
	}
	return dotExactGo(w, x)
}

// twofold is a sum of terms, what its additions lost, and the sum of the terms' magnitudes.
type twofold struct{ sum, lost, abs float64 }

// add is Knuth's TwoSum.
func (s *twofold) add(t float64) {
	a := s.sum
	s.sum += t
	v := s.sum - a
	s.lost += (a - (s.sum - v)) + (t - v)
}

func (s *twofold) products(w, x []float32) {
	for i, v := range w {
		t := float64(v) * float64(x[i])
		s.add(t)
		s.abs += math.Abs(t)
	}
}

// bounded is the sum of n products and its bound. A product of two float32 is exact, and so is what each addition lost; only the sum
// of that is rounded. In whatever order, it errs by u|sum| + (n u)^2 sum|w*x| for u = 2^-53 (Ogita, Rump and Oishi
// 2005, proposition 4.5).
func (s *twofold) bounded(n int) (sum, bound float64) {
	sum = s.sum + s.lost
	nu := float64(n+16) * 0x1p-53 // eight lanes, and what they add
	return sum, math.Abs(sum)*0x1p-51 + 2*nu*nu*s.abs
}

func compensatedGo(w, x []float32) (sum, bound float64) {
	var s twofold
	s.products(w, x)
	return s.bounded(len(w))
}
