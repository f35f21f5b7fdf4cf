package mlirb

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// TypeText prints type i as MLIR's assembly does, if it is a builtin one or stored as text; one of another dialect's own
// encoding as "!dialect<hex>". An unknown code is a *Fault with Unknown set.
func (f *File) TypeText(i uint64) (string, error) { return f.text(i, true) }

// AttrText is TypeText for attribute i; elements are printed as bytes, floats by their value.
func (f *File) AttrText(i uint64) (string, error) { return f.text(i, false) }

func (f *File) text(i uint64, isType bool) (string, error) {
	p := printer{f: f}
	c := NewCursor(nil, 0, "attributes and types")
	if p.entry(&c, i, isType, 0); c.OK() && p.b.Len() > maxText {
		return p.b.String()[:maxText] + "...", nil
	}
	return p.b.String(), f.wrap(c.Err())
}

const (
	maxText       = 4096 // an attribute's text: what repeats itself within itself grows without end
	maxNestedText = 16
)

// printer writes attributes and types; codes are those of LLVM 22, mlir/include/mlir/IR/BuiltinDialectBytecode.td.
type printer struct {
	f *File
	b strings.Builder
}

func (p *printer) entry(from *Cursor, i uint64, isType bool, depth int) {
	table, what, mark := p.f.Attrs, "attribute", "#"
	if isType {
		table, what, mark = p.f.Types, "type", "!"
	}
	switch {
	case !from.OK() || p.b.Len() > maxText:
		return
	case i >= uint64(len(table)):
		from.Fail(fmt.Sprintf("%s %d", what, i), fmt.Sprintf("one of the file's %d", len(table)))
		return
	case depth > maxNestedText:
		from.Fail(what+"s nested deeper than that", fmt.Sprintf("at most %d levels", maxNestedText))
		return
	}
	e := table[i]
	c := p.f.Entry(e, fmt.Sprintf("%s %d", what, i))
	dialect := p.f.Dialects[e.Dialect].Name
	switch {
	case !e.Custom:
		s := c.CString()
		p.b.WriteString(s[:min(len(s), maxText)])
	case dialect != "builtin":
		b := c.Bytes(uint64(c.Left()))
		fmt.Fprintf(&p.b, "%s%s<%x>", mark, dialect, b[:min(len(b), 64)])
	case isType:
		p.builtinType(&c, depth)
	default:
		p.builtinAttr(&c, depth)
	}
	c.End()
	from.Adopt(&c)
}

func (p *printer) typ(c *Cursor, depth int)  { p.entry(c, c.Varint(), true, depth+1) }
func (p *printer) attr(c *Cursor, depth int) { p.entry(c, c.Varint(), false, depth+1) }

// list prints n parts with commas between.
func (p *printer) list(c *Cursor, what string, part func()) {
	for i, n := 0, c.Count(what, 1); i < n && c.OK(); i++ {
		if i > 0 {
			p.b.WriteString(", ")
		}
		part()
	}
}

func (p *printer) types(c *Cursor, depth int) {
	p.list(c, "types", func() { p.typ(c, depth) })
}

func (p *printer) shape(c *Cursor) {
	for n := c.Count("dimensions", 1); n > 0 && c.OK(); n-- {
		if d := c.Signed(); d == math.MinInt64 {
			p.b.WriteString("?x")
		} else {
			fmt.Fprintf(&p.b, "%dx", d)
		}
	}
}

var plainTypes = map[uint64]string{1: "index", 3: "bf16", 4: "f16", 5: "f32", 6: "f64", 7: "f80", 8: "f128", 12: "none"}

func (p *printer) builtinType(c *Cursor, depth int) {
	code := c.Varint()
	if s := plainTypes[code]; s != "" {
		p.b.WriteString(s)
		return
	}
	switch code {
	case 0:
		v := c.Varint()
		p.b.WriteString([]string{"i", "si", "ui", "i"}[v&3] + strconv.FormatUint(v>>2, 10))
	case 2:
		p.b.WriteString("(")
		p.types(c, depth)
		p.b.WriteString(") -> (")
		p.types(c, depth)
		p.b.WriteString(")")
	case 9:
		p.wrap("complex<", ">", func() { p.typ(c, depth) })
	case 13, 14:
		var enc uint64
		if code == 14 {
			enc = c.Varint()
		}
		p.wrap("tensor<", ">", func() {
			p.shape(c)
			p.typ(c, depth)
			if code == 14 {
				p.b.WriteString(", ")
				p.entry(c, enc, false, depth+1)
			}
		})
	case 15:
		p.wrap("tuple<", ">", func() { p.types(c, depth) })
	case 18:
		p.wrap("tensor<*x", ">", func() { p.typ(c, depth) })
	case 19:
		p.wrap("vector<", ">", func() { p.shape(c); p.typ(c, depth) })
	default:
		c.FailUnknown(fmt.Sprintf("builtin type code %d", code), "one that mlir-opt 22 writes for tensors, numbers and functions")
	}
}

func (p *printer) wrap(open, end string, part func()) {
	p.b.WriteString(open)
	part()
	p.b.WriteString(end)
}

// number reads an integer type's signedness and width, or a float type's width.
func (p *printer) number(i uint64) (bits uint64, unsigned, float bool) {
	if i >= uint64(len(p.f.Types)) || !p.f.Types[i].Custom || p.f.Dialects[p.f.Types[i].Dialect].Name != "builtin" {
		return 0, false, false
	}
	c := p.f.Entry(p.f.Types[i], "type")
	switch c.Varint() {
	case 0:
		v := c.Varint()
		return v >> 2, v&3 == 2, false
	case 1:
		return 64, false, false
	case 3, 4:
		return 16, false, true
	case 5:
		return 32, false, true
	case 6:
		return 64, false, true
	}
	return 0, false, false
}

func (p *printer) integer(c *Cursor, bits uint64, unsigned bool) {
	var v int64
	switch {
	case bits == 0 || bits > 64:
		c.FailUnknown(fmt.Sprintf("an integer of %d bits", bits), "1..64")
	case bits <= 8:
		v = int64(c.Byte())
	default:
		v = c.Signed()
	}
	switch shift := 64 - min(bits, 64); {
	case bits == 1:
		fmt.Fprint(&p.b, v&1 == 1)
	case unsigned:
		p.b.WriteString(strconv.FormatUint(uint64(v)<<shift>>shift, 10))
	default:
		p.b.WriteString(strconv.FormatInt(v<<shift>>shift, 10))
	}
}
