package aicode

import "fmt"

// Quantized is a weight that is stored in fewer bits: what blockwise_shift_scale or lut_to_dense makes a tensor of.
//
//	blocks:  y = Scale * (Data - Offset1) + Offset2, where element i of an axis uses scale i / Block[axis]
//	palette: y = Lut[group][Data]
type Quantized struct {
	Op      *Op     // its only result is the dense tensor; Op.Results[0].Type.Elem is the dtype it is computed in
	Data    *Const  // whole numbers, row-major, as they are stored
	Scale   *Const  // nil for a palette
	Offset1 *Const  // of the dtype of Data: the zero point, or 0
	Offset2 *Const  // of the dtype of Scale: the block's least value, or 0
	Block   []int64 // elements that share a scale, per axis: Data's dims / Scale's dims
	Lut     *Const  // of a palette: [groups, 1, 2^bits, 1]
	Axis    int64   // of a palette: the axis of vector palettes, as stored; negative counts from the end
}

// Names of the operations that make dense tensors of quantized ones.
const (
	OpBlockwise = "primitive.blockwise_shift_scale_v2"
	OpPalette   = "primitive.lut_to_dense_v1"
)

// Quantized reads the pattern of a quantized weight: op is an OpBlockwise or OpPalette whose operands are all constants.
// It gives nil for every other operation, and an error where the parts do not fit together.
func (o *Op) Quantized() (*Quantized, error) {
	if o.Name != OpBlockwise && o.Name != OpPalette {
		return nil, nil
	}
	parts := make([]*Const, len(o.Operands))
	for i, v := range o.Operands {
		if v.Def == nil || v.Def.Const == nil {
			return nil, nil // computed at run time: no weight
		}
		parts[i] = v.Def.Const
	}
	if len(o.Results) != 1 || o.Results[0].Type.Kind != Tensor {
		return nil, at(o, fmt.Sprintf("%d results", len(o.Results)), "one tensor")
	}
	if o.Name == OpPalette {
		return o.palette(parts)
	}
	return o.blocks(parts)
}

func (o *Op) blocks(p []*Const) (*Quantized, error) {
	if len(p) != 4 {
		return nil, at(o, fmt.Sprintf("%d operands", len(p)), "4: data, scale, offset1, offset2")
	}
	q := &Quantized{Op: o, Data: p[0], Scale: p[1], Offset1: p[2], Offset2: p[3]}
	data, scale := q.Data.Type, q.Scale.Type
	switch {
	case !data.Elem.IsInt():
		return nil, at(o, "data of "+data.String(), "whole numbers")
	case !scale.Elem.IsFloat() || q.Offset2.Type.Elem != scale.Elem || q.Offset1.Type.Elem != data.Elem:
		return nil, at(o, fmt.Sprintf("scale %s, offset1 %s, offset2 %s", scale, q.Offset1.Type, q.Offset2.Type), "a float scale, offset1 like the data and offset2 like the scale")
	case ShapeString(q.Offset1.Type.Dims) != ShapeString(scale.Dims) || ShapeString(q.Offset2.Type.Dims) != ShapeString(scale.Dims):
		return nil, at(o, fmt.Sprintf("offsets of %s and %s", q.Offset1.Type, q.Offset2.Type), "the scale's shape "+ShapeString(scale.Dims))
	case len(scale.Dims) != len(data.Dims):
		return nil, at(o, "a scale of shape "+ShapeString(scale.Dims), fmt.Sprintf("%d axes, as the data has", len(data.Dims)))
	case ShapeString(o.Results[0].Type.Dims) != ShapeString(data.Dims):
		return nil, at(o, "a result of "+o.Results[0].Type.String(), "the data's shape "+ShapeString(data.Dims))
	}
	for a, d := range data.Dims {
		s := scale.Dims[a]
		if s <= 0 || d%s != 0 {
			return nil, at(o, fmt.Sprintf("a scale of shape %s for data of shape %s", ShapeString(scale.Dims), ShapeString(data.Dims)), "one that divides it")
		}
		q.Block = append(q.Block, d/s)
	}
	return q, nil
}

