package aicode

import (
	"fmt"
	"math"

	"sibyl/internal/mlirb"
	"sibyl/precision"
)

// Codes of attributes.
const (
	attrString      = 1
	attrInteger     = 2
	attrFloat       = 3
	attrType        = 4
	attrArray       = 5
	attrDense       = 6
	attrResource    = 7
	attrNamed       = 9
	attrSymbol      = 14
	attrBinding     = 16
	attrScatterMode = 20
	attrLocation    = 40
	attrMetadata    = 35
	attrMetaValue   = 33
	attrDictionary  = 45
	attrUnit        = 46
)

// Modes of primitive.scatter_along_axis, in the order of their numbers.
var scatterModes = [...]string{"update", "add", "sub", "mul", "div", "max", "min"}

// maxAttrNesting bounds attributes within attributes: real ones have 6 levels.
const maxAttrNesting = 16

// attr decodes attribute i. A decoded one is kept: an attribute that is used a thousand times within others is read once,
// so that nothing small can stand for something huge.
func (r *reader) attr(c *mlirb.Cursor, i uint64, depth int) Attr {
	switch {
	case !c.OK():
		return nil
	case i >= uint64(len(r.file.Attrs)):
		c.Fail(fmt.Sprintf("attribute %d", i), fmt.Sprintf("one of the file's %d", len(r.file.Attrs)))
		return nil
	case depth > maxAttrNesting:
		c.Fail("attributes nested deeper than that", fmt.Sprintf("at most %d levels", maxAttrNesting))
		return nil
	}
	if a, ok := r.attrs[i]; ok {
		return a
	}
	e := r.file.Attrs[i]
	d := r.file.Entry(e, fmt.Sprintf("attribute %d", i))
	var a Attr
	if r.ours(&d, e, "attribute") {
		a = r.attrBody(&d, depth)
		d.End()
	}
	if !d.OK() {
		c.Adopt(&d)
		return nil
	}
	r.attrs[i] = a
	return a
}

func (r *reader) attrBody(c *mlirb.Cursor, depth int) Attr {
	code := c.Varint()
	switch code {
	case attrString:
		return r.file.String(c)
	case attrInteger:
		return integer(c)
	case attrFloat:
		return float(c)
	case attrType:
		return r.typ(c, c.Varint(), 0)
	case attrArray:
		return r.attrList(c, depth)
	case attrDense, attrResource:
		return r.elements(c, code)
	case attrNamed:
		n := Named{Name: r.file.String(c)}
		n.Values = r.attrList(c, depth)
		return n
	case attrSymbol:
		return r.symbol(c)
	case attrBinding:
		a := r.attr(c, c.Varint(), depth+1)
		r.typ(c, c.Varint(), 0)
		return a
	case attrScatterMode:
		m := c.Varint()
		if m >= uint64(len(scatterModes)) {
			c.Fail(fmt.Sprintf("scatter mode %d", m), fmt.Sprintf("0..%d", len(scatterModes)-1))
			return nil
		}
		return scatterModes[m]
	case attrDictionary:
		return r.dictionary(c, depth)
	case attrUnit:
		return nil
	}
	c.FailUnknown(fmt.Sprintf("attribute code %d", code), "a code of dialect version 5 that has a place outside locations")
	return nil
}

func (r *reader) attrList(c *mlirb.Cursor, depth int) []Attr {
	n := c.Count("attributes", 1)
	list := make([]Attr, 0, n)
	for ; n > 0 && c.OK(); n-- {
		list = append(list, r.attr(c, c.Varint(), depth+1))
	}
	return list
}

// dictionary reads named attributes; one of a single value is that value.
func (r *reader) dictionary(c *mlirb.Cursor, depth int) Attr {
	return r.fields(c, r.attrList(c, depth))
}

func (r *reader) fields(c *mlirb.Cursor, list []Attr) map[string]Attr {
	m := make(map[string]Attr, len(list))
	for _, a := range list {
		n, ok := a.(Named)
		if !ok {
			c.Fail(fmt.Sprintf("a %T in a dictionary", a), "named attributes")
			return nil
		}
		if _, twice := m[n.Name]; twice {
			c.Fail(fmt.Sprintf("the name %.80q a second time", n.Name), "each name once")
			return nil
		}
		m[n.Name] = n.value()
	}
	return m
}

func (n Named) value() Attr {
	if len(n.Values) == 1 {
		return n.Values[0]
	}
	return n.Values
}

