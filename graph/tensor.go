package graph

import (
	"fmt"
	"math"
	"slices"

	"sibyl/bundle/aicode"
	"sibyl/precision"
)

// maxElements bounds a computed tensor, whatever a graph asks for.
const maxElements = 1 << 29

// Tensor is a value: a strided view of elements, which are never changed once it was handed on. Floats of every width are
// float32 on their dtype's grid; whole numbers and bools are int64.
type Tensor struct {
	Kind    aicode.Kind
	Dims    []int
	strides []int // in elements; 0 along an axis that repeats
	off     int
	f       []float32
	n       []int64
	src     *weight // elements that are made when they are read; f and n are nil
}

// source makes the elements of a stored tensor, row-major, in rows of the last axis. It is a kernels.Rows.
type source interface {
	Row(dst []float32, i int)
	Bytes() int64
	size() (rows, cols int)
}

// weight is a source that its views share, with its elements once they are in memory.
type weight struct {
	source
	f []float32
}

// all makes every element.
func (w *weight) all() []float32 {
	rows, cols := w.size()
	out := make([]float32, rows*cols)
	for i := range rows {
		w.Row(out[i*cols:][:cols], i)
	}
	return out
}

// newFloats is a tensor of dims whose elements x are row-major.
func newFloats(k aicode.Kind, dims []int, x []float32) *Tensor {
	return &Tensor{Kind: k, Dims: dims, strides: rowMajor(dims), f: x}
}

func newInts(k aicode.Kind, dims []int, x []int64) *Tensor {
	return &Tensor{Kind: k, Dims: dims, strides: rowMajor(dims), n: x}
}

// listOf is a list of whole numbers as a tensor.
func listOf(k aicode.Kind, x ...int64) *Tensor { return newInts(k, []int{len(x)}, x) }

func rowMajor(dims []int) []int {
	s := make([]int, len(dims))
	n := 1
	for i := len(dims) - 1; i >= 0; i-- {
		s[i] = n
		n *= dims[i]
	}
	return s
}

// volume is the product of dims; false beyond maxElements.
func volume(dims []int) (int, bool) {
	n := 1
	for _, d := range dims {
		if d < 0 || d > maxElements {
			return 0, false
		}
		if n *= d; n > maxElements {
			return 0, false
		}
	}
	return n, true
}

// Len is the number of elements.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.Dims {
		n *= d
	}
	return n
}

func (t *Tensor) isFloat() bool { return t.Kind.IsFloat() }

// String is the type with the call's dimensions.
func (t *Tensor) String() string {
	dims := make([]int64, len(t.Dims))
	for i, d := range t.Dims {
		dims[i] = int64(d)
	}
	return t.Kind.String() + aicode.ShapeString(dims)
}

// view is the same elements under other dimensions.
func (t *Tensor) view(dims, strides []int, off int) *Tensor {
	v := *t
	v.Dims, v.strides, v.off = dims, strides, off
	return &v
}

// plain says whether the elements lie row-major, one after the other.
func (t *Tensor) plain() bool {
	n := 1
	for i := len(t.Dims) - 1; i >= 0; i-- {
		if t.Dims[i] != 1 && t.strides[i] != n {
			return false
		}
		n *= t.Dims[i]
	}
	return true
}

// base gives the array that floats' offsets count in; of a source it is made anew.
func (t *Tensor) base() []float32 {
	switch {
	case t.src == nil:
		return t.f
	case t.src.f != nil:
		return t.src.f
	}
	return t.src.all()
}

// floats gives the elements row-major: a view where they lie so, else a copy.
func (t *Tensor) floats() []float32 {
	b := t.base()
	n := t.Len()
	if t.plain() {
		return b[t.off:][:n:n]
	}
	out := make([]float32, n)
	gather(out, b, t)
	return out
}

// ints is floats for whole numbers and bools.
func (t *Tensor) ints() []int64 {
	b := t.n
	n := t.Len()
	if t.plain() {
		return b[t.off:][:n:n]
	}
	out := make([]int64, n)
	gather(out, b, t)
	return out
}