func (o *Op) palette(p []*Const) (*Quantized, error) {
	if len(p) != 3 {
		return nil, at(o, fmt.Sprintf("%d operands", len(p)), "3: indices, palette, axis")
	}
	q := &Quantized{Op: o, Data: p[0], Lut: p[1]}
	lut := q.Lut.Type
	switch {
	case q.Data.Type.Elem < U64 || q.Data.Type.Elem > U1:
		return nil, at(o, "indices of "+q.Data.Type.String(), "unsigned numbers")
	case !lut.Elem.IsFloat() || len(lut.Dims) != len(q.Data.Type.Dims)+2:
		return nil, at(o, "a palette of "+lut.String(), "floats of [groups per axis..., 2^bits, 1]")
	case !p[2].Type.Elem.IsInt() || p[2].Len() != 1:
		return nil, at(o, "an axis of "+p[2].Type.String(), "one whole number")
	}
	rank := len(q.Data.Type.Dims)
	if bits := q.Data.Type.Elem.Bits(); bits > 8 || lut.Dims[rank] != 1<<bits || lut.Dims[rank+1] != 1 {
		return nil, at(o, fmt.Sprintf("%d values for indices of %d bits", lut.Dims[rank], bits), fmt.Sprint(1<<min(bits, 8)))
	}
	for a, d := range q.Data.Type.Dims {
		if g := lut.Dims[a]; g <= 0 || d%g != 0 {
			return nil, at(o, fmt.Sprintf("a palette of %s for indices of %s", lut, ShapeString(q.Data.Type.Dims)), "groups that divide them")
		}
	}
	if q.Axis = p[2].Int(0); q.Axis < -int64(rank) || q.Axis >= int64(rank) {
		return nil, at(o, fmt.Sprintf("axis %d", q.Axis), fmt.Sprintf("one of the %d of the indices", rank))
	}
	return q, nil
}

// Scheme names what the bytes are: "int8 symmetric", "int8 with_clipping", "int4 with_clipping", "u4 minval", "u4 zero point",
// "palette". min and max are the least and largest element of Data: the symmetric form alone reaches -128.
func (q *Quantized) Scheme(min, max int64) string {
	if q.Scale == nil {
		return "palette"
	}
	elem := q.Data.Type.Elem
	z1, z2 := q.Offset1.Zero(), q.Offset2.Zero()
	switch {
	case z1 && z2 && elem == I8 && min == -128:
		return "int8 symmetric"
	case z1 && z2 && elem == I8:
		return "int8 with_clipping"
	case z1 && z2 && elem == I4 && min >= -7:
		return "int4 with_clipping"
	case z1 && z2:
		return elem.String() + " zero offsets"
	case z1:
		return elem.String() + " minval"
	case z2:
		return elem.String() + " zero point"
	}
	return elem.String() + " offset1+offset2"
}

// Range gives the least and largest element of an integer constant; 0, 0 if it is empty.
func (k *Const) Range() (least, largest int64) {
	n := k.Len()
	if n == 0 {
		return 0, 0
	}
	if k.Splat {
		return k.Int(0), k.Int(0)
	}
	if bits := k.Type.Elem.Bits(); bits == 8 || bits == 4 {
		return k.rangeOfBytes(n)
	}
	least, largest = k.Int(0), k.Int(0)
	for i := range n {
		v := k.Int(i)
		least, largest = min(least, v), max(largest, v)
	}
	return least, largest
}

// rangeOfBytes is Range for elements of 4 and 8 bits: it notes which bytes there are and looks at each once. The last byte
// stays apart: of an odd number of 4-bit elements its high half is none.
func (k *Const) rangeOfBytes(n int64) (least, largest int64) {
	var seen [256]bool
	for _, b := range k.Data[:len(k.Data)-1] {
		seen[b] = true
	}
	per := int64(8 / k.Type.Elem.Bits())
	least, largest = k.Int(n-1), k.Int(n-1)
	for i := int64(len(k.Data)-1) * per; i < n; i++ {
		least, largest = min(least, k.Int(i)), max(largest, k.Int(i))
	}
	for b := range 256 {
		one := Const{Type: k.Type, Data: []byte{byte(b)}}
		for i := int64(0); seen[b] && i < per; i++ {
			least, largest = min(least, one.Int(i)), max(largest, one.Int(i))
		}
	}
	return least, largest
}
