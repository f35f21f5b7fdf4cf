package graph

import (
	"fmt"

	"sibyl/bundle/aicode"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// composite is a private graph that may run as one operation. nil: it runs through its decomposition.
type composite func(c *call, g *aicode.Graph, in []*Tensor) ([]*Tensor, error)

// compositeOf chooses. Only attention has a form of its own, and only where the arithmetic fuses and the declaration gives
// what a fused kernel needs: its scale.
func compositeOf(g *aicode.Graph, a *Arithmetic) composite {
	if !a.Fused || g.Composite != "scaled_dot_product_attention" || len(g.Outputs) != 1 || len(g.Inputs) != 3 {
		return nil
	}
	if _, ok := g.OpAttrs["scale"].(float64); !ok {
		return nil
	}
	return attention
}

// attention is softmax(q*scale . k) . v with float32 between the steps and one rounding at the end: query
// [1, heads, S, hd], key and value [1, kv heads, T, hd]. Query head h reads kv head h / (heads / kv heads); a causal query
// i sees the keys up to T-S+i.
func attention(c *call, g *aicode.Graph, in []*Tensor) ([]*Tensor, error) {
	q, k, v := in[0], in[1], in[2]
	for _, t := range in {
		if !t.isFloat() || len(t.Dims) != 4 || t.Dims[0] != 1 || t.Dims[3] != q.Dims[3] {
			return nil, fmt.Errorf("query %s, key %s, value %s, want [1, heads, tokens, head_dim]", q, k, v)
		}
	}
	heads, S, hd := q.Dims[1], q.Dims[2], q.Dims[3]
	kv, T := k.Dims[1], k.Dims[2]
	if kv < 1 || heads%kv != 0 || v.Dims[1] != kv || v.Dims[2] != T || S > T || T < 1 {
		return nil, fmt.Errorf("query %s, key %s, value %s", q, k, v)
	}
	scale := float32(g.OpAttrs["scale"].(float64))
	causal, _ := g.OpAttrs["is_causal"].(bool)
	if w, ok := wholeAttr(g.OpAttrs["window_size"]); !ok || w != 0 {
		return nil, fmt.Errorf("window_size %v, want 0", g.OpAttrs["window_size"])
	}
	qs, ks, vs := q.floats(), k.floats(), v.floats()
	out := make([]float32, heads*S*hd)
	c.pool.For(heads*S, 2*T*hd, func(lo, hi int) {
		row, w := make([]float32, hd), make([]float32, T)
		for i := lo; i < hi; i++ {
			h, s := i/S, i%S
			seen := T
			if causal {
				seen = T - S + s + 1
			}
			for d, x := range qs[i*hd:][:hd] {
				row[d] = x * scale
			}
			key := ks[h/(heads/kv)*T*hd:]
			for t := range seen {
				w[t] = kernels.Exact.Dot(row, key[t*hd:][:hd])
			}
			precision.SoftmaxR32(w[:seen])
			kernels.Exact.WeightedRows(out[i*hd:][:hd], w[:seen], vs[h/(heads/kv)*T*hd:], hd)
		}
	})
	kind := g.Outputs[0].Type.Elem
	grid(kind).Slice(out)
	return []*Tensor{newFloats(kind, q.Dims, out)}, nil
}

// wholeAttr reads a whole number; an attribute that is not there is 0.
func wholeAttr(a aicode.Attr) (int64, bool) {
	switch v := a.(type) {
	case nil:
		return 0, true
	case int64:
		return v, true
	case uint64:
		return int64(v), true
	}
	return 0, false
}
