package graph

import (
	"fmt"
	"slices"

	"sibyl/bundle/aicode"
)

// gatherND takes in[0][index...] for every index in the last axis of in[1].
func gatherND(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	t, idx := in[0], in[1]
	if idx.isFloat() || len(idx.Dims) == 0 {
		return nil, fmt.Errorf("indices %s, want whole numbers in rows", idx)
	}
	depth := idx.Dims[len(idx.Dims)-1]
	if depth > len(t.Dims) {
		return nil, fmt.Errorf("indices %s into %s", idx, t)
	}
	dims := append(slices.Clone(idx.Dims[:len(idx.Dims)-1]), t.Dims[depth:]...)
	size, ok := volume(dims)
	if !ok {
		return nil, fmt.Errorf("a result %v of more than %d elements", dims, maxElements)
	}
	out := zeros(t.Kind, dims)
	x := idx.ints()
	block := 1
	for _, d := range t.Dims[depth:] {
		block *= d
	}
	for i := 0; i < len(x) && size > 0; i += max(1, depth) {
		off := t.off
		for a := range depth {
			v := int(x[i+a])
			if x[i+a] < 0 || x[i+a] >= int64(t.Dims[a]) {
				return nil, fmt.Errorf("index %d into axis %d of %s", x[i+a], a, t)
			}
			off += v * t.strides[a]
		}
		row := t.view(t.Dims[depth:], t.strides[depth:], off)
		at := i / max(1, depth) * block
		if rows := row.sourceRow(); rows != nil {
			rows.src.Row(out.f[at:][:block], rows.off/block)
			continue
		}
		fill(out.view(row.Dims, rowMajor(row.Dims), at), row)
	}
	return []*Tensor{out}, nil
}

// sourceRow gives t if it is exactly one row of a source.
func (t *Tensor) sourceRow() *Tensor {
	if t.src == nil || t.src.f != nil || len(t.Dims) != 1 || t.strides[0] != 1 {
		return nil
	}
	if _, cols := t.src.size(); cols != t.Dims[0] || cols == 0 || t.off%cols != 0 {
		return nil
	}
	return t
}

// gatherAlongAxis is out[i..., j, k...] = in[0][i..., in[1][i..., j, k...], k...] along axis in[2].
func gatherAlongAxis(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	t, idx := in[0], in[1]
	axis, err := along(t, idx, in[2])
	if err != nil {
		return nil, err
	}
	if _, ok := volume(idx.Dims); !ok {
		return nil, fmt.Errorf("a result %v of more than %d elements", idx.Dims, maxElements)
	}
	if tail := axis + 1; repeats(idx, tail) && (t.src != nil || len(t.Dims) > tail) {
		return gatherBlocks(t, idx, axis)
	}
	data := t.view(idx.Dims, slices.Clone(t.strides), t.off)
	stride := data.strides[axis]
	data.strides[axis] = 0
	out := zeros(t.Kind, idx.Dims)
	if t.isFloat() {
		err = take(out.f, t.base(), idx, data, stride, t.Dims[axis])
	} else {
		err = take(out.n, t.n, idx, data, stride, t.Dims[axis])
	}
	return []*Tensor{out}, err
}

// along checks that indices fit beside the axis.
func along(t, idx, axis *Tensor) (int, error) {
	if idx.isFloat() || len(idx.Dims) != len(t.Dims) {
		return 0, fmt.Errorf("indices %s for %s", idx, t)
	}
	a, err := axisOf(axis, len(t.Dims))
	if err != nil {
		return 0, err
	}
	for i, d := range idx.Dims {
		if i != a && d != t.Dims[i] {
			return 0, fmt.Errorf("indices %s for axis %d of %s", idx, a, t)
		}
	}
	return a, nil
}

func take[E any](out, from []E, idx, data *Tensor, stride, limit int) error {
	si, n := lastAxis(idx.Dims, idx.strides)
	sd, _ := lastAxis(idx.Dims, data.strides)
	var err error
	each(idx.Dims, [][]int{idx.strides, data.strides}, []int{idx.off, data.off}, func(at int, o []int) {
		for j := range n {
			v := idx.n[o[0]+j*si]
			if v < 0 || v >= int64(limit) {
				err = fmt.Errorf("index %d of %d", v, limit)
				return
			}
			out[at+j] = from[o[1]+j*sd+int(v)*stride]
		}
	})
	return err
}