// integer reads a number of 1 to 64 bits: int64, uint64, or bool if it has one bit.
func integer(c *mlirb.Cursor) Attr {
	width := c.Varint()
	unsigned := c.Byte() != 0
	var v int64
	switch {
	case width == 0 || width > 64:
		c.Fail(fmt.Sprintf("an integer of %d bits", width), "1..64")
	case width <= 8:
		v = int64(c.Byte())
		if !unsigned {
			v = v << (64 - width) >> (64 - width)
		}
	default:
		v = c.Signed()
	}
	switch {
	case width == 1:
		return v != 0
	case unsigned && width <= 64:
		return uint64(v) << (64 - width) >> (64 - width)
	}
	return v
}

func float(c *mlirb.Cursor) Attr {
	width := c.Varint()
	v := c.Signed()
	switch width {
	case 16:
		return float64(precision.F16ToF32(uint16(v)))
	case 32:
		return float64(math.Float32frombits(uint32(v)))
	case 64:
		return math.Float64frombits(uint64(v))
	}
	c.Fail(fmt.Sprintf("a float of %d bits", width), "16, 32 or 64")
	return nil
}

// elements reads a constant's bytes; its type is that of the operation's result.
func (r *reader) elements(c *mlirb.Cursor, code uint64) Attr {
	if code == attrResource {
		res := r.file.Handle(c)
		switch {
		case res == nil:
			return nil
		case res.Kind != mlirb.Blob:
			c.Fail(fmt.Sprintf("resource %.80q, which is no blob", res.Key), "a blob")
		case res.Elided:
			c.Fail(fmt.Sprintf("resource %.80q declared without its bytes", res.Key), "its bytes")
		}
		return &Const{Data: res.Data, Resource: res.Key, Offset: res.Offset}
	}
	k := &Const{Splat: c.Byte() != 0}
	n := c.Varint()
	k.Offset = c.Offset()
	k.Data = c.Bytes(n)
	return k
}

// symbol reads a reference to a graph; nested ones are joined by "::".
func (r *reader) symbol(c *mlirb.Cursor) Attr {
	s := ""
	for n := c.Count("names", 1); n > 0 && c.OK(); n-- {
		if s != "" {
			s += "::"
		}
		if s += r.file.String(c); len(s) > 4096 {
			c.Fail("a symbol of more than 4096 bytes", "a name")
		}
	}
	return Symbol(s)
}

// opID finds the exporter's number of an operation in its location; -1 where there is none. Of locations nothing else is
// read, and one of another form is no fault.
func (r *reader) opID(loc uint64) (int64, error) {
	if id, ok := r.ids[loc]; ok {
		return id, nil
	}
	id, err := r.readID(loc)
	if r.file.Attrs[loc].Size > 256 {
		r.ids[loc] = id // a long location is read once, however many operations share it
	}
	return id, err
}

func (r *reader) readID(loc uint64) (int64, error) {
	e := r.file.Attrs[loc]
	if !e.Custom || r.file.Dialects[e.Dialect].Name != dialectName {
		return -1, nil
	}
	c := r.file.Entry(e, "location")
	if c.Varint() != attrLocation {
		return -1, nil
	}
	c.Varint() // source
	c.Varint() // scope
	for n := c.Count("locations", 1); n > 0 && c.OK(); n-- {
		c.Varint() // of the operations that this one was made from
	}
	id := int64(-1)
	for n := c.Count("attributes", 1); n > 0 && c.OK(); n-- {
		if v, ok := r.metadata(&c, c.Varint(), "op_id"); ok {
			id = v
		}
	}
	return id, c.Err()
}

// metadata reads the number of that name from an entry of a location, if it is that.
func (r *reader) metadata(c *mlirb.Cursor, i uint64, name string) (int64, bool) {
	d, ok := r.coded(c, i, attrMetadata)
	if !ok || r.file.String(&d) != name {
		c.Adopt(&d)
		return 0, false
	}
	v, ok := r.coded(&d, d.Varint(), attrMetaValue)
	if !ok {
		return 0, false
	}
	n, ok := r.coded(&v, v.Varint(), attrInteger)
	if !ok {
		return 0, false
	}
	id, isSigned := integer(&n).(int64)
	c.Adopt(&n)
	return id, isSigned
}

// coded begins to read attribute i if it has the code.
func (r *reader) coded(c *mlirb.Cursor, i, code uint64) (mlirb.Cursor, bool) {
	if !c.OK() || i >= uint64(len(r.file.Attrs)) {
		return mlirb.Cursor{}, false
	}
	d := r.file.Entry(r.file.Attrs[i], "location")
	return d, d.Varint() == code
}
