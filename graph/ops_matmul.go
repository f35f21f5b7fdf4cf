package graph

import (
	"fmt"
	"slices"

	"sibyl/bundle/aicode"
	"sibyl/internal/kernels"
)

// matmul is in[0] [..., M, K] times in[1] [..., K, N], batch axes by numpy's rule.
func matmul(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	a, b := in[0], in[1]
	ra, rb := len(a.Dims), len(b.Dims)
	if !a.isFloat() || a.Kind != b.Kind || ra < 2 || rb < 2 || a.Dims[ra-1] != b.Dims[rb-2] {
		return nil, fmt.Errorf("%s times %s", a, b)
	}
	batch, err := joinShapes(a.Dims[:ra-2], b.Dims[:rb-2])
	if err != nil {
		return nil, err
	}
	M, K, N := a.Dims[ra-2], a.Dims[ra-1], b.Dims[rb-1]
	dims := append(slices.Clone(batch), M, N)
	size, ok := volume(dims)
	if !ok {
		return nil, fmt.Errorf("a result %v of more than %d elements", dims, maxElements)
	}
	out := make([]float32, size)
	va, err := a.broadcast(append(slices.Clone(batch), M, K))
	if err != nil {
		return nil, err
	}
	vb, err := b.broadcast(append(slices.Clone(batch), K, N))
	if err != nil {
		return nil, err
	}
	kind := resultKind(op)
	spread := rb == 2 && ra > 2
	if spread { // one matrix for all rows
		M = a.Len() / max(1, K)
		va, vb, batch = newFloats(a.Kind, []int{M, K}, a.floats()), b, nil
	}
	n := len(batch)
	if size > 0 && K > 0 {
		each(append(slices.Clone(batch), 1), [][]int{append(slices.Clone(va.strides[:n]), 0), append(slices.Clone(vb.strides[:n]), 0)}, []int{va.off, vb.off}, func(at int, o []int) {
			x := va.view([]int{M, K}, va.strides[n:], o[0]).floats()
			w := columns(vb.view([]int{K, N}, vb.strides[n:], o[1]))
			c.arith.MatMul(c.pool, out[at*M*N:][:M*N], x, M, w, a.Kind, spread)
		})
	}
	grid(kind).Slice(out)
	return []*Tensor{newFloats(kind, dims, out)}, nil
}

// columns is the matrix [N, K] whose rows are the columns of b [K, N]: the weight as it is stored, where b is a transposed
// weight.
func columns(b *Tensor) *kernels.Matrix {
	K, N := b.Dims[0], b.Dims[1]
	var rows kernels.Rows
	if b.src != nil && b.src.f == nil {
		if _, cols := b.src.size(); b.strides[0] == 1 && b.strides[1] == cols && cols == K && b.off%max(1, cols) == 0 {
			rows = &sourceRows{b.src, b.off / max(1, cols)}
			return kernels.NewComputed(N, K, rows, grid(aicode.F32))
		}
	}
	rows = &columnRows{b.base(), b.off, b.strides[0], b.strides[1], K, N}
	return kernels.NewComputed(N, K, rows, grid(aicode.F32))
}

// sourceRows are rows of a source from a first one on.
type sourceRows struct {
	source
	first int
}

// Row implements kernels.Rows.
func (s *sourceRows) Row(dst []float32, i int) { s.source.Row(dst, s.first+i) }

// columnRows are the columns of a view in memory.
type columnRows struct {
	f           []float32
	off, sk, sn int
	k, n        int
}

// Row implements kernels.Rows.
func (c *columnRows) Row(dst []float32, i int) {
	p := c.off + i*c.sn
	if c.sk == 1 {
		copy(dst[:c.k], c.f[p:])
		return
	}
	for j := range dst[:c.k] {
		dst[j] = c.f[p]
		p += c.sk
	}
}

// Bytes implements kernels.Rows.
func (c *columnRows) Bytes() int64 { return 4 * int64(c.k) * int64(c.n) }

// blockwise dequantizes: constants stay as they are stored until their rows are read.
func blockwise(_ *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	q, err := op.Quantized()
	if err != nil {
		return nil, err
	}
	if q != nil {
		dims := intsOf(op.Results[0].Type.Dims)
		b := newBlocks(q, resultKind(op), dims)
		return []*Tensor{{Kind: resultKind(op), Dims: dims, strides: rowMajor(dims), src: &weight{source: b}}}, nil
	}
	return blockwiseAtRun(op, in)
}

// blockwiseAtRun is the same for operands that the call computes.
func blockwiseAtRun(op *aicode.Op, in []*Tensor) ([]*Tensor, error) {
	data, scale := in[0], in[1]
	if data.isFloat() || !scale.isFloat() || in[2].isFloat() || !in[3].isFloat() || len(scale.Dims) != len(data.Dims) ||
		!slices.Equal(scale.Dims, in[2].Dims) || !slices.Equal(scale.Dims, in[3].Dims) {
		return nil, fmt.Errorf("data %s, scale %s, offsets %s and %s", data, scale, in[2], in[3])
	}
	for a, d := range data.Dims {
		if s := scale.Dims[a]; s < 1 || d%s != 0 {
			return nil, fmt.Errorf("a scale %s that does not divide %s", scale, data)
		}
	}
	round := grid(resultKind(op))
	q, s, zero, least := data.ints(), scale.floats(), in[2].ints(), in[3].floats()
	out := make([]float32, len(q))
	for i := range out {
		at, weight, rest := 0, 1, i
		for a := len(data.Dims) - 1; a >= 0; a-- {
			at += rest % data.Dims[a] / (data.Dims[a] / scale.Dims[a]) * weight
			rest /= data.Dims[a]
			weight *= scale.Dims[a]
		}
		out[i] = round.Value(round.Value(s[at]*float32(q[i]-zero[at])) + least[at])
	}
	return []*Tensor{newFloats(resultKind(op), data.Dims, out)}, nil
}

func intsOf(dims []int64) []int {
	out := make([]int, len(dims))
	for i, d := range dims {
		out[i] = int(d)
	}
	return out
}

// lutToDense looks palette entries up.
func lutToDense(_ *call, op *aicode.Op, _ []*Tensor) ([]*Tensor, error) {
	q, err := op.Quantized()
	if err != nil {
		return nil, err
	}
	if q == nil || q.Lut == nil {
		return nil, fmt.Errorf("a palette that is computed at run time, want constants")
	}
	data, lut := q.Data.Type.Dims, q.Lut.Type.Dims
	bits := q.Data.Type.Elem.Bits()
	for a, d := range data {
		if lut[a] < 1 || d%lut[a] != 0 {
			return nil, fmt.Errorf("a palette of %s for %s", q.Lut.Type, q.Data.Type)
		}
	}
	if lut[len(data)] != 1<<bits || lut[len(data)+1] != 1 {
		return nil, fmt.Errorf("a palette of %s for indices of %d bits, want %d entries of one number", q.Lut.Type, bits, 1<<bits)
	}
	dims := intsOf(data)
	return []*Tensor{{Kind: resultKind(op), Dims: dims, strides: rowMajor(dims), src: &weight{source: &palette{q, rowsOf(dims), dims}}}}, nil
}
