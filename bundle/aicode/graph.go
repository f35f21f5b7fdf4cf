package aicode

import (
	"fmt"

	"sibyl/internal/mlirb"
)

// Names of attributes in graphs.
const (
	attrArgName  = "aicode.name"
	attrMutation = "MutableBuffers.buffer_mutation"
)

// graph makes a Graph of its operation.
func (r *reader) graph(op *Op) (*Graph, error) {
	if op.Name != "dataflow.graph_v1" {
		return nil, &mlirb.Fault{Offset: op.Offset, Where: op.Name, Found: "this operation beside graphs", Want: "dataflow.graph_v1", Unknown: true}
	}
	name, ok := op.Attrs["name"].(string)
	ft, isType := op.Attrs["functionType"].(*Type)
	args, hasArgs := op.Attrs["argAttrs"].([]Attr)
	res, hasRes := op.Attrs["resAttrs"].([]Attr)
	switch {
	case !ok || name == "":
		return nil, at(op, "no name", "a graph's name")
	case !isType || ft == nil || ft.Kind != Function:
		return nil, at(op, "no function type", "one")
	case !hasArgs || !hasRes || len(args) != len(ft.Operands) || len(res) != len(ft.Results):
		return nil, at(op, fmt.Sprintf("%d and %d names", len(args), len(res)), fmt.Sprintf("%d operands' and %d results'", len(ft.Operands), len(ft.Results)))
	case len(op.Regions) != 1:
		return nil, at(op, fmt.Sprintf("%d regions", len(op.Regions)), "one")
	}
	g := &Graph{Name: name, Private: truth(op.Attrs["isPrivate"]), Body: op.Regions[0], Offset: op.Offset}
	if err := g.composite(op); err != nil {
		return nil, err
	}
	if err := g.inputs(op, ft, args); err != nil {
		return nil, err
	}
	return g, g.outputs(op, ft, res)
}

func truth(a Attr) bool {
	switch v := a.(type) {
	case bool:
		return v
	case int64:
		return v != 0
	case uint64:
		return v != 0
	}
	return false
}

// composite reads what a private graph decomposes.
func (g *Graph) composite(op *Op) error {
	a, there := op.Attrs["compositeDecl"]
	if !there {
		return nil
	}
	n, ok := a.(Named)
	if !ok {
		return at(op, fmt.Sprintf("a composite that is a %T", a), "a named attribute")
	}
	g.Composite = n.Name
	for _, v := range n.Values {
		f, ok := v.(Named)
		if !ok || f.Name != "op_attrs" {
			continue
		}
		if g.OpAttrs, ok = f.value().(map[string]Attr); !ok {
			return at(op, fmt.Sprintf("attributes of a composite that are a %T", f.value()), "a dictionary")
		}
		break
	}
	return nil
}

// maxArgAttrs bounds the attributes of one operand or result: real ones have 2.
const maxArgAttrs = 64

// argName finds a string by name in the attributes of an operand or result.
func argName(a Attr, key string) string {
	list, _ := a.([]Attr)
	for _, x := range list[:min(len(list), maxArgAttrs)] {
		if n, ok := x.(Named); ok && n.Name == key {
			s, _ := n.value().(string)
			return s
		}
	}
	return ""
}

func (g *Graph) inputs(op *Op, ft *Type, attrs []Attr) error {
	if len(g.Body.Args) != len(ft.Operands) {
		return at(op, fmt.Sprintf("a body of %d arguments", len(g.Body.Args)), fmt.Sprintf("%d, as its type says", len(ft.Operands)))
	}
	for i, t := range ft.Operands {
		a := Arg{Name: argName(attrs[i], attrArgName), Type: t}
		if !g.Body.Args[i].Type.Equal(t) {
			return at(op, fmt.Sprintf("argument %d of type %s", i, g.Body.Args[i].Type), fmt.Sprintf("%s, as its type says", t))
		}
		if t.Kind == Handle {
			if a.State = argName(attrs[i], attrMutation); a.State == "" {
				a.State = a.Name
			}
			if a.State != a.Name {
				return at(op, fmt.Sprintf("state %.80q that is to become %.80q", a.Name, a.State), "one name")
			}
		}
		g.Inputs = append(g.Inputs, a)
	}
	return nil
}

func (g *Graph) outputs(op *Op, ft *Type, attrs []Attr) error {
	for i, t := range ft.Results {
		g.Outputs = append(g.Outputs, Arg{Name: argName(attrs[i], attrArgName), Type: t})
	}
	n := len(g.Body.Ops)
	if n == 0 || g.Body.Ops[n-1].Name != "dataflow.output_v1" {
		return at(op, "a body that ends otherwise", "dataflow.output_v1 last")
	}
	out := g.Body.Ops[n-1]
	if len(out.Operands) != len(ft.Results) {
		return at(out, fmt.Sprintf("%d results", len(out.Operands)), fmt.Sprintf("%d, as the graph's type says", len(ft.Results)))
	}
	for i, v := range out.Operands {
		if v.Type.Kind != ft.Results[i].Kind || v.Type.Kind == Tensor && v.Type.Elem != ft.Results[i].Elem {
			return at(out, fmt.Sprintf("result %d of type %s", i, v.Type), ft.Results[i].String())
		}
	}
	return nil
}

// calls demands that every call finds its graph, with as many operands and results, and that no graph calls itself.
func (r *reader) calls(graphs map[string]*Graph) error {
	state := map[*Graph]int{} // 1: being looked at, 2: done
	var visit func(g *Graph, from *Op) error
	visit = func(g *Graph, from *Op) error {
		switch state[g] {
		case 1:
			return at(from, fmt.Sprintf("a call of %.80q from within it", g.Name), "no cycle of calls")
		case 2:
			return nil
		}
		state[g] = 1
		err := g.Body.Walk(func(op *Op) error {
			if op.Callee == "" {
				return nil
			}
			to := graphs[op.Callee]
			if to == nil {
				return at(op, fmt.Sprintf("a call of %.80q", op.Callee), "a graph of the file")
			}
			if len(op.Operands) != len(to.Inputs) || len(op.Results) != len(to.Outputs) {
				return at(op, fmt.Sprintf("a call of %.80q with %d operands and %d results", to.Name, len(op.Operands), len(op.Results)),
					fmt.Sprintf("%d and %d", len(to.Inputs), len(to.Outputs)))
			}
			return visit(to, op)
		})
		state[g] = 2
		return err
	}
	for _, g := range r.prog.Graphs {
		if err := visit(g, nil); err != nil {
			return err
		}
	}
	return nil
}

// Walk calls f for every operation of the block and of the regions within, in their order, until f fails.
func (b *Block) Walk(f func(*Op) error) error {
	for _, op := range b.Ops {
		if err := f(op); err != nil {
			return err
		}
		for _, r := range op.Regions {
			if err := r.Walk(f); err != nil {
				return err
			}
		}
	}
	return nil
}