// repeats says whether the indices are the same along every axis from the tail on.
func repeats(idx *Tensor, tail int) bool {
	for a := tail; a < len(idx.Dims); a++ {
		if idx.Dims[a] > 1 && idx.strides[a] != 0 {
			return false
		}
	}
	return true
}

// gatherBlocks is gatherAlongAxis where an index chooses a whole block of the axes behind: an expert's matrix. Elements keep
// the order they are stored in, so that a transposed matrix stays one whose columns lie together.
func gatherBlocks(t, idx *Tensor, axis int) ([]*Tensor, error) {
	lead := idx.view(idx.Dims[:axis+1], idx.strides[:axis+1], idx.off)
	which := lead.ints()
	behind := t.view(t.Dims[axis+1:], t.strides[axis+1:], 0)
	order := storedOrder(behind)
	block := behind.Len()
	out := zeros(t.Kind, idx.Dims)
	strides := rowMajor(idx.Dims)
	n := 1
	for i := len(order) - 1; i >= 0; i-- {
		strides[axis+1+order[i]] = n
		n *= behind.Dims[order[i]]
	}
	out.strides = strides
	at := make([]int, axis+1)
	for i, v := range which {
		if v < 0 || v >= int64(t.Dims[axis]) {
			return nil, fmt.Errorf("index %d into axis %d of %s", v, axis, t)
		}
		off := t.off + int(v)*t.strides[axis]
		rest := i
		for a := axis; a >= 0; a-- {
			at[a] = rest % idx.Dims[a]
			rest /= idx.Dims[a]
			if a < axis {
				off += at[a] * t.strides[a]
			}
		}
		from := t.view(behind.Dims, behind.strides, off)
		copyBlock(out.view(behind.Dims, strides[axis+1:], i*block), from, order)
	}
	return []*Tensor{out}, nil
}

// storedOrder lists axes by how far apart their elements are stored, farthest first.
func storedOrder(t *Tensor) []int {
	order := make([]int, len(t.Dims))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return t.strides[b] - t.strides[a] })
	return order
}

// copyBlock copies rows of a source as they are, and anything else element by element.
func copyBlock(dst, from *Tensor, order []int) {
	if from.src != nil && from.src.f == nil {
		_, cols := from.src.size()
		inner := len(order) == 0
		if !inner {
			last := order[len(order)-1]
			inner = from.strides[last] == 1 && from.Dims[last] == cols && cols > 0 && from.off%cols == 0
		}
		if inner && contiguous(from, order) && len(order) > 0 {
			rows := from.Len() / cols
			for r := range rows {
				from.src.Row(dst.f[dst.off+r*cols:][:cols], from.off/cols+r)
			}
			return
		}
	}
	fill(dst, from)
}

// contiguous says whether the elements, taken in order, lie one after the other.
func contiguous(t *Tensor, order []int) bool {
	n := 1
	for i := len(order) - 1; i >= 0; i-- {
		a := order[i]
		if t.Dims[a] != 1 && t.strides[a] != n {
			return false
		}
		n *= t.Dims[a]
	}
	return true
}

// scatterModes are the property's values; the sums' order is that of the updates.
var scatterModes = map[string]func(old, x float32) float32{
	"update": func(_, x float32) float32 { return x },
	"add":    func(old, x float32) float32 { return old + x },
	"sub":    func(old, x float32) float32 { return old - x },
	"mul":    func(old, x float32) float32 { return old * x },
	"div":    func(old, x float32) float32 { return old / x },
	"max":    func(old, x float32) float32 { return max(old, x) },
	"min":    func(old, x float32) float32 { return min(old, x) },
}

