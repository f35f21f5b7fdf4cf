package graph

import (
	"fmt"
	"math"
	"slices"

	"sibyl/bundle/aicode"
)

// shapeOf reads a tensor of whole numbers as dimensions.
func shapeOf(t *Tensor) ([]int, error) {
	if t.isFloat() {
		return nil, fmt.Errorf("%s, want whole numbers", t)
	}
	out := make([]int, t.Len())
	for i, v := range t.ints() {
		if v < math.MinInt32 || v > maxElements {
			return nil, fmt.Errorf("a dimension of %d", v)
		}
		out[i] = int(v)
	}
	return out, nil
}

// axis reads one axis of a rank; negative ones count from the end.
func axisOf(t *Tensor, rank int) (int, error) {
	if t.isFloat() || t.Len() != 1 {
		return 0, fmt.Errorf("an axis %s, want one whole number", t)
	}
	a := t.ints()[0]
	if a < 0 {
		a += int64(rank)
	}
	if a < 0 || a >= int64(rank) {
		return 0, fmt.Errorf("axis %d of %d", t.ints()[0], rank)
	}
	return int(a), nil
}

// axes reads a list of different axes of a rank.
func axesOf(t *Tensor, rank int) ([]int, error) {
	if t.isFloat() {
		return nil, fmt.Errorf("axes %s, want whole numbers", t)
	}
	var out []int
	for _, v := range t.ints() {
		a, err := axisOf(listOf(t.Kind, v), rank)
		if err != nil {
			return nil, err
		}
		if slices.Contains(out, a) {
			return nil, fmt.Errorf("axis %d twice", a)
		}
		out = append(out, a)
	}
	return out, nil
}

// reshape keeps the elements in row-major order; one dimension may be -1.
func reshape(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	dims, err := shapeOf(in[1])
	if err != nil {
		return nil, err
	}
	n, free := 1, -1
	for i, d := range dims {
		switch {
		case d == -1 && free < 0:
			free = i
		case d < 0 || n > maxElements:
			return nil, fmt.Errorf("a shape %v", dims)
		default:
			n *= d
		}
	}
	if free >= 0 && n > 0 && in[0].Len()%n == 0 {
		dims[free] = in[0].Len() / n
		n = in[0].Len()
	}
	if n != in[0].Len() || free >= 0 && dims[free] < 0 {
		return nil, fmt.Errorf("%s of %d elements does not take shape %v", in[0], in[0].Len(), dims)
	}
	t := in[0]
	switch {
	case t.plain():
		return []*Tensor{t.view(dims, rowMajor(dims), t.off)}, nil
	case t.isFloat():
		return []*Tensor{newFloats(t.Kind, dims, t.floats())}, nil
	}
	return []*Tensor{newInts(t.Kind, dims, t.ints())}, nil
}

func transpose(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	t := in[0]
	order, err := axesOf(in[1], len(t.Dims))
	if err != nil {
		return nil, err
	}
	if len(order) != len(t.Dims) {
		return nil, fmt.Errorf("%d axes for %s", len(order), t)
	}
	dims, strides := make([]int, len(order)), make([]int, len(order))
	for i, a := range order {
		dims[i], strides[i] = t.Dims[a], t.strides[a]
	}
	return []*Tensor{t.view(dims, strides, t.off)}, nil
}

// expandDims puts axes of one element where the list says, counted in the result.
func expandDims(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	t := in[0]
	rank := len(t.Dims) + in[1].Len()
	axes, err := axesOf(in[1], rank)
	if err != nil {
		return nil, err
	}
	dims, strides := make([]int, 0, rank), make([]int, 0, rank)
	from := 0
	for a := range rank {
		if slices.Contains(axes, a) {
			dims, strides = append(dims, 1), append(strides, 0)
			continue
		}
		dims, strides = append(dims, t.Dims[from]), append(strides, t.strides[from])
		from++
	}
	return []*Tensor{t.view(dims, strides, t.off)}, nil
}

func shrinkDims(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	t := in[0]
	axes, err := axesOf(in[1], len(t.Dims))
	if err != nil {
		return nil, err
	}
	var dims, strides []int
	for a, d := range t.Dims {
		if !slices.Contains(axes, a) {
			dims, strides = append(dims, d), append(strides, t.strides[a])
		} else if d != 1 {
			return nil, fmt.Errorf("axis %d of %s, which is not 1", a, t)
		}
	}
	return []*Tensor{t.view(dims, strides, t.off)}, nil
}

