package kernels

import "sync"

// scratch lends memory to one call at a time, so that a product a microsecond long does not feed the collector. What
// it lends is not zero.
type scratch[T any] struct{ pool sync.Pool }

type lent[T any] struct{ x []T }

var (
	scratch32 scratch[float32]
	scratch64 scratch[float64]
)

func (s *scratch[T]) get(n int) *lent[T] {
	l, _ := s.pool.Get().(*lent[T])
	if l == nil {
		l = &lent[T]{}
	}
	if cap(l.x) < n {
		l.x = make([]T, n)
	}
	l.x = l.x[:n]
	return l
}

func (s *scratch[T]) put(l *lent[T]) { s.pool.Put(l) }
