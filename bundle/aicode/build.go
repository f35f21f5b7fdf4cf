package aicode

import (
	"fmt"
	"strings"

	"sibyl/internal/mlirb"
)

// properties are the operations that have any: names in the order of the file, an optional one with "?", one that nobody
// needs without its name.
var properties = map[string][]string{
	"serialization.asset":             {"?", "version?"},
	"dataflow.graph_v1":               {"argAttrs", "compositeDecl?", "", "functionType", "isPrivate", "name", "", "", "resAttrs"},
	"dataflow.invoke_v1":              {"", "callee", ""},
	"primitive.constant_v1":           {"value"},
	"primitive.scatter_along_axis_v1": {"scatter_mode"},
}

// builder makes Ops and Values of what the container tells.
type builder struct {
	r      *reader
	top    []*Op
	stack  []frame     // operations whose regions are being read
	scopes [][]segment // of values; the last scope is the one in use
	spare  [][]*Value  // room of segments that ended
}

// maxRoom is how many operations or values room is made for on the file's word.
const maxRoom = 4096

// segment is the values of one region that are defined so far: numbers first, first+1, ... Those of outer regions stand before it.
type segment struct {
	first  uint64
	values []*Value
}

// define gives the next number of the innermost region to a value.
func (b *builder) define(v *Value) {
	s := b.scopes[len(b.scopes)-1]
	seg := &s[len(s)-1]
	seg.values = append(seg.values, v)
}

// value finds a value by its number, nil if none is defined yet.
func (b *builder) value(id uint64) *Value {
	s := b.scopes[len(b.scopes)-1]
	for i := len(s) - 1; i >= 0; i-- {
		if id >= s[i].first {
			if id -= s[i].first; id < uint64(len(s[i].values)) {
				return s[i].values[id]
			}
			return nil
		}
	}
	return nil
}

type frame struct {
	op    *Op
	block *Block // being filled
	fresh bool   // its region opened a scope
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
	seg := segment{first: g.First}
	if n := len(b.spare); n > 0 {
		seg.values, b.spare = b.spare[n-1][:0], b.spare[:n-1]
	} else {
		seg.values = make([]*Value, 0, min(g.Values, maxRoom))
	}
	*s = append(*s, seg)
	return nil
}

func (b *builder) EndRegion() error {
	f := &b.stack[len(b.stack)-1]
	if f.block == nil {
		return at(f.op, "a region without a block", "one block")
	}
	f.op.Regions = append(f.op.Regions, f.block)
	s := &b.scopes[len(b.scopes)-1]
	last := len(*s) - 1
	b.spare = append(b.spare, (*s)[last].values)
	*s = (*s)[:last]
	if f.fresh {
		b.scopes = b.scopes[:len(b.scopes)-1]
	}
	return nil
}

func (b *builder) Block(args []mlirb.Arg, ops int) error {
	if len(b.stack) == 0 {
		return nil // the outermost, which has operations only
	}
	f := &b.stack[len(b.stack)-1]
	if f.block != nil {
		return &mlirb.Fault{Offset: f.op.Offset, Where: f.op.Name, Found: "a region of several blocks", Want: "one block: a straight line", Unknown: true}
	}
	f.block = &Block{Ops: make([]*Op, 0, min(ops, maxRoom))}
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
		b.define(v)
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
	return op, b.attrs(op, o, n.Registered)
}

// operands finds the values an operation uses. All were defined before it: a later one would be a cycle.
func (b *builder) operands(op *Op, o *mlirb.Op) error {
	if len(o.Operands) == 0 {
		return nil
	}
	op.Operands = make([]*Value, len(o.Operands))
	for i, id := range o.Operands {
		v := b.value(id)
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
		b.define(v)
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
	for _, name := range names {
		if a, ok := b.property(&c, name); ok {
			op.set(strings.TrimSuffix(name, "?"), a)
		}
	}
	c.End()
	if err := c.Err(); err != nil {
		return err
	}
	return op.special()
}

// property reads one property, if it is there and somebody needs it.
func (b *builder) property(c *mlirb.Cursor, name string) (Attr, bool) {
	v := c.Varint()
	name, optional := strings.CutSuffix(name, "?")
	if optional {
		if v != 0 && v&1 == 0 {
			c.Fail(fmt.Sprintf("%d for an optional property", v), "0, or an odd number")
		}
		if v == 0 {
			return nil, false
		}
		v >>= 1
	}
	if name == "" {
		if v >= uint64(len(b.r.file.Attrs)) {
			c.Fail(fmt.Sprintf("attribute %d", v), fmt.Sprintf("one of the file's %d", len(b.r.file.Attrs)))
		}
		return nil, false
	}
	a := b.r.attr(c, v, 0)
	return a, c.OK()
}

// set keeps a property: what a constant or a call has only one of in its field, everything else by name.
func (o *Op) set(name string, a Attr) {
	if o.Name == "primitive.constant_v1" {
		o.Const, _ = a.(*Const)
		return
	}
	if s, ok := a.(Symbol); ok && o.Name == "dataflow.invoke_v1" {
		o.Callee = string(s)
		return
	}
	if o.Attrs == nil {
		o.Attrs = map[string]Attr{}
	}
	o.Attrs[name] = a
}

// special holds what set kept against the operation.
func (o *Op) special() error {
	switch {
	case o.Name == "primitive.constant_v1":
		return o.constant()
	case o.Name == "dataflow.invoke_v1" && o.Callee == "":
		return at(o, "no callee", "the name of a graph")
	}
	return nil
}