// scatterAlongAxis is in[0] with out[i..., in[1][i..., j, k...], k...] changed by in[2][i..., j, k...] along axis in[3].
func scatterAlongAxis(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	t, idx, upd := in[0], in[1], in[2]
	axis, err := along(t, idx, in[3])
	if err != nil {
		return nil, err
	}
	mode, _ := op.Attrs["scatter_mode"].(string)
	f := scatterModes[mode]
	switch {
	case f == nil:
		return nil, fmt.Errorf("scatter_mode %v, want one of update, add, sub, mul, div, max, min", op.Attrs["scatter_mode"])
	case !slices.Equal(upd.Dims, idx.Dims) || upd.Kind != t.Kind:
		return nil, fmt.Errorf("updates %s for indices %s of %s", upd, idx, t)
	case !t.isFloat():
		return nil, fmt.Errorf("%s, want floats", t)
	}
	out := zeros(t.Kind, t.Dims)
	fill(out, t)
	strides := slices.Clone(out.strides)
	strides[axis] = 0
	values, round := upd.base(), grid(t.Kind)
	each(idx.Dims, [][]int{idx.strides, strides, upd.strides}, []int{idx.off, 0, upd.off}, func(_ int, o []int) {
		last := len(idx.Dims) - 1
		for j := range idx.Dims[last] {
			v := idx.n[o[0]+j*idx.strides[last]]
			if v < 0 || v >= int64(t.Dims[axis]) {
				err = fmt.Errorf("index %d into axis %d of %s", v, axis, t)
				return
			}
			p := &out.f[o[1]+j*strides[last]+int(v)*out.strides[axis]]
			*p = round.Value(f(*p, values[o[2]+j*upd.strides[last]]))
		}
	})
	return []*Tensor{out}, err
}

// sorted gives the order of in[0] along axis in[1]: descending if in[2] holds, equal elements in the order they have. NaN is
// larger than any number.
func sorted(in []*Tensor) (axis int, moved *Tensor, order [][]int, err error) {
	t := in[0]
	if axis, err = axisOf(in[1], len(t.Dims)); err != nil {
		return 0, nil, nil, err
	}
	if !t.isFloat() || in[2].Kind != aicode.Bool || in[2].Len() != 1 {
		return 0, nil, nil, fmt.Errorf("%s and %s, want floats and a bool", t, in[2])
	}
	down := in[2].ints()[0] != 0
	moved = t.toLast(axis)
	x, n := moved.floats(), t.Dims[axis]
	less := func(a, b float32) bool { return a < b || a == a && b != b }
	for at := 0; at < len(x); at += max(1, n) {
		row := x[at:][:n]
		o := make([]int, n)
		for i := range o {
			o[i] = i
		}
		slices.SortStableFunc(o, func(i, j int) int {
			a, b := row[i], row[j]
			if down {
				a, b = b, a
			}
			return int(truth(less(b, a)) - truth(less(a, b)))
		})
		order = append(order, o)
	}
	return axis, moved, order, nil
}

// toLast is the view whose last axis is axis.
func (t *Tensor) toLast(axis int) *Tensor {
	dims := append(slices.Delete(slices.Clone(t.Dims), axis, axis+1), t.Dims[axis])
	strides := append(slices.Delete(slices.Clone(t.strides), axis, axis+1), t.strides[axis])
	return t.view(dims, strides, t.off)
}

// fromLast undoes toLast for a row-major tensor of the moved shape.
func (t *Tensor) fromLast(axis int) *Tensor {
	last := len(t.Dims) - 1
	dims := slices.Insert(slices.Clone(t.Dims[:last]), axis, t.Dims[last])
	strides := slices.Insert(slices.Clone(t.strides[:last]), axis, t.strides[last])
	return t.view(dims, strides, t.off)
}

func sortValues(_ *call, _ *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	axis, moved, order, err := sorted(in)
	if err != nil {
		return nil, err
	}
	x, n := moved.floats(), in[0].Dims[axis]
	out := make([]float32, len(x))
	for r, o := range order {
		for j, i := range o {
			out[r*n+j] = x[r*n+i]
		}
	}
	return []*Tensor{newFloats(in[0].Kind, moved.Dims, out).fromLast(axis)}, nil
}

func argsort(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	axis, moved, order, err := sorted(in)
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, o := range order {
		for _, i := range o {
			out = append(out, wrap(resultKind(op), int64(i)))
		}
	}
	return []*Tensor{newInts(resultKind(op), moved.Dims, out).fromLast(axis)}, nil
}
