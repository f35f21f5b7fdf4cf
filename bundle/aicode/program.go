// Package aicode is the dialect of an .aimodel's main.mlirb, decoded: types, constants, graphs and their operations as
// plain data. It knows the format and computes nothing: package bundle recovers weights from it, package graph executes it.
// Source: the on-disk form was pinned against Apple's own reader; docs/aimodel.md tells it.
package aicode

import "fmt"

// Kind is what a type is: a scalar, or something that is no tensor's element.
type Kind uint8

// The kinds that files hold. Scalars are elements of tensors.
const (
	Invalid Kind = iota
	Bool         // one byte
	F64
	F32
	F16
	BF16
	I64
	I32
	I16
	I8
	I4
	I2
	U64
	U32
	U16
	U8
	U6
	U4
	U3
	U2
	U1
	TF32
	C128 // complex numbers by their bits: decoded, never computed with
	C64
	C32
	CBF16
	Tensor
	Handle // a state: Type.Of is the tensor it holds
	Token  // orders reads and writes of handles
	Function
	Param // a generic parameter
)

// Dynamic is a dimension that the call decides.
const Dynamic = -1

// Type is the type of a value. Types are shared and never changed.
type Type struct {
	Kind     Kind
	Elem     Kind    // of a tensor
	Dims     []int64 // of a tensor, row-major, Dynamic where the call decides; nil for a scalar tensor
	Of       *Type   // of a handle
	Operands []*Type // of a function
	Results  []*Type // of a function
	Layout   bool    // a tensor whose layout some hardware demands: only compiled files have one
}

// Program is a decoded main.mlirb. Its bytes stay those of the mapped file.
type Program struct {
	File         string // for messages
	Bytecode     uint64 // version of the container
	Size         int64  // of the file
	Producer     string
	Dialect      []byte // the dialect's version bytes
	AssetVersion uint64 // the least version of the format that the operations need, not the tool's
	Graphs       []*Graph
	Resources    []Resource // every blob, in the order of the file
}

// Resource is a named blob of the file.
type Resource struct {
	Key    string
	Offset int64 // in the file
	Align  int64
	Data   []byte // a view of the file
}

// Graph is one function: a composite (private) or an entry point.
type Graph struct {
	Name      string
	Private   bool
	Composite string          // the composite that a private graph decomposes: "rms_norm", "" for none
	OpAttrs   map[string]Attr // the composite's attributes, such as scale and is_causal
	Inputs    []Arg           // in the order of Body.Args
	Outputs   []Arg           // in the order of the output operation's operands; tokens of states first
	Body      *Block
	Offset    int64 // where the graph stands in the file
}

// Arg is a named operand or result of a graph.
type Arg struct {
	Name  string
	Type  *Type
	State string // the state's name where the operand is a handle that the graph changes, else ""
}

// Block is a straight line of operations.
type Block struct {
	Args []*Value
	Ops  []*Op
}

// Op is one operation.
type Op struct {
	Name     string // without the dialect: "primitive.transpose_v1"
	Operands []*Value
	Results  []*Value
	Regions  []*Block        // bodies of loops; decompositions of composite-like operations
	Attrs    map[string]Attr // properties by name; nil for most
	Const    *Const          // of primitive.constant_v1
	Callee   string          // of dataflow.invoke_v1
	ID       int64           // the exporter's op_id, -1 where the file has none
	Offset   int64           // where the operation stands in the file
	Index    int             // its place in its block
}

// Value is a result of an operation or an argument of a block.
type Value struct {
	Type  *Type
	Def   *Op // nil for a block's argument
	Index int // which result or argument
	Users []*Op
}

// Const is a constant's bytes as they are stored, a view of the file. Their number was held against the type.
type Const struct {
	Type     *Type  // a tensor without dynamic dimensions; nil for elements within another attribute
	Splat    bool   // Data is one element, which every element has
	Data     []byte // packed: two 4-bit elements a byte, the even one in the low nibble
	Resource string // key of the resource that holds it; "" = inline
	Offset   int64  // of Data in the file
}

// Attr is an attribute's value: string, Symbol, int64, uint64, float64, bool (an integer of one bit), *Type, []Attr, Named,
// map[string]Attr (a dictionary), *Const (elements without a type), or nil for unit.
type Attr any

// Symbol is the name of a graph.
type Symbol string

// Named is an attribute with a name, mostly of one value.
type Named struct {
	Name   string
	Values []Attr
}

// Graph gives a graph by name, nil if there is none.
func (p *Program) Graph(name string) *Graph {
	for _, g := range p.Graphs {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// Where is how a message names an operation: "op 12 primitive.add_v1 (op_id 830) at byte 40213".
func (o *Op) Where() string {
	id := ""
	if o.ID >= 0 {
		id = fmt.Sprintf(" (op_id %d)", o.ID)
	}
	return fmt.Sprintf("op %d %s%s at byte %d", o.Index, o.Name, id, o.Offset)
}
