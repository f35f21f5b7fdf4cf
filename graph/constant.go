package graph

import (
	"encoding/binary"

	"sibyl/bundle/aicode"
	"sibyl/precision"
)

// constant is a constant operation's tensor. Whole numbers are read at once, floats when they are used.
func constant(k *aicode.Const) *Tensor {
	dims := make([]int, len(k.Type.Dims))
	for i, d := range k.Type.Dims {
		dims[i] = int(d)
	}
	if k.Type.Elem.IsFloat() {
		t := &Tensor{Kind: k.Type.Elem, Dims: dims, strides: rowMajor(dims)}
		if k.Splat {
			t.f, t.strides = []float32{float32(k.Float(0))}, make([]int, len(dims))
			return t
		}
		t.src = &weight{source: &stored{k, rowsOf(dims)}}
		return t
	}
	if k.Splat {
		return &Tensor{Kind: k.Type.Elem, Dims: dims, strides: make([]int, len(dims)), n: []int64{k.Int(0)}}
	}
	x := make([]int64, k.Len())
	for i := range x {
		x[i] = k.Int(int64(i))
	}
	return newInts(k.Type.Elem, dims, x)
}

// extent is a row-major tensor as rows of its last axis.
type extent struct{ rows, cols int }

func rowsOf(dims []int) extent {
	if len(dims) == 0 {
		return extent{1, 1}
	}
	e := extent{1, dims[len(dims)-1]}
	for _, d := range dims[:len(dims)-1] {
		e.rows *= d
	}
	return e
}

func (e extent) size() (rows, cols int) { return e.rows, e.cols }

// stored is a constant of floats as it lies in the file.
type stored struct {
	k *aicode.Const
	extent
}

// Bytes implements kernels.Rows.
func (s *stored) Bytes() int64 { return int64(len(s.k.Data)) }

// Row implements kernels.Rows.
func (s *stored) Row(dst []float32, i int) {
	dst = dst[:s.cols]
	switch at := i * s.cols; s.k.Type.Elem {
	case aicode.F16:
		p := s.k.Data[2*at:]
		for j := range dst {
			dst[j] = precision.F16ToF32(binary.LittleEndian.Uint16(p[2*j:]))
		}
	case aicode.BF16:
		p := s.k.Data[2*at:]
		for j := range dst {
			dst[j] = precision.BF16ToF32(binary.LittleEndian.Uint16(p[2*j:]))
		}
	default:
		for j := range dst {
			dst[j] = float32(s.k.Float(int64(at + j)))
		}
	}
}

// blocks is a weight of blockwise_shift_scale: y = R(R(scale * (q - offset1)) + offset2), R to the result's dtype. Adding an
// offset2 of 0 changes nothing, so symmetric and minval forms are one formula.
type blocks struct {
	q *aicode.Quantized
	extent
	round  precision.Round
	dims   []int
	sdims  []int // of scale
	shared int   // elements along the last axis that share a scale
}

func newBlocks(q *aicode.Quantized, kind aicode.Kind, dims []int) *blocks {
	b := &blocks{q: q, extent: rowsOf(dims), round: grid(kind), dims: dims, shared: int(q.Block[len(dims)-1])}
	for _, d := range q.Scale.Type.Dims {
		b.sdims = append(b.sdims, int(d))
	}
	return b
}

// Bytes implements kernels.Rows.
func (b *blocks) Bytes() int64 {
	return int64(len(b.q.Data.Data) + len(b.q.Scale.Data) + len(b.q.Offset1.Data) + len(b.q.Offset2.Data))
}

// Row implements kernels.Rows.
func (b *blocks) Row(dst []float32, i int) {
	dst = dst[:b.cols]
	b.whole(dst, i*b.cols)
	s := int64(b.scaleRow(i))
	for j := 0; j < len(dst); j += b.shared {
		scale, zero, least := float32(b.q.Scale.Float(s)), float32(b.q.Offset1.Int(s)), float32(b.q.Offset2.Float(s))
		for k, q := range dst[j : j+b.shared] {
			dst[j+k] = b.round.Value(b.round.Value(scale*(q-zero)) + least)
		}
		s++
	}
}

// whole writes the stored whole numbers from element at on. Two 4-bit elements share a byte, the even one in the low half.
func (b *blocks) whole(dst []float32, at int) {
	d := b.q.Data
	switch {
	case d.Splat:
		for j := range dst {
			dst[j] = float32(d.Int(0))
		}
	case d.Type.Elem == aicode.I8:
		for j, v := range d.Data[at:][:len(dst)] {
			dst[j] = float32(int8(v))
		}
	case d.Type.Elem == aicode.U4 || d.Type.Elem == aicode.I4:
		signed := d.Type.Elem == aicode.I4
		for j := range dst {
			v := d.Data[(at+j)/2] >> (4 * ((at + j) % 2)) & 15
			if dst[j] = float32(v); signed && v > 7 {
				dst[j] -= 16
			}
		}
	default:
		for j := range dst {
			dst[j] = float32(d.Int(int64(at + j)))
		}
	}
}

// scaleRow is where the scales of row i begin.
func (b *blocks) scaleRow(i int) int {
	at, weight := 0, b.sdims[len(b.sdims)-1]
	for a := len(b.dims) - 2; a >= 0; a-- {
		at += i % b.dims[a] / int(b.q.Block[a]) * weight
		i /= b.dims[a]
		weight *= b.sdims[a]
	}
	return at
}

// palette is a weight of lut_to_dense: y = lut[group of every axis..., index, 0].
type palette struct {
	q *aicode.Quantized
	extent
	dims []int
}

// Bytes implements kernels.Rows.
func (p *palette) Bytes() int64 { return int64(len(p.q.Data.Data) + len(p.q.Lut.Data)) }

// Row implements kernels.Rows.
func (p *palette) Row(dst []float32, i int) {
	lut := p.q.Lut.Type.Dims
	n := len(p.dims)
	entries := lut[n] * lut[n+1]
	for j := range dst[:p.cols] {
		at, group, weight := int64(i*p.cols+j), int64(0), int64(1)
		rest := at
		for a := n - 1; a >= 0; a-- {
			d := int64(p.dims[a])
			group += rest % d * lut[a] / d * weight
			rest /= d
			weight *= lut[a]
		}
		dst[j] = float32(p.q.Lut.Float(group*entries + p.q.Data.Int(at)*lut[n+1]))
	}
}
