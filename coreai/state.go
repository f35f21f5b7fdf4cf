package coreai

import (
	"fmt"
	"slices"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// layout says where a layer's state lies in the four states of a bundle. A row of each is one layer of that kind, in
// the order of the model:
//
//	keyCache, valueCache               [attention layers, 1, kv heads, C, hd]; C is the capacity, of which Len rows are filled
//	convState        (zoo-s1)          [GDN layers, 1, channels, K-1], the newest column last
//	convStates       (apple-q35)       [GDN layers, 1, K, channels], the newest row last
//	recState, recurrentStates          [GDN layers, 1, value heads, dk, dv]
//
// An engine.State has K columns, of which the oldest is never read: a bundle that keeps K-1 shows it as zeros.
type layout struct {
	key, value, conv, recurrent Tensor
	rows                        bool // conv is channels-last
	attention, gdn              []int
}

// newLayout recognises the states by name and rank. kinds are the model's layers; an error says why states are not
// shown.
func newLayout(states []Tensor, kinds []config.LayerKind) (*layout, error) {
	l := &layout{}
	for i, k := range kinds {
		if k == config.FullAttention {
			l.attention = append(l.attention, i)
		} else {
			l.gdn = append(l.gdn, i)
		}
	}
	attn, gdn := len(l.attention), len(l.gdn)
	for _, s := range []struct {
		to      *Tensor
		rank    int
		layers  int
		dynamic int // the axis whose length may grow; 0 where there is none
		names   []string
	}{
		{&l.key, 5, attn, 3, []string{"keyCache"}}, {&l.value, 5, attn, 3, []string{"valueCache"}},
		{&l.conv, 4, gdn, 0, []string{"convState", "convStates"}}, {&l.recurrent, 5, gdn, 0, []string{"recState", "recurrentStates"}},
	} {
		for _, name := range s.names {
			if t := tensorNamed(states, name); t != nil {
				*s.to = *t
			}
		}
		switch t := s.to; {
		case t.Name == "":
			return nil, fmt.Errorf("there is no state %s", s.names[0])
		case len(t.Shape) != s.rank || t.Shape[0] != s.layers || t.Shape[1] != 1 || t.DType == "I32":
			return nil, fmt.Errorf("state %s is %s%v, want %d axes of a float type and %d rows, one a layer", t.Name, t.DType, t.Shape, s.rank, s.layers)
		}
		for axis, n := range s.to.Shape {
			if n < 1 && axis != s.dynamic {
				return nil, fmt.Errorf("state %s is %v: axis %d has no length", s.to.Name, s.to.Shape, axis)
			}
		}
	}
	if l.rows = l.conv.Name == "convStates"; len(states) != 4 || !slices.Equal(l.key.Shape, l.value.Shape) {
		return nil, fmt.Errorf("%d states: %s", len(states), describeAll(states))
	}
	return l, nil
}

func (l *layout) tensors() []Tensor { return []Tensor{l.key, l.value, l.conv, l.recurrent} }

// filled is a state's shape after n tokens: the dynamic axis of a cache, or its static capacity, is n.
func (l *layout) filled(t Tensor, n int) []int {
	shape := slices.Clone(t.Shape)
	if t.Name == l.key.Name || t.Name == l.value.Name {
		shape[3] = n
	}
	return shape
}

// shapes are those of layer-wise tensors of an engine.State of n tokens.
func (l *layout) shapes(n int) (kv, conv, recurrent []int) {
	k, c, r := l.key.Shape, l.conv.Shape, l.recurrent.Shape
	conv = []int{c[2], c[3] + 1}
	if l.rows {
		conv = []int{c[3], c[2]}
	}
	return []int{k[2], n, k[4]}, conv, []int{r[2], r[3], r[4]}
}

// export makes an engine.State of the four states, whose values are by name as a worker keeps them.
func (l *layout) export(n int, values map[string][]float32) *engine.State {
	st := &engine.State{Len: n, Tensors: map[string]engine.StateTensor{}}
	kv, conv, recurrent := l.shapes(n)
	cut := func(tap trace.Tap, t Tensor, layers []int, shape []int, form func([]float32) []float32) {
		all := values[t.Name]
		size := len(all) / len(layers)
		for row, layer := range layers {
			st.Tensors[tap.Name(layer)] = engine.StateTensor{Shape: slices.Clone(shape), Data: form(all[row*size : (row+1)*size])}
		}
	}
	cut(trace.CacheKey, l.key, l.attention, kv, slices.Clone)
	cut(trace.CacheValue, l.value, l.attention, kv, slices.Clone)
	cut(trace.CacheConvState, l.conv, l.gdn, conv, l.columns)
	cut(trace.CacheRecurrentState, l.recurrent, l.gdn, recurrent, slices.Clone)
	return st
}

// columns makes [channels, K] of a layer's conv state.
func (l *layout) columns(x []float32) []float32 {
	_, shape, _ := l.shapes(0)
	channels, k := shape[0], shape[1]
	out := make([]float32, channels*k)
	for c := range channels {
		for j := range k {
			switch {
			case l.rows:
				out[c*k+j] = x[j*channels+c]
			case j > 0:
				out[c*k+j] = x[c*(k-1)+j-1]
			}
		}
	}
	return out
}

// rowsOf is the inverse of columns: what the bundle keeps of [channels, K].
func (l *layout) rowsOf(x []float32) []float32 {
	_, shape, _ := l.shapes(0)
	channels, k := shape[0], shape[1]
	var out []float32
	if l.rows {
		out = make([]float32, channels*k)
		for i := range out {
			out[i] = x[i%channels*k+i/channels]
		}
		return out
	}
	for c := range channels {
		out = append(out, x[c*k+1:(c+1)*k]...)
	}
	return out
}

// values makes the four states of an engine.State, which must be of this model, whole.
func (l *layout) values(st *engine.State) (map[string][]float32, error) {
	out := map[string][]float32{}
	kv, conv, recurrent := l.shapes(st.Len)
	join := func(tap trace.Tap, t Tensor, layers []int, shape []int, form func([]float32) []float32) error {
		for _, layer := range layers {
			got := st.Tensors[tap.Name(layer)]
			want, ok := elements(shape)
			if !ok || !slices.Equal(got.Shape, shape) || len(got.Data) != want {
				return &inputerr.Error{File: "state", Field: tap.Name(layer), Found: fmt.Sprintf("%d numbers of shape %v", len(got.Data), got.Shape),
					Want: fmt.Sprintf("%d of shape %v", want, shape), Do: "give a state of this model, whole"}
			}
			out[t.Name] = append(out[t.Name], form(got.Data)...)
		}
		return nil
	}
	same := func(x []float32) []float32 { return x }
	for _, err := range []error{
		join(trace.CacheKey, l.key, l.attention, kv, same), join(trace.CacheValue, l.value, l.attention, kv, same),
		join(trace.CacheConvState, l.conv, l.gdn, conv, l.rowsOf), join(trace.CacheRecurrentState, l.recurrent, l.gdn, recurrent, same),
	} {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
