package trace

import (
	"fmt"
	"slices"
)

// spans is a set of rows: sorted, disjoint, never touching intervals [lo, hi). A run in order, in chunks or in
// steps keeps it at one interval, so that adding is O(1) in practice.
type spans [][2]int

// add puts rows lo..hi-1 into the set; a row that is there already is an error.
func (s *spans) add(lo, hi int) error {
	i, _ := slices.BinarySearchFunc(*s, lo, func(v [2]int, lo int) int { return v[0] - lo })
	if i > 0 && (*s)[i-1][1] > lo {
		return fmt.Errorf("rows %d..%d were written twice", lo, min(hi, (*s)[i-1][1])-1)
	}
	if i < len(*s) && (*s)[i][0] < hi {
		return fmt.Errorf("rows %d..%d were written twice", (*s)[i][0], min(hi, (*s)[i][1])-1)
	}
	left := i > 0 && (*s)[i-1][1] == lo
	right := i < len(*s) && (*s)[i][0] == hi
	switch {
	case left && right:
		(*s)[i-1][1] = (*s)[i][1]
		*s = slices.Delete(*s, i, i+1)
	case left:
		(*s)[i-1][1] = hi
	case right:
		(*s)[i][0] = lo
	default:
		*s = slices.Insert(*s, i, [2]int{lo, hi})
	}
	return nil
}

// missing gives the first row of 0..n-1 that is not in the set, or n.
func (s spans) missing(n int) int {
	if len(s) == 0 || s[0][0] > 0 {
		return 0
	}
	return min(s[0][1], n)
}
