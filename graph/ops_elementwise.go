package graph

import (
	"fmt"

	"sibyl/bundle/aicode"
	"sibyl/precision"
)

// resultKind is the element kind that the graph gives the operation's first result.
func resultKind(op *aicode.Op) aicode.Kind { return op.Results[0].Type.Elem }

// pair brings two operands to one shape.
func pair(in []*Tensor) (a, b *Tensor, dims []int, err error) {
	if dims, err = joinShapes(in[0].Dims, in[1].Dims); err != nil {
		return nil, nil, nil, err
	}
	if a, err = in[0].broadcast(dims); err == nil {
		b, err = in[1].broadcast(dims)
	}
	return a, b, dims, err
}

// pairwise computes an operation of two numbers. Floats meet floats of the same kind, whole numbers whole numbers.
func pairwise(op *aicode.Op, in []*Tensor, f func(a, b float32) float32, n func(a, b int64) int64) ([]*Tensor, error) {
	if in[0].Kind != in[1].Kind {
		return nil, fmt.Errorf("operands of two kinds, %s and %s", in[0], in[1])
	}
	a, b, dims, err := pair(in)
	if err != nil {
		return nil, err
	}
	kind := resultKind(op)
	size, ok := volume(dims)
	if !ok {
		return nil, fmt.Errorf("a result %v of more than %d elements", dims, maxElements)
	}
	if a.isFloat() {
		out := make([]float32, size)
		zip(dims, out, a.base(), b.base(), a, b, f)
		grid(kind).Slice(out)
		return []*Tensor{newFloats(kind, dims, out)}, nil
	}
	out := make([]int64, size)
	zip(dims, out, a.n, b.n, a, b, n)
	for i, v := range out {
		out[i] = wrap(kind, v)
	}
	return []*Tensor{newInts(kind, dims, out)}, nil
}

// zip is out = f(a, b) over dims.
func zip[E, R any](dims []int, out []R, x, y []E, a, b *Tensor, f func(a, b E) R) {
	sa, n := lastAxis(dims, a.strides)
	sb, _ := lastAxis(dims, b.strides)
	each(dims, [][]int{a.strides, b.strides}, []int{a.off, b.off}, func(at int, o []int) {
		p, q := o[0], o[1]
		d := out[at:][:n]
		for i := range d {
			d[i] = f(x[p], y[q])
			p += sa
			q += sb
		}
	})
}

func add(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return pairwise(op, in, func(a, b float32) float32 { return a + b }, func(a, b int64) int64 { return a + b })
}

func sub(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return pairwise(op, in, func(a, b float32) float32 { return a - b }, func(a, b int64) int64 { return a - b })
}

func mul(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return pairwise(op, in, func(a, b float32) float32 { return a * b }, func(a, b int64) int64 { return a * b })
}

// divide of whole numbers goes toward zero.
func divide(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	if !in[1].isFloat() {
		for _, v := range in[1].ints() {
			if v == 0 {
				return nil, fmt.Errorf("a whole number divided by 0")
			}
		}
	}
	return pairwise(op, in, func(a, b float32) float32 { return a / b }, func(a, b int64) int64 { return a / b })
}

// elementwise computes an operation of one float.
func elementwise(op *aicode.Op, in []*Tensor, f func(float32) float32) ([]*Tensor, error) {
	if !in[0].isFloat() {
		return nil, fmt.Errorf("%s, want floats", in[0])
	}
	x := in[0].floats()
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = f(v)
	}
	kind := resultKind(op)
	grid(kind).Slice(out)
	return []*Tensor{newFloats(kind, in[0].Dims, out)}, nil
}

func exp(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return elementwise(op, in, c.arith.Exp)
}

func log(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return elementwise(op, in, c.arith.Log)
}

// sin and cos are correctly rounded in both arithmetics: libm's differ in the last bit of float32 at most, and rope's
// tables are rounded to 16 bits.
func sin(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return elementwise(op, in, func(x float32) float32 { s, _ := precision.SinCosR32(x); return s })
}

func cos(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return elementwise(op, in, func(x float32) float32 { _, c := precision.SinCosR32(x); return c })
}

