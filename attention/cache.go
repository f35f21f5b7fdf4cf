package attention

import "fmt"

// Cache is one sequence's keys and values in one layer, token-major [Len, KVHeads, HeadDim], keys after norm and rope.
type Cache struct {
	K, V []float32
	Len  int
}

// Clone is a deep copy.
func (c *Cache) Clone() *Cache {
	return &Cache{K: append([]float32(nil), c.K...), V: append([]float32(nil), c.V...), Len: c.Len}
}

// HeadMajor gives keys or values as the taps name them, [KVHeads, Len, HeadDim].
func (d *Dims) HeadMajor(x []float32, tokens int) []float32 {
	out := make([]float32, 0, len(x))
	for h := range d.KVHeads {
		for t := range tokens {
			out = append(out, x[(t*d.KVHeads+h)*d.HeadDim:][:d.HeadDim]...)
		}
	}
	return out
}

// FromHeadMajor makes a cache from [KVHeads, tokens, HeadDim] keys and values.
func (d *Dims) FromHeadMajor(k, v []float32, tokens int) (*Cache, error) {
	n := d.KVHeads * tokens * d.HeadDim
	if len(k) != n || len(v) != n {
		return nil, fmt.Errorf("KV cache holds %d and %d numbers, want [%d, %d, %d]", len(k), len(v), d.KVHeads, tokens, d.HeadDim)
	}
	c := &Cache{K: make([]float32, n), V: make([]float32, n), Len: tokens}
	for h := range d.KVHeads {
		for t := range tokens {
			copy(c.K[(t*d.KVHeads+h)*d.HeadDim:][:d.HeadDim], k[(h*tokens+t)*d.HeadDim:])
			copy(c.V[(t*d.KVHeads+h)*d.HeadDim:][:d.HeadDim], v[(h*tokens+t)*d.HeadDim:])
		}
	}
	return c, nil
}
