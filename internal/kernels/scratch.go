package kernels

import (
	"math/bits"
	"sync"
)

// scratch lends memory to one call at a time, so that a product a microsecond long does not feed the collector. What
// it lends is not zero. Each power of two has a pool of its own: what is lent for a stripe is not in the way of what a block of
// activations needs.
type scratch[T any] struct{ pools [bits.UintSize + 1]sync.Pool }

type lent[T any] struct{ x []T }

var (
	scratch32 scratch[float32]
	scratch64 scratch[float64]
)

func (s *scratch[T]) get(n int) *lent[T] {
	class := bits.Len(uint(max(1, n) - 1))
	l, _ := s.pools[class].Get().(*lent[T])
	if l == nil {
		l = &lent[T]{x: make([]T, 1<<class)}
	}
	l.x = l.x[:n]
	return l
}

func (s *scratch[T]) put(l *lent[T]) { s.pools[bits.Len(uint(cap(l.x)-1))].Put(l) }
