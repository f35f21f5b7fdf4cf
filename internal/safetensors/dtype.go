// Package safetensors reads and writes the safetensors container: 8 bytes of header length (little endian), a JSON
// header, and the tensors' bytes without gaps.
//
// Reading goes through two parsers. Our scanner goes first and refuses everything the other would let pass:
// duplicate keys, invalid UTF-8, overflowing shapes, holes, overlaps, trailing bytes. Then the entries of the
// dtypes it knows are handed to github.com/nlpodyssey/safetensors, and both must have read the same.
// Format: https://github.com/huggingface/safetensors, README, "Format".
package safetensors

// DType is a dtype as the header writes it: "F32", "BF16".
type DType string

// The dtypes of this package's users. Others are kept by name.
const (
	F16  DType = "F16"
	BF16 DType = "BF16"
	F32  DType = "F32"
	F64  DType = "F64"
	U8   DType = "U8"
	I8   DType = "I8"
	I16  DType = "I16"
	I32  DType = "I32"
	I64  DType = "I64"
)

// Size is the bytes of one element, 0 for a dtype this package does not know (F8_E4M3, F4, ...).
func (d DType) Size() int {
	switch d {
	case "BOOL", U8, I8:
		return 1
	case F16, BF16, I16, "U16":
		return 2
	case F32, I32, "U32":
		return 4
	case F64, I64, "U64":
		return 8
	}
	return 0
}

// Tensor is one entry of a header.
type Tensor struct {
	Name  string
	DType DType
	Shape []int // row-major; empty for a scalar
	// Begin and End are byte offsets in the data section.
	Begin, End int64
	// Data is the tensor's bytes, little endian, at no promised alignment. It is nil in a Header that was parsed
	// without its data.
	Data []byte
}

// Elements is the product of the shape: 1 for a scalar.
func (t *Tensor) Elements() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}
