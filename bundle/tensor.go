package bundle

import (
	"encoding/binary"
	"math"

	"github.com/x448/float16"

	"sibyl/internal/safetensors"
)

// DType is a dtype as the file writes it.
type DType = safetensors.DType

// The dtypes of weights in use. Others are refused where they are used and passed over where they are not.
const (
	F32  = safetensors.F32
	F16  = safetensors.F16
	BF16 = safetensors.BF16
)

// Tensor is a read-only view of one weight.
type Tensor struct {
	Name  string // as in the file
	DType DType
	Shape []int // row-major, [out, in] for linears
	// Data is the mapped bytes, little endian, at no promised alignment, valid until the checkpoint is closed.
	// Writing to it is a fault of the process.
	Data []byte
	File string // where it is, for messages
	// Quant is nil unless the weight is quantized: Data are then q.
	Quant *Quantized
	// Form is what a bundle's exporter made of the weight: what is not AsIs is used as it is stored.
	Form Form
	// Parts, if not nil, are the weight's rows piece by piece, in order, where a bundle keeps them apart in a fused
	// matrix: then Data and Quant are nil.
	Parts []Tensor
	// Turned says that Data is the transpose of the matrix, [in, out], row-major: of plain weights of bundles only.
	Turned bool
}

// Elements is the product of the shape.
func (t Tensor) Elements() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Float32s appends all elements to dst, upcast exactly. It is meant for small tensors: norms, A_log, conv. A quantized
// weight has no elements to upcast, and a transposed one is no small tensor: asking is a fault of the program and panics.
func (t Tensor) Float32s(dst []float32) []float32 {
	if t.Quant != nil {
		panic("Float32s of the quantized weight " + t.Name)
	}
	for _, p := range t.Parts {
		dst = p.Float32s(dst)
	}
	if t.Turned {
		panic("Float32s of the transposed weight " + t.Name)
	}
	b := t.Data
	switch t.DType {
	case F32:
		for ; len(b) >= 4; b = b[4:] {
			dst = append(dst, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
	case BF16:
		for ; len(b) >= 2; b = b[2:] {
			dst = append(dst, math.Float32frombits(uint32(binary.LittleEndian.Uint16(b))<<16))
		}
	case F16:
		for ; len(b) >= 2; b = b[2:] {
			dst = append(dst, float16.Frombits(binary.LittleEndian.Uint16(b)).Float32())
		}
	}
	return dst
}

// Float64s appends all elements to dst, upcast exactly.
func (t Tensor) Float64s(dst []float64) []float64 {
	for _, x := range t.Float32s(make([]float32, 0, t.Elements())) {
		dst = append(dst, float64(x))
	}
	return dst
}

// view gives part of t: elements [from, from+product(shape)) of its row-major order, under a shape of its own. Of a turned
// weight it must be whole matrices.
func (t Tensor) view(from int, shape ...int) Tensor {
	size := t.DType.Size()
	part := Tensor{Name: t.Name, DType: t.DType, Shape: shape, File: t.File, Turned: t.Turned}
	if t.Quant != nil {
		part.Data, part.Quant = t.Quant.part(t, from, part.Elements())
		return part
	}
	begin, end := from*size, (from+part.Elements())*size
	part.Data = t.Data[begin:end:end]
	return part
}