// gather copies the view's elements to dst, row-major.
func gather[E any](dst, base []E, t *Tensor) {
	last, n := lastAxis(t.Dims, t.strides)
	each(t.Dims, [][]int{t.strides}, []int{t.off}, func(at int, o []int) {
		d := dst[at:][:n]
		if last == 1 {
			copy(d, base[o[0]:])
			return
		}
		p := o[0]
		for i := range d {
			d[i] = base[p]
			p += last
		}
	})
}

// lastAxis is the stride and the length of the innermost loop.
func lastAxis(dims, strides []int) (stride, n int) {
	if len(dims) == 0 {
		return 0, 1
	}
	return strides[len(dims)-1], dims[len(dims)-1]
}

// each calls f for every run along the last axis: at is where the run starts in row-major order, o where in each operand.
func each(dims []int, strides [][]int, offs []int, f func(at int, o []int)) {
	for _, d := range dims {
		if d == 0 {
			return
		}
	}
	o := slices.Clone(offs)
	outer := max(0, len(dims)-1)
	run := 1
	if len(dims) > 0 {
		run = dims[outer]
	}
	idx := make([]int, outer)
	for at := 0; ; at += run {
		f(at, o)
		a := outer - 1
		for ; a >= 0; a-- {
			idx[a]++
			for k := range o {
				o[k] += strides[k][a]
			}
			if idx[a] < dims[a] {
				break
			}
			for k := range o {
				o[k] -= strides[k][a] * dims[a]
			}
			idx[a] = 0
		}
		if a < 0 {
			return
		}
	}
}

// broadcast is the view of t under dims, which follow numpy's rule: axes are aligned at the right, and an axis of one
// element repeats.
func (t *Tensor) broadcast(dims []int) (*Tensor, error) {
	if len(dims) < len(t.Dims) {
		return nil, fmt.Errorf("%s does not fit into shape %v", t, dims)
	}
	if _, ok := volume(dims); !ok {
		return nil, fmt.Errorf("a shape %v of more than %d elements", dims, maxElements)
	}
	lead := len(dims) - len(t.Dims)
	strides := make([]int, len(dims))
	for i, d := range t.Dims {
		switch dims[lead+i] {
		case d:
			strides[lead+i] = t.strides[i]
		default:
			if d != 1 {
				return nil, fmt.Errorf("%s does not fit into shape %v", t, dims)
			}
		}
	}
	return t.view(slices.Clone(dims), strides, t.off), nil
}

// joinShapes joins two shapes by numpy's rule.
func joinShapes(a, b []int) ([]int, error) {
	n := max(len(a), len(b))
	out := make([]int, n)
	for i := range n {
		x, y := 1, 1
		if j := i - (n - len(a)); j >= 0 {
			x = a[j]
		}
		if j := i - (n - len(b)); j >= 0 {
			y = b[j]
		}
		switch {
		case x == y || y == 1:
			out[i] = x
		case x == 1:
			out[i] = y
		default:
			return nil, fmt.Errorf("shapes %v and %v do not go together", a, b)
		}
	}
	return out, nil
}

// grid is the rounding of a float kind.
func grid(k aicode.Kind) precision.Round {
	switch k {
	case aicode.F16:
		return precision.F16
	case aicode.BF16:
		return precision.BF16
	}
	return precision.F32
}

// wrap brings a whole number to its kind's width, two's complement.
func wrap(k aicode.Kind, v int64) int64 {
	bits := k.Bits()
	if k == aicode.Bool {
		if v != 0 {
			return 1
		}
		return 0
	}
	if bits <= 0 || bits >= 64 {
		return v
	}
	s := 64 - bits
	if k >= aicode.I64 && k <= aicode.I2 {
		return v << s >> s
	}
	return int64(uint64(v) << s >> s)
}

// truncate is the cast of a float to a whole number: toward zero; what does not fit ends at the ends of int64.
func truncate(x float32) int64 {
	switch f := math.Trunc(float64(x)); {
	case f != f:
		return 0
	case f >= math.MaxInt64:
		return math.MaxInt64
	case f <= math.MinInt64:
		return math.MinInt64
	default:
		return int64(f)
	}
}
