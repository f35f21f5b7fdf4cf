package aicode

import (
	"fmt"

	"sibyl/internal/mlirb"
)

// properties are the operations that have any: names in the order of the file, an optional one with "?".
var properties = map[string][]string{
	"serialization.asset":             {"unknown?", "version?"},
	"dataflow.graph_v1":               {"argAttrs", "compositeDecl?", "externalize", "functionType", "isPrivate", "name", "noInline", "paramDecls", "resAttrs"},
	"dataflow.invoke_v1":              {"arg_attrs", "callee", "res_attrs"},
	"primitive.constant_v1":           {"value"},
	"primitive.scatter_along_axis_v1": {"scatter_mode"},
}

// builder makes Ops and Values of what the container tells.
type builder struct {
	r      *reader
	top    []*Op
	stack  []frame    // operations whose regions are being read
	scopes [][]*Value // values by number; the last scope is the one in use
}

type frame struct {
	op     *Op
	block  *Block // being filled
	fresh  bool   // its region opened a scope
	values int    // length of the scope before its region
}

func (b *builder) Op(o *mlirb.Op) error {
	op, err := b.op(o)
	if err != nil {
		return err
	}
	if len(b.stack) == 0 {
		b.top = append(b.top, op)
	} else {
		blk := b.stack[len(b.stack)-1].block
		op.Index = len(blk.Ops)
		blk.Ops = append(blk.Ops, op)
	}
	b.stack = append(b.stack, frame{op: op})
	return nil
}

func (b *builder) EndOp() error {
	b.stack = b.stack[:len(b.stack)-1]
	return nil
}

func (b *builder) Region(g mlirb.Region) error {
	f := &b.stack[len(b.stack)-1]
	f.block, f.fresh = nil, g.NewScope
	if g.NewScope {
		b.scopes = append(b.scopes, nil)
	} else if len(b.scopes) == 0 {
		return at(f.op, "a region that sees outer values", "an isolated one, outermost")
	}
	s := &b.scopes[len(b.scopes)-1]
	f.values = len(*s)
	*s = append(*s, make([]*Value, g.Values)...)
	return nil
}

func (b *builder) EndRegion() error {
	f := &b.stack[len(b.stack)-1]
	if f.block == nil {
		return at(f.op, "a region without a block", "one block")
	}
	f.op.Regions = append(f.op.Regions, f.block)
	if s := len(b.scopes) - 1; f.fresh {
		b.scopes = b.scopes[:s]
	} else {
		b.scopes[s] = b.scopes[s][:f.values]
	}
	return nil
}

func (b *builder) Block(args []mlirb.Arg, first uint64) error {
	if len(b.stack) == 0 {
		return nil // the outermost, which has operations only
	}
	f := &b.stack[len(b.stack)-1]
	if f.block != nil {
		return &mlirb.Fault{Offset: f.op.Offset, Where: f.op.Name, Found: "a region of several blocks", Want: "one block: a straight line", Unknown: true}
	}
	f.block = &Block{}
	if len(args) == 0 {
		return nil
	}
	f.block.Args = make([]*Value, len(args))
	room := make([]Value, len(args))
	for i, a := range args {
		t, err := b.typ(a.Type, f.op.Offset)
		if err != nil {
			return err
		}
		v := &room[i]
		v.Type, v.Index = t, i
		f.block.Args[i] = v
		b.scopes[len(b.scopes)-1][first+uint64(i)] = v
	}
	return nil
}

func (b *builder) typ(i uint64, off int64) (*Type, error) {
	c := mlirb.NewCursor(nil, off, "operation")
	t := b.r.typ(&c, i, 0)
	return t, c.Err()
}

