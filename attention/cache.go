package attention

import (
	"fmt"

	"sibyl/internal/kernels"
	"sibyl/precision"
)

// Cache is one sequence's keys and values in one layer, token-major [Len, KVHeads, HeadDim], keys after norm and rope. It
// begins as NewCache gives it; the zero value keeps float32.
type Cache struct {
	K, V Store
	Len  int
}

// NewCache is the cache before the first token, for values of the grid that a contract stores keys and values on.
func NewCache(grid precision.Round) *Cache {
	return &Cache{K: Store{grid: grid}, V: Store{grid: grid}}
}

// Clone is a deep copy.
func (c *Cache) Clone() *Cache { return &Cache{K: c.K.clone(), V: c.V.clone(), Len: c.Len} }

// Store is a list of numbers that grows, each on one grid, in two bytes where the grid has no more.
type Store struct {
	grid   precision.Round
	wide   []float32
	narrow []uint16
}

func (s *Store) clone() Store {
	return Store{grid: s.grid, wide: append([]float32(nil), s.wide...), narrow: append([]uint16(nil), s.narrow...)}
}

// Append rounds x to the grid and adds it.
func (s *Store) Append(x []float32) {
	if s.grid == precision.F32 {
		s.wide = append(s.wide, x...)
		return
	}
	n := len(s.narrow)
	s.narrow = append(s.narrow, make([]uint16, len(x))...)
	kernels.Narrow(s.grid, s.narrow[n:], x)
}

// Floats gives all numbers, in a copy.
func (s *Store) Floats() []float32 {
	if s.grid == precision.F32 {
		return append([]float32(nil), s.wide...)
	}
	out := make([]float32, len(s.narrow))
	kernels.Widen(s.grid, out, s.narrow)
	return out
}

// Bytes is what the numbers take.
func (s *Store) Bytes() int { return 4*len(s.wide) + 2*len(s.narrow) }

// rows gives n rows of width numbers, the first at first, of a store whose rows begin stride apart: rows of the result begin
// apart apart. room [n*width] is used where numbers have to be made.
func (s *Store) rows(room []float32, first, n, width, stride int) (x []float32, apart int) {
	if s.grid == precision.F32 {
		return s.wide[first:], stride
	}
	for j := range n {
		kernels.Widen(s.grid, room[j*width:][:width], s.narrow[first+j*stride:])
	}
	return room, width
}

// HeadMajor gives keys or values as the taps name them, [KVHeads, Len, HeadDim].
func (d *Dims) HeadMajor(s *Store, tokens int) []float32 {
	x := s.Floats()
	out := make([]float32, 0, len(x))
	for h := range d.KVHeads {
		for t := range tokens {
			out = append(out, x[(t*d.KVHeads+h)*d.HeadDim:][:d.HeadDim]...)
		}
	}
	return out
}

// FromHeadMajor makes a cache from [KVHeads, tokens, HeadDim] keys and values, rounded to the grid.
func (d *Dims) FromHeadMajor(k, v []float32, tokens int, grid precision.Round) (*Cache, error) {
	n := d.KVHeads * tokens * d.HeadDim
	if len(k) != n || len(v) != n {
		return nil, fmt.Errorf("KV cache holds %d and %d numbers, want [%d, %d, %d]", len(k), len(v), d.KVHeads, tokens, d.HeadDim)
	}
	c := NewCache(grid)
	c.Len = tokens
	for t := range tokens {
		for h := range d.KVHeads {
			at := (h*tokens + t) * d.HeadDim
			c.K.Append(k[at:][:d.HeadDim])
			c.V.Append(v[at:][:d.HeadDim])
		}
	}
	return c, nil
}
