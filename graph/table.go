package graph

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sibyl/bundle/aicode"
)

// Rounding is what an operation does to the precision of its elements.
type Rounding uint8

// The kinds of rounding.
const (
	Moves Rounding = iota // elements are moved, chosen or counted: none is rounded
	Once                  // the arithmetic's float32 result of the whole operation, then the result's dtype
	Twice                 // two roundings to the result's dtype: after the product and after the sum
	Whole                 // whole numbers and truth values, two's complement in the width of the kind
	Flow                  // control, states and calls: computes nothing itself
)

// String is the word in the table.
func (r Rounding) String() string {
	return [...]string{"moves", "once", "twice", "whole numbers", "flow"}[r]
}

// opFunc computes an operation: in are the operands' tensors. Errors say what is wrong with them; where is added.
type opFunc func(c *call, op *aicode.Op, in []*Tensor) ([]*Tensor, error)

// opDef is one operation of the dialect.
type opDef struct {
	name     string // without the version
	versions []int
	operands [2]int // least and most
	results  int    // -1: any number
	rounding Rounding
	eval     opFunc
	control  func(c *call, f *function, fr frame, i *instr) error // instead of eval: works on slots
}

const many = 1 << 16

var v1, v2 = []int{1}, []int{2}

// table is every operation that the engine executes: the dialect as profiles zoo-s1 and apple-q35 use it, with the
// primitives that decompositions in regions consist of. dataflow.graph is a function itself.
var table = []opDef{
	{"primitive.add", v1, [2]int{2, 2}, 1, Once, add, nil},
	{"primitive.sub", v1, [2]int{2, 2}, 1, Once, sub, nil},
	{"primitive.mul", v1, [2]int{2, 2}, 1, Once, mul, nil},
	{"primitive.divide", v1, [2]int{2, 2}, 1, Once, divide, nil},
	{"broadcasting_add", v1, [2]int{2, 2}, 1, Once, add, nil},
	{"broadcasting_sub", v1, [2]int{2, 2}, 1, Once, sub, nil},
	{"broadcasting_mul", v1, [2]int{2, 2}, 1, Once, mul, nil},
	{"broadcasting_divide", v1, [2]int{2, 2}, 1, Once, divide, nil},
	{"primitive.exp", v1, [2]int{1, 1}, 1, Once, exp, nil},
	{"primitive.log", v1, [2]int{1, 1}, 1, Once, log, nil},
	{"primitive.sin", v1, [2]int{1, 1}, 1, Once, sin, nil},
	{"primitive.cos", v1, [2]int{1, 1}, 1, Once, cos, nil},
	{"primitive.rsqrt", v1, [2]int{1, 1}, 1, Once, rsqrt, nil},
	{"sigmoid", v1, [2]int{1, 1}, 1, Once, sigmoid, nil},
	{"silu", v1, [2]int{1, 1}, 1, Once, silu, nil},
	{"primitive.cast", v1, [2]int{1, 1}, 1, Once, cast, nil},

	{"primitive.greater", v1, [2]int{2, 2}, 1, Whole, greater, nil},
	{"broadcasting_greater", v1, [2]int{2, 2}, 1, Whole, greater, nil},
	{"primitive.not", v1, [2]int{1, 1}, 1, Whole, not, nil},
	{"primitive.where", v1, [2]int{3, 3}, 1, Moves, where, nil},
	{"broadcasting_where", v1, [2]int{3, 3}, 1, Moves, where, nil},

	{"primitive.batch_matmul", v1, [2]int{2, 2}, 1, Once, matmul, nil},
	{"broadcasting_batch_matmul", v1, [2]int{2, 2}, 1, Once, matmul, nil},
	{"primitive.conv2d", v1, [2]int{5, 5}, 1, Once, conv2d, nil},
	{"primitive.blockwise_shift_scale", v2, [2]int{4, 4}, 1, Twice, blockwise, nil},
	{"primitive.lut_to_dense", v1, [2]int{3, 3}, 1, Moves, lutToDense, nil},

	{"reduce_sum", v1, [2]int{2, 2}, 1, Once, reduceSum, nil},
	{"reduce_mean", v1, [2]int{2, 2}, 1, Once, reduceMean, nil},
	{"reduce_product", v1, [2]int{2, 2}, 1, Once, reduceProduct, nil},
	{"primitive.reduce", v1, [2]int{3, 3}, 1, Flow, nil, reduceRegion},
	{"softmax", v1, [2]int{2, 2}, 1, Once, softmax, nil},
	{"sort", v1, [2]int{4, 4}, 1, Moves, sortValues, nil},
	{"primitive.argsort", v1, [2]int{4, 4}, 1, Moves, argsort, nil},

	{"primitive.reshape", v2, [2]int{2, 2}, 1, Moves, reshape, nil},
	{"primitive.transpose", v1, [2]int{2, 2}, 1, Moves, transpose, nil},
	{"primitive.expand_dims", v1, [2]int{2, 2}, 1, Moves, expandDims, nil},
	{"primitive.shrink_dims", v1, [2]int{2, 2}, 1, Moves, shrinkDims, nil},
	{"primitive.broadcast_to", v1, [2]int{2, 2}, 1, Moves, broadcastTo, nil},
	{"primitive.broadcast_in_dims", v1, [2]int{3, 3}, 1, Moves, broadcastInDims, nil},
	{"primitive.broadcast_shapes", v1, [2]int{2, many}, 1, Whole, broadcastShapes, nil},
	{"primitive.get_shape", v2, [2]int{1, 1}, 1, Whole, getShape, nil},
	{"primitive.range", v1, [2]int{3, 3}, 1, Whole, rangeOf, nil},
	{"primitive.concat", v1, [2]int{2, many}, 1, Moves, concat, nil},
	{"primitive.split", v1, [2]int{3, 3}, -1, Moves, split, nil},
	{"primitive.slice", v1, [2]int{4, 4}, 1, Moves, slice, nil},
	{"primitive.slice_update", v1, [2]int{5, 5}, 1, Moves, sliceUpdate, nil},
	{"primitive.gather_nd", v1, [2]int{2, 2}, 1, Moves, gatherND, nil},
	{"primitive.gather_along_axis", v1, [2]int{3, 3}, 1, Moves, gatherAlongAxis, nil},
	{"primitive.scatter_along_axis", v1, [2]int{4, 4}, 1, Moves, scatterAlongAxis, nil},

	{"primitive.constant", v1, [2]int{0, 0}, 1, Moves, constantOp, nil},
	{"dataflow.create_token", v1, [2]int{0, 0}, 1, Flow, nil, createToken},
	{"dataflow.read_handle", v1, [2]int{2, 2}, 2, Flow, nil, readHandle},
	{"dataflow.write_handle", v1, [2]int{3, 3}, 1, Flow, nil, writeHandle},
	{"dataflow.invoke", v1, [2]int{0, many}, -1, Flow, nil, invoke},
	{"controlflow.while", v1, [2]int{0, many}, -1, Flow, nil, while},
	{"dataflow.output", v1, [2]int{0, many}, 0, Flow, nil, nil},
	{"dataflow.yield", v1, [2]int{0, many}, 0, Flow, nil, nil},
	{"controlflow.condition", v1, [2]int{1, many}, 0, Flow, nil, nil},
}

