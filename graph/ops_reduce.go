package graph

import (
	"fmt"
	"slices"

	"sibyl/bundle/aicode"
)

// toRows brings the axes of in[1] behind the others: rows of what is reduced together, in row-major order. kept are the
// result's dimensions, 1 along the axes.
func toRows(t *Tensor, axes []int) (rows *Tensor, n int, kept []int) {
	var dims, strides []int
	n = 1
	kept = slices.Clone(t.Dims)
	for a, d := range t.Dims {
		if !slices.Contains(axes, a) {
			dims, strides = append(dims, d), append(strides, t.strides[a])
		}
	}
	for a, d := range t.Dims {
		if slices.Contains(axes, a) {
			dims, strides = append(dims, d), append(strides, t.strides[a])
			n *= d
			kept[a] = 1
		}
	}
	return t.view(dims, strides, t.off), n, kept
}

// reduceFloats computes f of every row of the axes.
func reduceFloats(op *aicode.Op, in []*Tensor, f func([]float32) float32) ([]*Tensor, error) {
	axes, err := axesOf(in[1], len(in[0].Dims))
	if err != nil {
		return nil, err
	}
	if !in[0].isFloat() {
		return nil, fmt.Errorf("%s, want floats", in[0])
	}
	rows, n, kept := toRows(in[0], axes)
	if n == 0 {
		return nil, fmt.Errorf("no elements along axes %v of %s", axes, in[0])
	}
	x := rows.floats()
	out := make([]float32, len(x)/n)
	for i := range out {
		out[i] = f(x[i*n:][:n])
	}
	grid(resultKind(op)).Slice(out)
	return []*Tensor{newFloats(resultKind(op), kept, out)}, nil
}

func reduceSum(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	if !in[0].isFloat() {
		return reduceInts(op, in, 0, func(a, b int64) int64 { return a + b })
	}
	return reduceFloats(op, in, c.arith.Sum)
}

func reduceMean(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return reduceFloats(op, in, c.arith.Mean)
}

func reduceProduct(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	if !in[0].isFloat() {
		return reduceInts(op, in, 1, func(a, b int64) int64 { return a * b })
	}
	return nil, fmt.Errorf("%s, want whole numbers: no product of floats is defined", in[0])
}

func reduceInts(op *aicode.Op, in []*Tensor, start int64, f func(a, b int64) int64) ([]*Tensor, error) {
	axes, err := axesOf(in[1], len(in[0].Dims))
	if err != nil {
		return nil, err
	}
	rows, n, kept := toRows(in[0], axes)
	x := rows.ints()
	out := make([]int64, len(x)/max(1, n))
	for i := range out {
		out[i] = start
		for _, v := range x[i*n:][:n] {
			out[i] = wrap(resultKind(op), f(out[i], v))
		}
	}
	return []*Tensor{newInts(resultKind(op), kept, out)}, nil
}

// softmax is along axis in[1].
func softmax(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	axis, err := axisOf(in[1], len(in[0].Dims))
	if err != nil {
		return nil, err
	}
	if !in[0].isFloat() {
		return nil, fmt.Errorf("%s, want floats", in[0])
	}
	moved := in[0].toLast(axis)
	x, n := slices.Clone(moved.floats()), in[0].Dims[axis]
	for at := 0; n > 0 && at < len(x); at += n {
		c.arith.Softmax(x[at:][:n], in[0].Kind)
	}
	grid(resultKind(op)).Slice(x)
	return []*Tensor{newFloats(resultKind(op), moved.Dims, x).fromLast(axis)}, nil
}

// conv2d has no padding: in[0] [N, C, H, W], in[1] [out, C/groups, kh, kw], strides in[2], dilations in[3], groups in[4].
func conv2d(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	x, w := in[0], in[1]
	stride, err := shapeOf(in[2])
	if err != nil {
		return nil, err
	}
	dilation, err := shapeOf(in[3])
	if err != nil {
		return nil, err
	}
	if !x.isFloat() || x.Kind != w.Kind || len(x.Dims) != 4 || len(w.Dims) != 4 || len(stride) != 2 || len(dilation) != 2 || in[4].isFloat() || in[4].Len() != 1 {
		return nil, fmt.Errorf("%s and %s, strides %v, dilations %v, groups %s", x, w, stride, dilation, in[4])
	}
	groups := int(in[4].ints()[0])
	if groups < 1 || groups > x.Dims[1] || x.Dims[1] != groups*w.Dims[1] || w.Dims[0]%groups != 0 || min(stride[0], stride[1], dilation[0], dilation[1], w.Dims[2], w.Dims[3]) < 1 {
		return nil, fmt.Errorf("%d groups of %s and %s, strides %v, dilations %v", groups, x, w, stride, dilation)
	}
	out := [2]int{}
	for i := range out {
		if out[i] = (x.Dims[2+i]-dilation[i]*(w.Dims[2+i]-1)-1)/stride[i] + 1; out[i] < 1 || dilation[i] > x.Dims[2+i] && w.Dims[2+i] > 1 {
			return nil, fmt.Errorf("a kernel %s that does not fit into %s", w, x)
		}
	}
	dims := []int{x.Dims[0], w.Dims[0], out[0], out[1]}
	size, ok := volume(dims)
	if !ok {
		return nil, fmt.Errorf("a result %v of more than %d elements", dims, maxElements)
	}
	y := make([]float32, size)
	xs, taps, k := x.base(), w.floats(), w.Len()/w.Dims[0]
	seen := make([]float32, k)
	for i := range y {
		ow, oh, o, n := i%dims[3], i/dims[3]%dims[2], i/dims[3]/dims[2]%dims[1], i/dims[3]/dims[2]/dims[1]
		for j := range seen {
			kw, kh, ci := j%w.Dims[3], j/w.Dims[3]%w.Dims[2], j/w.Dims[3]/w.Dims[2]
			seen[j] = xs[x.off+n*x.strides[0]+(o/(w.Dims[0]/groups)*w.Dims[1]+ci)*x.strides[1]+
				(oh*stride[0]+kh*dilation[0])*x.strides[2]+(ow*stride[1]+kw*dilation[1])*x.strides[3]]
		}
		y[i] = c.arith.Dot(taps[o*k:][:k], seen)
	}
	grid(resultKind(op)).Slice(y)
	return []*Tensor{newFloats(resultKind(op), dims, y)}, nil
}
