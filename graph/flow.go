package graph

import (
	"slices"
	"strings"

	"sibyl/bundle/aicode"
)

// flow answers questions about the values of one function's own block.
type flow struct {
	p *aicode.Program
	g *aicode.Graph
}

// kind is what an operation is: its name without group, version and broadcasting, or the composite that it calls.
func (f *flow) kind(op *aicode.Op) string {
	if op == nil {
		return ""
	}
	name, _ := baseName(op.Name)
	if name == "dataflow.invoke" {
		if g := f.p.Graph(op.Callee); g != nil && g.Composite != "" {
			return g.Composite
		}
	}
	return strings.TrimPrefix(name[strings.LastIndexByte(name, '.')+1:], "broadcasting_")
}

// reorders lists operations that give their first operand's elements in another order, shape, type or number.
var reorders = []string{"reshape", "cast", "transpose", "expand_dims", "shrink_dims", "broadcast_in_dims", "broadcast_to"}

// source goes from v back through reorders, casts only if asked for.
func (f *flow) source(v *aicode.Value, casts bool) *aicode.Value {
	for v != nil && v.Def != nil && len(v.Def.Operands) > 0 {
		if k := f.kind(v.Def); !slices.Contains(reorders, k) || k == "cast" && !casts {
			break
		}
		v = v.Def.Operands[0]
	}
	return v
}

// first is the first operation that reads v in more than another order or shape.
func (f *flow) first(v *aicode.Value) *aicode.Op {
	if v == nil {
		return nil
	}
	for _, op := range v.Users {
		k := f.kind(op)
		if k != "cast" && slices.Contains(reorders, k) {
			if next := f.first(result(op)); next != nil {
				return next
			}
			continue
		}
		return op
	}
	return nil
}

// next finds the first operation of one of the kinds that v reaches through operations of the kinds in through (and
// reorders), in the order of the block. nil if there is none.
func (f *flow) next(v *aicode.Value, kinds []string, through ...string) *aicode.Op {
	var found *aicode.Op
	seen := map[*aicode.Value]bool{}
	for todo := []*aicode.Value{v}; len(todo) > 0; todo = todo[1:] {
		if todo[0] == nil || seen[todo[0]] {
			continue
		}
		seen[todo[0]] = true
		for _, op := range todo[0].Users {
			if op.Index >= len(f.g.Body.Ops) || f.g.Body.Ops[op.Index] != op {
				continue // in a region
			}
			k := f.kind(op)
			switch {
			case slices.Contains(kinds, k):
				if found == nil || op.Index < found.Index {
					found = op
				}
			case slices.Contains(reorders, k) || slices.Contains(through, k):
				todo = append(todo, op.Results...)
			}
		}
	}
	return found
}

// between lists operations of a kind between two places of the block, both excluded.
func (f *flow) between(from, to *aicode.Value, kind string) []*aicode.Op {
	var out []*aicode.Op
	if from == nil || to == nil || from.Def == nil || to.Def == nil {
		return nil
	}
	for i := from.Def.Index + 1; i < to.Def.Index; i++ {
		if op := f.g.Body.Ops[i]; f.kind(op) == kind {
			out = append(out, op)
		}
	}
	return out
}

// result is an operation's first result, nil if there is none.
func result(op *aicode.Op) *aicode.Value {
	if op == nil || len(op.Results) == 0 {
		return nil
	}
	return op.Results[0]
}

// operand is an operation's i-th operand, nil if there is none.
func operand(op *aicode.Op, i int) *aicode.Value {
	if op == nil || i >= len(op.Operands) {
		return nil
	}
	return op.Operands[i]
}

// updates is the name of the state of which a slice_update changes a part, "" for every other operation.
func (f *flow) updates(op *aicode.Op) string {
	if f.kind(op) != "slice_update" {
		return ""
	}
	if r := operand(op, 0); r != nil && r.Def != nil && f.kind(r.Def) == "read_handle" {
		for i, a := range f.g.Body.Args {
			if a == operand(r.Def, 0) {
				return f.g.Inputs[i].State
			}
		}
	}
	return ""
}
