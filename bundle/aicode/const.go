package aicode

import (
	"encoding/binary"
	"fmt"
	"math"

	"sibyl/precision"
)

// constant takes the constant's bytes and holds their number against the result's type.
func (o *Op) constant() error {
	k := o.Const
	if k == nil || len(o.Results) != 1 || len(o.Operands) != 0 {
		return at(o, fmt.Sprintf("a constant with %d results, %d operands", len(o.Results), len(o.Operands)), "elements, one result and no operand")
	}
	t := o.Results[0].Type
	if t.Kind != Tensor || t.Layout {
		return at(o, "elements of type "+t.String(), "a tensor of plain layout")
	}
	n, ok := t.Bytes()
	if !ok {
		return at(o, "elements of type "+t.String(), "a tensor whose size is known")
	}
	if k.Splat {
		n = int64(t.Elem.Bits()+7) / 8
	}
	if int64(len(k.Data)) != n {
		return at(o, fmt.Sprintf("%d bytes for %s", len(k.Data), t), fmt.Sprintf("%d", n))
	}
	if k.Type == nil {
		k.Type = t
	} else if k.Type != t { // the same elements are a constant of another shape elsewhere
		own := *k
		own.Type = t
		o.Const = &own
	}
	return nil
}

// Len is the number of elements.
func (k *Const) Len() int64 {
	n, _ := k.Type.Numel()
	return n
}

// Bits gives element i as it is stored, low bits first. It panics where i is out of range, and for complex elements.
func (k *Const) Bits(i int64) uint64 {
	bits := int64(k.Type.Elem.Bits())
	if k.Splat {
		i = 0
	}
	if bits == 4 { // the even of two elements is in the low nibble
		return uint64(k.Data[i/2] >> (4 * (i & 1)) & 15)
	}
	if bits < 8 || bits%8 != 0 {
		var v uint64
		for b := range bits {
			at := i*bits + b
			v |= uint64(k.Data[at/8]>>(at%8)&1) << b
		}
		return v
	}
	p := k.Data[i*bits/8:]
	switch bits {
	case 8:
		return uint64(p[0])
	case 16:
		return uint64(binary.LittleEndian.Uint16(p))
	case 32:
		return uint64(binary.LittleEndian.Uint32(p))
	}
	return binary.LittleEndian.Uint64(p)
}

// Int gives element i of an integer or bool constant.
func (k *Const) Int(i int64) int64 {
	v := k.Bits(i)
	switch k.Type.Elem {
	case I64, I32, I16, I8, I4, I2:
		s := 64 - k.Type.Elem.Bits()
		return int64(v<<s) >> s
	}
	return int64(v)
}

// Float gives element i of a constant of floats, exactly.
func (k *Const) Float(i int64) float64 {
	v := k.Bits(i)
	switch k.Type.Elem {
	case F64:
		return math.Float64frombits(v)
	case F16:
		return float64(precision.F16ToF32(uint16(v)))
	case BF16:
		return float64(precision.BF16ToF32(uint16(v)))
	}
	return float64(math.Float32frombits(uint32(v)))
}

// most elements that Ints and Floats give: they are for shapes and axes, not for weights.
const most = 1 << 20

// Ints gives all elements of an integer or bool constant; false for another kind or more than 2^20.
func (k *Const) Ints() ([]int64, bool) {
	n := k.Len()
	if !k.Type.Elem.IsInt() && k.Type.Elem != Bool || n > most {
		return nil, false
	}
	v := make([]int64, n)
	for i := range v {
		v[i] = k.Int(int64(i))
	}
	return v, true
}

// Floats gives all elements of a constant of floats; false for another kind or more than 2^20.
func (k *Const) Floats() ([]float64, bool) {
	n := k.Len()
	if !k.Type.Elem.IsFloat() || n > most {
		return nil, false
	}
	v := make([]float64, n)
	for i := range v {
		v[i] = k.Float(int64(i))
	}
	return v, true
}

// Zero says whether every element is 0.
func (k *Const) Zero() bool {
	for _, b := range k.Data {
		if b != 0 {
			return false
		}
	}
	return true
}

// Set writes element i of a copy of the constant's bytes, as Bits gives it: data has the length of Data. What does not fit into
// the element's bits is cut.
func (k *Const) Set(data []byte, i int64, v uint64) {
	bits := int64(k.Type.Elem.Bits())
	if k.Splat {
		i = 0
	}
	for b := range bits {
		at := i*bits + b
		data[at/8] = data[at/8]&^(1<<(at%8)) | byte(v>>b&1)<<(at%8)
	}
}