func rsqrt(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return elementwise(op, in, func(x float32) float32 { return c.arith.Rsqrt(x, in[0].Kind) })
}

func sigmoid(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return elementwise(op, in, c.arith.Sigmoid)
}

func silu(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return elementwise(op, in, c.arith.SiLU)
}

// cast rounds a float to the result's dtype, wraps a whole number to its width, and cuts a float's fraction off.
func cast(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	t, kind := in[0], resultKind(op)
	switch {
	case t.isFloat() && kind.IsFloat():
		if t.Kind == kind || kind == aicode.F32 { // the same numbers
			v := t.view(t.Dims, t.strides, t.off)
			v.Kind = kind
			return []*Tensor{v}, nil
		}
		out := append([]float32(nil), t.floats()...)
		grid(kind).Slice(out)
		return []*Tensor{newFloats(kind, t.Dims, out)}, nil
	case t.isFloat():
		out := make([]int64, t.Len())
		for i, v := range t.floats() {
			if out[i] = wrap(kind, truncate(v)); kind == aicode.Bool && v != 0 {
				out[i] = 1
			}
		}
		return []*Tensor{newInts(kind, t.Dims, out)}, nil
	case kind.IsFloat():
		out := make([]float32, t.Len())
		for i, v := range t.ints() {
			out[i] = float32(v)
		}
		grid(kind).Slice(out)
		return []*Tensor{newFloats(kind, t.Dims, out)}, nil
	}
	out := make([]int64, t.Len())
	for i, v := range t.ints() {
		out[i] = wrap(kind, v)
	}
	return []*Tensor{newInts(kind, t.Dims, out)}, nil
}

func greater(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	if in[0].Kind != in[1].Kind {
		return nil, fmt.Errorf("operands of two kinds, %s and %s", in[0], in[1])
	}
	a, b, dims, err := pair(in)
	if err != nil {
		return nil, err
	}
	size, ok := volume(dims)
	if !ok {
		return nil, fmt.Errorf("a result %v of more than %d elements", dims, maxElements)
	}
	out := make([]int64, size)
	if a.isFloat() {
		zip(dims, out, a.base(), b.base(), a, b, func(x, y float32) int64 { return truth(x > y) })
	} else {
		zip(dims, out, a.n, b.n, a, b, func(x, y int64) int64 { return truth(x > y) })
	}
	return []*Tensor{newInts(aicode.Bool, dims, out)}, nil
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func not(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	if in[0].Kind != aicode.Bool {
		return nil, fmt.Errorf("%s, want bools", in[0])
	}
	out := make([]int64, in[0].Len())
	for i, v := range in[0].ints() {
		out[i] = 1 - v
	}
	return []*Tensor{newInts(aicode.Bool, in[0].Dims, out)}, nil
}

// where chooses in[1] where in[0] holds, else in[2].
func where(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	if in[0].Kind != aicode.Bool || in[1].Kind != in[2].Kind {
		return nil, fmt.Errorf("%s, %s and %s, want bools and two tensors of one kind", in[0], in[1], in[2])
	}
	dims, err := joinShapes(in[1].Dims, in[2].Dims)
	if err == nil {
		dims, err = joinShapes(dims, in[0].Dims)
	}
	if err != nil {
		return nil, err
	}
	var v [3]*Tensor
	for i := range v {
		if v[i], err = in[i].broadcast(dims); err != nil {
			return nil, err
		}
	}
	if size, ok := volume(dims); !ok {
		return nil, fmt.Errorf("a result of %d elements", size)
	}
	if in[1].isFloat() {
		return []*Tensor{newFloats(in[1].Kind, dims, choose(v[0].ints(), v[1].floats(), v[2].floats()))}, nil
	}
	return []*Tensor{newInts(in[1].Kind, dims, choose(v[0].ints(), v[1].ints(), v[2].ints()))}, nil
}

func choose[E any](cond []int64, a, b []E) []E {
	out := make([]E, len(cond))
	for i, c := range cond {
		if out[i] = b[i]; c != 0 {
			out[i] = a[i]
		}
	}
	return out
}