// op makes an Op, without its regions.
func (b *builder) op(o *mlirb.Op) (*Op, error) {
	n := b.r.file.OpNames[o.Name]
	op := &Op{Name: n.Name, ID: -1, Offset: o.Offset}
	if len(o.Successors) > 0 {
		return nil, &mlirb.Fault{Offset: o.Offset, Where: n.Name, Found: "successors", Want: "none: a straight line", Unknown: true}
	}
	var err error
	if op.ID, err = b.r.opID(o.Loc); err != nil {
		return nil, err
	}
	if err = b.operands(op, o); err != nil {
		return nil, err
	}
	if err = b.results(op, o); err != nil {
		return nil, err
	}
	if err = b.attrs(op, o, n.Registered); err != nil {
		return nil, err
	}
	return op, op.special()
}

// operands finds the values an operation uses. All were defined before it: a later one would be a cycle.
func (b *builder) operands(op *Op, o *mlirb.Op) error {
	if len(o.Operands) == 0 {
		return nil
	}
	op.Operands = make([]*Value, len(o.Operands))
	scope := b.scopes[len(b.scopes)-1]
	for i, id := range o.Operands {
		v := scope[id]
		if v == nil {
			return at(op, fmt.Sprintf("operand %d, value %d, which is defined later", i, id), "one that is defined before: this is a cycle")
		}
		op.Operands[i] = v
		if u := len(v.Users); u == 0 || v.Users[u-1] != op {
			v.Users = append(v.Users, op)
		}
	}
	return nil
}

func (b *builder) results(op *Op, o *mlirb.Op) error {
	if len(o.Results) == 0 {
		return nil
	}
	op.Results = make([]*Value, len(o.Results))
	room := make([]Value, len(o.Results))
	for i, t := range o.Results {
		v := &room[i]
		v.Def, v.Index = op, i
		var err error
		if v.Type, err = b.typ(t, o.Offset); err != nil {
			return err
		}
		op.Results[i] = v
		b.scopes[len(b.scopes)-1][o.First+uint64(i)] = v
	}
	return nil
}

// attrs decodes the properties of the operations that have any, and a dictionary of attributes.
func (b *builder) attrs(op *Op, o *mlirb.Op, registered bool) error {
	if o.Attrs >= 0 {
		c := mlirb.NewCursor(nil, o.Offset, op.Name)
		a := b.r.attr(&c, uint64(o.Attrs), 0)
		if err := c.Err(); err != nil {
			return err
		}
		m, ok := a.(map[string]Attr)
		if !ok {
			return at(op, fmt.Sprintf("attributes that are a %T", a), "a dictionary")
		}
		op.Attrs = m
	}
	names := properties[op.Name]
	switch {
	case o.Props < 0 && names == nil:
		return nil
	case o.Props < 0:
		return at(op, "no properties", fmt.Sprint(names))
	case names == nil || !registered:
		return &mlirb.Fault{Offset: o.Offset, Where: op.Name, Found: "properties whose layout is not known", Want: "none", Unknown: true}
	}
	c, err := b.r.file.Properties(o, op.Name)
	if err != nil {
		return err
	}
	if op.Attrs == nil {
		op.Attrs = make(map[string]Attr, len(names))
	}
	for _, name := range names {
		b.property(&c, op, name)
	}
	c.End()
	return c.Err()
}

func (b *builder) property(c *mlirb.Cursor, op *Op, name string) {
	v := c.Varint()
	if n := len(name) - 1; name[n] == '?' {
		if v == 0 {
			return
		}
		if v&1 == 0 {
			c.Fail(fmt.Sprintf("%d for an optional property", v), "0, or an odd number")
		}
		name, v = name[:n], v>>1
	}
	a := b.r.attr(c, v, 0)
	if c.OK() {
		op.Attrs[name] = a
	}
}

// special moves what constants and calls have into fields of their own.
func (o *Op) special() error {
	switch o.Name {
	case "primitive.constant_v1":
		return o.constant()
	case "dataflow.invoke_v1":
		s, ok := o.Attrs["callee"].(Symbol)
		if !ok {
			return at(o, fmt.Sprintf("a callee that is a %T", o.Attrs["callee"]), "the name of a graph")
		}
		o.Callee, o.Attrs = string(s), nil
	}
	return nil
}
