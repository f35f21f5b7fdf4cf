package mlirb

import (
	"fmt"
	"math"
)

func (p *printer) builtinAttr(c *Cursor, depth int) {
	switch code := c.Varint(); code {
	case 0:
		p.wrap("[", "]", func() { p.list(c, "attributes", func() { p.attr(c, depth) }) })
	case 1:
		p.wrap("{", "}", func() { p.list(c, "attributes", func() { p.named(c, depth) }) })
	case 2:
		fmt.Fprintf(&p.b, "%q", p.f.String(c))
	case 3:
		fmt.Fprintf(&p.b, "%q : ", p.f.String(c))
		p.typ(c, depth)
	case 4:
		p.symbol(c)
	case 5:
		p.symbol(c)
		for n := c.Count("symbols", 1); n > 0 && c.OK(); n-- {
			p.b.WriteString("::")
			p.attr(c, depth)
		}
	case 6:
		p.typ(c, depth)
	case 7:
		p.b.WriteString("unit")
	case 8, 9:
		p.value(c, depth)
	case 16:
		t := c.Varint()
		if r := p.f.Handle(c); r != nil {
			fmt.Fprintf(&p.b, "dense_resource<%s> : ", r.Key)
			p.entry(c, t, true, depth+1)
		}
	case 17, 18:
		p.elements(c, code, depth)
	default:
		p.location(c, code, depth)
	}
}

// named prints an entry of a dictionary: its name is a string attribute.
func (p *printer) named(c *Cursor, depth int) {
	p.bare(c)
	p.b.WriteString(" = ")
	p.attr(c, depth)
}

func (p *printer) symbol(c *Cursor) {
	p.b.WriteString("@")
	p.bare(c)
}

// bare prints a string attribute without quotes. It is read here and not by attr: a name within a name has no end.
func (p *printer) bare(c *Cursor) {
	at := c.Offset()
	i := c.Varint()
	if !c.OK() {
		return
	}
	if i < uint64(len(p.f.Attrs)) {
		e := p.f.Attrs[i]
		d := p.f.Entry(e, "name")
		if e.Custom && p.f.Dialects[e.Dialect].Name == "builtin" && d.Varint() == 2 {
			p.b.WriteString(p.f.String(&d))
			c.Adopt(&d)
			return
		}
	}
	c.failAt(at, fmt.Sprintf("attribute %d as a name", i), "a builtin string")
}

func (p *printer) value(c *Cursor, depth int) {
	t := c.Varint()
	bits, unsigned, float := p.number(t)
	if float {
		p.float(bits, t, uint64(c.Signed()))
	} else {
		p.integer(c, bits, unsigned)
	}
	p.b.WriteString(" : ")
	p.entry(c, t, true, depth+1)
}

func (p *printer) float(bits, t, v uint64) {
	switch name, _ := p.f.TypeText(t); {
	case name == "bf16":
		fmt.Fprint(&p.b, math.Float32frombits(uint32(v)<<16))
	case bits == 32:
		fmt.Fprint(&p.b, math.Float32frombits(uint32(v)))
	case bits == 64:
		fmt.Fprint(&p.b, math.Float64frombits(v))
	default: // f16, by its parts: this package knows no narrow floats
		m, e := float64(v&1023), int(v>>10&31)
		if e > 0 {
			m, e = m+1024, e-1
		}
		if v>>15&1 == 1 {
			m = -m
		}
		fmt.Fprint(&p.b, math.Ldexp(m, e-24))
	}
}

// elements prints an array or a tensor of elements: its bytes.
func (p *printer) elements(c *Cursor, code uint64, depth int) {
	t := c.Varint()
	name := "dense<"
	if code == 17 {
		name = fmt.Sprintf("array<%d, ", c.Varint())
	}
	b := c.Bytes(c.Varint())
	p.wrap(name, "> : ", func() {
		fmt.Fprintf(&p.b, "0x%x", b[:min(len(b), 64)])
		if len(b) > 64 {
			fmt.Fprintf(&p.b, "... %d bytes", len(b))
		}
	})
	p.entry(c, t, true, depth+1)
}

func (p *printer) location(c *Cursor, code uint64, depth int) {
	two := func(open, between string) {
		p.wrap(open, ")", func() { p.attr(c, depth); p.b.WriteString(between); p.attr(c, depth) })
	}
	switch code {
	case 10:
		two("callsite(", " at ")
	case 11:
		p.wrap("loc(", ")", func() { p.attr(c, depth); fmt.Fprintf(&p.b, ":%d:%d", c.Varint(), c.Varint()) })
	case 12:
		p.wrap("fused[", "]", func() { p.list(c, "locations", func() { p.attr(c, depth) }) })
	case 13:
		p.wrap("fused[", "]", func() { p.list(c, "locations", func() { p.attr(c, depth) }) })
		p.wrap("<", ">", func() { p.attr(c, depth) })
	case 14:
		two("loc(", " : ")
	case 15:
		p.b.WriteString("loc(unknown)")
	case 22:
		p.wrap("loc(", ")", func() {
			p.attr(c, depth)
			for c.Left() > 0 && p.b.Len() <= maxText {
				fmt.Fprintf(&p.b, ":%d", c.Varint())
			}
		})
	default:
		c.FailUnknown(fmt.Sprintf("builtin attribute code %d", code), "one that mlir-opt 22 writes")
	}
}
