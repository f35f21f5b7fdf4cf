package kernels

import (
	"fmt"
	"sort"

	"sibyl/precision"
)

// NewStacked is the rows of several matrices of one width, one matrix after the other: a weight whose rows lie apart in a
// fused one.
func NewStacked(parts []*Matrix, round precision.Round) (*Matrix, error) {
	s := &stacked{parts: parts}
	rows := 0
	for _, p := range parts {
		if p.Cols != parts[0].Cols {
			return nil, fmt.Errorf("rows of %d and of %d columns do not stack", parts[0].Cols, p.Cols)
		}
		rows += p.Rows
		s.ends = append(s.ends, rows)
	}
	if rows == 0 {
		return nil, fmt.Errorf("no rows to stack")
	}
	return NewComputed(rows, parts[0].Cols, s, round), nil
}

// stacked finds a row's matrix by where each ends.
type stacked struct {
	parts []*Matrix
	ends  []int
}

func (s *stacked) Row(dst []float32, i int) {
	p := sort.SearchInts(s.ends, i+1)
	s.parts[p].Row(dst, i-s.ends[p]+s.parts[p].Rows)
}

func (s *stacked) Bytes() (n int64) {
	for _, p := range s.parts {
		n += p.Bytes()
	}
	return n
}
