package aicode

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"sibyl/internal/mlirb"
)

// kinds are the scalar types: code in the file, name in listings, bits of an element.
var kinds = [...]struct {
	code uint64
	name string
	bits int
}{
	Bool: {4, "bool", 8}, F64: {5, "f64", 64}, F32: {6, "f32", 32}, F16: {7, "f16", 16}, BF16: {8, "bf16", 16},
	I64: {17, "i64", 64}, I32: {18, "i32", 32}, I16: {19, "i16", 16}, I8: {20, "i8", 8}, I4: {21, "i4", 4}, I2: {22, "i2", 2},
	U64: {23, "u64", 64}, U32: {24, "u32", 32}, U16: {25, "u16", 16}, U8: {26, "u8", 8}, U4: {27, "u4", 4}, U2: {28, "u2", 2}, U1: {29, "u1", 1},
	U6: {36, "u6", 6}, U3: {37, "u3", 3}, TF32: {38, "tf32", 32},
	C128: {11, "c128", 128}, C64: {12, "c64", 64}, C32: {13, "c32", 32}, CBF16: {14, "cbf16", 32},
}

// Codes of the other types.
const (
	codeTensor   = 2
	codeEncoded  = 3 // a tensor with a layout that the hardware demands: in compiled files
	codeFunction = 30
	codeHandle   = 31
	codeToken    = 32
	codeSymbol   = 33
	codeParam    = 34
)

// String is the kind's name in listings: "f16", "tensor".
func (k Kind) String() string {
	if int(k) < len(kinds) && kinds[k].name != "" {
		return kinds[k].name
	}
	switch k {
	case Tensor:
		return "tensor"
	case Handle:
		return "handle"
	case Token:
		return "token"
	case Function:
		return "function"
	case Param:
		return "parameter"
	}
	return "no type"
}

// Bits is what an element takes in a file: 8 for bool, 4 for i4; 0 for what is no scalar.
func (k Kind) Bits() int {
	if int(k) < len(kinds) {
		return kinds[k].bits
	}
	return 0
}

// IsFloat says whether the kind is a real floating-point number.
func (k Kind) IsFloat() bool { return k == F64 || k == F32 || k == F16 || k == BF16 }

// IsInt says whether the kind is an integer; bool is none.
func (k Kind) IsInt() bool { return k >= I64 && k <= U1 }

// String is the type as listings print it: "f16[1,?,48]", "handle f16[2]", "token".
func (t *Type) String() string {
	switch t.Kind {
	case Tensor:
		return t.Elem.String() + ShapeString(t.Dims)
	case Handle:
		return "handle " + t.Of.String()
	case Function:
		return "(" + typeList(t.Operands) + ") -> (" + typeList(t.Results) + ")"
	}
	return t.Kind.String()
}

func typeList(list []*Type) string {
	s := make([]string, len(list))
	for i, t := range list {
		s[i] = t.String()
	}
	return strings.Join(s, ", ")
}

// ShapeString prints dimensions: "[1,?,48]", a dynamic one as "?".
func ShapeString(dims []int64) string {
	s := make([]string, len(dims))
	for i, d := range dims {
		if s[i] = strconv.FormatInt(d, 10); d == Dynamic {
			s[i] = "?"
		}
	}
	return "[" + strings.Join(s, ",") + "]"
}