var byName = func() map[string]*opDef {
	m := map[string]*opDef{}
	for i := range table {
		m[table[i].name] = &table[i]
	}
	return m
}()

// loads says whether stored operands are brought into memory, while there is room: what computes with weights, or chooses
// experts among them. The embedding is read row by row.
func (d *opDef) loads() bool { return d.rounding == Once || d.name == "primitive.gather_along_axis" }

// Op is a line of the table of operations, for lists and documents.
type Op struct {
	Name     string
	Versions []int
	Rounding Rounding
}

// Ops lists what the engine executes, in the order of the table.
func Ops() []Op {
	out := make([]Op, len(table))
	for i, d := range table {
		out[i] = Op{d.name, d.versions, d.rounding}
	}
	return out
}

// baseName splits "primitive.add_v1" into name and version; the version is 0 where the name has none.
func baseName(name string) (string, int) {
	i := strings.LastIndex(name, "_v")
	if i < 0 {
		return name, 0
	}
	n, err := strconv.Atoi(name[i+2:])
	if err != nil {
		return name, 0
	}
	return name[:i], n
}

// lookup finds an operation in the table, or says what is not known of it.
func lookup(op *aicode.Op) (*opDef, error) {
	name, version := baseName(op.Name)
	d := byName[name]
	switch {
	case d == nil:
		return nil, fmt.Errorf("an operation that sibyl does not know")
	case !slices.Contains(d.versions, version):
		return nil, fmt.Errorf("version %d of %s; known: %v", version, name, d.versions)
	case len(op.Operands) < d.operands[0] || len(op.Operands) > d.operands[1]:
		return nil, fmt.Errorf("%d operands, want %d to %d", len(op.Operands), d.operands[0], d.operands[1])
	case d.results >= 0 && len(op.Results) != d.results:
		return nil, fmt.Errorf("%d results, want %d", len(op.Results), d.results)
	}
	return d, nil
}