func broadcastTo(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	dims, err := shapeOf(in[1])
	if err != nil {
		return nil, err
	}
	t, err := in[0].broadcast(dims)
	return []*Tensor{t}, err
}

// broadcastInDims repeats the axes of in[2], which have one element, in[1] times.
func broadcastInDims(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	sizes, err := shapeOf(in[1])
	if err != nil {
		return nil, err
	}
	axes, err := axesOf(in[2], len(in[0].Dims))
	if err != nil {
		return nil, err
	}
	if len(sizes) != len(axes) {
		return nil, fmt.Errorf("%d sizes for %d axes", len(sizes), len(axes))
	}
	dims := slices.Clone(in[0].Dims)
	for i, a := range axes {
		dims[a] = sizes[i]
	}
	t, err := in[0].broadcast(dims)
	return []*Tensor{t}, err
}

func broadcastShapes(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	dims, err := shapeOf(in[0])
	for _, t := range in[1:] {
		var more []int
		if err == nil {
			if more, err = shapeOf(t); err == nil {
				dims, err = joinShapes(dims, more)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return []*Tensor{shapeTensor(resultKind(op), dims)}, nil
}

func shapeTensor(k aicode.Kind, dims []int) *Tensor {
	x := make([]int64, len(dims))
	for i, d := range dims {
		x[i] = int64(d)
	}
	return listOf(k, x...)
}

func getShape(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	return []*Tensor{shapeTensor(resultKind(op), in[0].Dims)}, nil
}

// maxRange is far beyond any context.
const maxRange = 1 << 24

// rangeOf is in[0], in[0]+in[2], ... below in[1].
func rangeOf(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	var v [3]int64
	for i, t := range in {
		if t.isFloat() || t.Len() != 1 {
			return nil, fmt.Errorf("%s, want one whole number", t)
		}
		v[i] = t.ints()[0]
	}
	// By difference, unsigned: neither the distance nor the last step can overflow. A range counts tokens.
	n := uint64(0)
	if v[1] > v[0] && v[2] > 0 {
		n = (uint64(v[1]) - uint64(v[0]) + uint64(v[2]) - 1) / uint64(v[2])
	}
	if v[2] <= 0 || n > maxRange {
		return nil, fmt.Errorf("a range from %d to %d in steps of %d", v[0], v[1], v[2])
	}
	x := make([]int64, n)
	for i := range x {
		x[i] = wrap(resultKind(op), v[0]+int64(i)*v[2])
	}
	return []*Tensor{listOf(resultKind(op), x...)}, nil
}

// concat joins in[1:] along axis in[0]; scalars count as lists of one.
func concat(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	parts := slices.Clone(in[1:])
	for i, t := range parts {
		if len(t.Dims) == 0 {
			parts[i] = t.view([]int{1}, []int{1}, t.off)
		}
	}
	axis, err := axisOf(in[0], len(parts[0].Dims))
	if err != nil {
		return nil, err
	}
	dims := slices.Clone(parts[0].Dims)
	for _, t := range parts[1:] {
		same := t.Kind == parts[0].Kind && len(t.Dims) == len(dims)
		for a := 0; same && a < len(dims); a++ {
			same = a == axis || t.Dims[a] == dims[a]
		}
		if !same {
			return nil, fmt.Errorf("%s and %s along axis %d", parts[0], t, axis)
		}
		dims[axis] += t.Dims[axis]
	}
	if _, ok := volume(dims); !ok {
		return nil, fmt.Errorf("a result %v of more than %d elements", dims, maxElements)
	}
	out := zeros(parts[0].Kind, dims)
	at := 0
	for _, t := range parts {
		fill(out.part(axis, at, t.Dims[axis]), t)
		at += t.Dims[axis]
	}
	return []*Tensor{out}, nil
}

// zeros is a new row-major tensor.
func zeros(k aicode.Kind, dims []int) *Tensor {
	n, _ := volume(dims)
	if k.IsFloat() {
		return newFloats(k, slices.Clone(dims), make([]float32, n))
	}
	return newInts(k, slices.Clone(dims), make([]int64, n))
}

// part is the view of n elements of an axis from at on.
func (t *Tensor) part(axis, at, n int) *Tensor {
	dims := slices.Clone(t.Dims)
	dims[axis] = n
	return t.view(dims, t.strides, t.off+at*t.strides[axis])
}

// fill writes t's elements into the view dst of a tensor that nobody else has yet.
func fill(dst, t *Tensor) {
	if t.isFloat() {
		scatter(dst.f, dst, t.base(), t)
		return
	}
	scatter(dst.n, dst, t.n, t)
}

func scatter[E any](to []E, dst *Tensor, from []E, t *Tensor) {
	sd, n := lastAxis(dst.Dims, dst.strides)
	st, _ := lastAxis(dst.Dims, t.strides)
	each(dst.Dims, [][]int{dst.strides, t.strides}, []int{dst.off, t.off}, func(_ int, o []int) {
		p, q := o[0], o[1]
		if sd == 1 && st == 1 {
			copy(to[p:][:n], from[q:])
			return
		}
		for range n {
			to[p] = from[q]
			p += sd
			q += st
		}
	})
}

// split cuts axis in[2] into parts of the lengths in[1].
func split(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	sizes, err := shapeOf(in[1])
	if err != nil {
		return nil, err
	}
	axis, err := axisOf(in[2], len(in[0].Dims))
	if err != nil {
		return nil, err
	}
	if len(sizes) != len(op.Results) {
		return nil, fmt.Errorf("%d lengths for %d results", len(sizes), len(op.Results))
	}
	var out []*Tensor
	at := 0
	for _, n := range sizes {
		if n < 0 || at > in[0].Dims[axis]-n {
			return nil, fmt.Errorf("lengths %v of axis %d of %s", sizes, axis, in[0])
		}
		out = append(out, in[0].part(axis, at, n))
		at += n
	}
	if at != in[0].Dims[axis] {
		return nil, fmt.Errorf("lengths %v of axis %d of %s", sizes, axis, in[0])
	}
	return out, nil
}

// window is what begin, end and step take of dims: negative places count from the end, and what lies beyond is cut off.
func window(dims []int, begin, end, step *Tensor) (lo, n, by []int, err error) {
	for _, t := range []*Tensor{begin, end, step} {
		if t.isFloat() || t.Len() != len(dims) {
			return nil, nil, nil, fmt.Errorf("%s, want %d whole numbers", t, len(dims))
		}
	}
	b, e, s := begin.ints(), end.ints(), step.ints()
	for a, d := range dims {
		if s[a] < 1 || s[a] > maxElements {
			return nil, nil, nil, fmt.Errorf("a step of %d along axis %d", s[a], a)
		}
		place := func(v int64) int {
			if v < 0 {
				v += int64(d)
			}
			return int(max(0, min(v, int64(d))))
		}
		from, to := place(b[a]), place(e[a])
		lo, by = append(lo, from), append(by, int(s[a]))
		n = append(n, max(0, (to-from+int(s[a])-1)/int(s[a])))
	}
	return lo, n, by, nil
}

// slice takes in[1] to in[2] (excluded) in steps of in[3] of each axis.
func slice(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	lo, n, by, err := window(in[0].Dims, in[1], in[2], in[3])
	if err != nil {
		return nil, err
	}
	return []*Tensor{in[0].window(lo, n, by)}, nil
}

func (t *Tensor) window(lo, n, by []int) *Tensor {
	off, strides := t.off, make([]int, len(n))
	for a := range n {
		off += lo[a] * t.strides[a]
		strides[a] = by[a] * t.strides[a]
	}
	return t.view(n, strides, off)
}

// sliceUpdate is in[0] with in[4] in place of what slice would take.
func sliceUpdate(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	lo, n, by, err := window(in[0].Dims, in[1], in[2], in[3])
	if err != nil {
		return nil, err
	}
	if in[0].Kind != in[4].Kind {
		return nil, fmt.Errorf("%s into %s", in[4], in[0])
	}
	if !slices.Equal(n, in[4].Dims) {
		return nil, fmt.Errorf("%s into a place of shape %v of %s", in[4], n, in[0])
	}
	out := zeros(in[0].Kind, in[0].Dims)
	fill(out, in[0])
	fill(out.window(lo, n, by), in[4])
	return []*Tensor{out}, nil
}
