package bundle

import (
	"slices"
	"strings"

	"sibyl/bundle/aicode"
)

// Questions about the flow of values in a function's top block. Regions below it are decompositions of single operations
// and are not looked into.

// opName is an operation's name without its group, its version and the word that says that it broadcasts:
// "primitive.transpose_v1" is transpose, "broadcasting_batch_matmul_v1" is batch_matmul.
func opName(op *aicode.Op) string {
	name := op.Name[strings.LastIndexByte(op.Name, '.')+1:]
	if i := strings.LastIndex(name, "_v"); i > 0 && strings.Trim(name[i+2:], "0123456789") == "" {
		name = name[:i]
	}
	return strings.TrimPrefix(name, "broadcasting_")
}

// shapeOps give their first operand's elements, or their nearest in another type, in the same order or transposed.
var shapeOps = map[string]bool{"reshape": true, "cast": true, "transpose": true, "expand_dims": true, "shrink_dims": true}

// use is an operation that reads a value, perhaps in another shape or type.
type use struct {
	op      *aicode.Op
	operand int
}

// uses lists who reads v, looking through shape operations, in the order of the block.
func (f *flow) uses(v *aicode.Value) (out []use) {
	if v == nil {
		return nil
	}
	seen := map[*aicode.Value]bool{v: true}
	for todo := []*aicode.Value{v}; len(todo) > 0; todo = todo[1:] {
		for _, op := range todo[0].Users {
			if !f.top(op) {
				continue
			}
			for i, o := range op.Operands {
				switch {
				case o != todo[0]:
				case i == 0 && shapeOps[opName(op)] && len(op.Results) == 1:
					if r := op.Results[0]; !seen[r] {
						seen[r] = true
						todo = append(todo, r)
					}
				case !slices.Contains(out, use{op, i}):
					out = append(out, use{op, i})
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b use) int { return a.op.Index - b.op.Index })
	return out
}

// flow is one function of a program.
type flow struct {
	prog       *aicode.Program
	g          *aicode.Graph
	composites map[string]*aicode.Graph // by the name of the private graph
}

func newFlow(p *aicode.Program, g *aicode.Graph) *flow {
	f := &flow{prog: p, g: g, composites: map[string]*aicode.Graph{}}
	for _, c := range p.Graphs {
		if c.Private {
			f.composites[c.Name] = c
		}
	}
	return f
}

// top says whether op stands in the function's own block.
func (f *flow) top(op *aicode.Op) bool {
	ops := f.g.Body.Ops
	return op.Index >= 0 && op.Index < len(ops) && ops[op.Index] == op
}

// kind is what an operation is to the walk: its name, or the composite that it calls.
func (f *flow) kind(op *aicode.Op) string {
	if name := opName(op); name != "invoke" {
		return name
	}
	if c := f.composites[op.Callee]; c != nil && c.Composite != "" {
		return c.Composite
	}
	return "invoke"
}

// first is the first use of v by an operation of one of the kinds.
func (f *flow) first(v *aicode.Value, kinds ...string) (use, bool) {
	for _, u := range f.uses(v) {
		if slices.Contains(kinds, f.kind(u.op)) {
			return u, true
		}
	}
	return use{}, false
}

// result is an operation's first result; nil if it has none.
func result(op *aicode.Op) *aicode.Value {
	if op == nil || len(op.Results) == 0 {
		return nil
	}
	return op.Results[0]
}

// back goes from v to the operation it comes from, through shape operations; nil for a block's argument.
func back(v *aicode.Value) *aicode.Op {
	for v != nil && v.Def != nil {
		if !shapeOps[opName(v.Def)] || len(v.Def.Operands) == 0 {
			return v.Def
		}
		v = v.Def.Operands[0]
	}
	return nil
}

// operand is an operation's i-th operand; nil if it has none.
func operand(op *aicode.Op, i int) *aicode.Value {
	if op == nil || i >= len(op.Operands) {
		return nil
	}
	return op.Operands[i]
}

// other is the operand of a binary operation that u is not.
func (u use) other() *aicode.Value {
	if len(u.op.Operands) != 2 {
		return nil
	}
	return u.op.Operands[1-min(u.operand, 1)]
}

// constant is the constant that v is, perhaps in another shape or type; nil if it is computed.
func constant(v *aicode.Value) *aicode.Op {
	if op := back(v); op != nil && op.Const != nil {
		return op
	}
	return nil
}

// ints gives the elements of a small constant of whole numbers; nil if op is none.
func ints(op *aicode.Op) []int64 {
	if op == nil || op.Const == nil || !op.Const.Type.Elem.IsInt() || op.Const.Len() > 64 {
		return nil
	}
	out := make([]int64, op.Const.Len())
	for i := range out {
		out[i] = op.Const.Int(int64(i))
	}
	return out
}

// elements is the product of a static tensor's dimensions, bounded by 2^40.
func elements(t *aicode.Type) (int, bool) {
	if t == nil {
		return 0, false
	}
	n, ok := t.Numel()
	return int(n), ok && n <= 1<<40
}

// span is what a slice takes of one axis of its operand: [lo, hi), with stride 1 and everything of the other axes that
// are static.
func span(op *aicode.Op, axis int) (lo, hi int, ok bool) {
	if opName(op) != "slice" || len(op.Operands) < 3 || op.Operands[0].Type == nil {
		return 0, 0, false
	}
	dims := op.Operands[0].Type.Dims
	begin := at(op.Operands[1], axis)
	end := at(op.Operands[2], axis)
	if axis >= len(dims) || dims[axis] < 0 || begin == nil || end == nil {
		return 0, 0, false
	}
	clip := func(x int64) int {
		if x < 0 {
			x += dims[axis]
		}
		return int(max(0, min(x, dims[axis])))
	}
	lo, hi = clip(*begin), clip(*end)
	return lo, hi, lo < hi
}

// at is element i of a list of indices: of a constant, or of a concatenation of which that element is constant.
func at(v *aicode.Value, i int) *int64 {
	op := back(v)
	if op == nil {
		return nil
	}
	if list := ints(op); list != nil {
		if i < len(list) {
			return &list[i]
		}
		return nil
	}
	if opName(op) != "concat" {
		return nil
	}
	for _, part := range op.Operands[1:] { // the first is the axis
		n, ok := elements(part.Type)
		if !ok {
			return nil
		}
		if i < n {
			return at(part, i)
		}
		i -= n
	}
	return nil
}