// Numel is the number of a tensor's elements; false where a dimension is dynamic or the number leaves int64.
func (t *Type) Numel() (int64, bool) {
	if t.Kind != Tensor {
		return 0, false
	}
	n := int64(1)
	for _, d := range t.Dims {
		if d < 0 || d > 0 && n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// Bytes is what the tensor's elements take in a file, packed; false as in Numel.
func (t *Type) Bytes() (int64, bool) {
	n, ok := t.Numel()
	if !ok || n > (math.MaxInt64-7)/128 {
		return 0, false
	}
	return (n*int64(t.Elem.Bits()) + 7) / 8, true
}

// Equal says whether two types are the same.
func (t *Type) Equal(u *Type) bool {
	return t == u || t.Kind == u.Kind && t.String() == u.String()
}

// maxTypeNesting bounds types within types: real ones have 3 levels.
const maxTypeNesting = 16

// maxRank bounds a tensor's dimensions: real ones have 5.
const maxRank = 32

// typ decodes type i, once.
func (r *reader) typ(c *mlirb.Cursor, i uint64, depth int) *Type {
	switch {
	case !c.OK():
		return nil
	case i >= uint64(len(r.file.Types)):
		c.Fail(fmt.Sprintf("type %d", i), fmt.Sprintf("one of the file's %d", len(r.file.Types)))
		return nil
	case r.types[i] != nil:
		return r.types[i]
	case depth > maxTypeNesting:
		c.Fail("types nested deeper than that", fmt.Sprintf("at most %d levels", maxTypeNesting))
		return nil
	}
	e := r.file.Types[i]
	d := r.file.Entry(e, fmt.Sprintf("type %d", i))
	t := &Type{}
	if r.ours(&d, e, "type") {
		r.typeBody(&d, t, depth)
		d.End()
	}
	if !d.OK() {
		c.Adopt(&d)
		return nil
	}
	r.types[i] = t
	return t
}

// ours demands an entry in the dialect's own encoding.
func (r *reader) ours(c *mlirb.Cursor, e mlirb.Entry, what string) bool {
	if d := r.file.Dialects[e.Dialect].Name; d != dialectName || !e.Custom {
		c.FailUnknown(fmt.Sprintf("a %s of dialect %.80q", what, d), "one of "+dialectName+" in its own encoding")
	}
	return c.OK()
}

func (r *reader) typeBody(c *mlirb.Cursor, t *Type, depth int) {
	sub := func() *Type { return r.typ(c, c.Varint(), depth+1) }
	list := func() (list []*Type) {
		for n := c.Count("types", 1); n > 0 && c.OK(); n-- {
			t := sub()
			if t != nil && t.Kind == Function {
				c.Fail("a function of functions", "one of tensors, handles and tokens")
			}
			list = append(list, t)
		}
		return list
	}
	code := c.Varint()
	switch code {
	case codeTensor, codeEncoded:
		t.Kind = Tensor
		t.Dims = r.dims(c)
		if e := sub(); e != nil && e.Kind.Bits() == 0 {
			c.Fail("a tensor of "+e.String(), "one of scalars")
		} else if e != nil {
			t.Elem = e.Kind
		}
		if code == codeEncoded {
			t.Layout = true
			c.Varint()
		}
	case codeFunction:
		t.Kind = Function
		t.Results = list() // results first
		t.Operands = list()
	case codeHandle:
		t.Kind = Handle
		if t.Of = sub(); t.Of != nil && t.Of.Kind != Tensor {
			c.Fail("a handle of "+t.Of.String(), "one of a tensor")
		}
	case codeToken:
		t.Kind = Token
	case codeSymbol, codeParam:
		t.Kind = Param
	default:
		if t.Kind = scalar(code); t.Kind == Invalid && c.OK() {
			c.FailUnknown(fmt.Sprintf("type code %d", code), "a code of dialect version 5")
		}
	}
}

func scalar(code uint64) Kind {
	for k, s := range kinds {
		if s.name != "" && s.code == code {
			return Kind(k)
		}
	}
	return Invalid
}

func (r *reader) dims(c *mlirb.Cursor) []int64 {
	n := c.Count("dimensions", 1)
	if n > maxRank {
		c.Fail(fmt.Sprintf("%d dimensions", n), fmt.Sprintf("at most %d", maxRank))
	}
	if n == 0 || !c.OK() {
		return nil
	}
	dims := make([]int64, n)
	for i := range dims {
		d := c.Signed()
		switch {
		case d == math.MinInt64:
			d = Dynamic
		case d < 0:
			c.Fail(fmt.Sprintf("a dimension of %d", d), "0 or more, or a dynamic one")
		}
		dims[i] = d
	}
	return dims
}
