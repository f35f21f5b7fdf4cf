package mlirb

import (
	"fmt"
	"math"
	"strings"
)

// readStrings takes the strings: their lengths with the NUL, last string first, then their bytes in order.
func (f *File) readStrings() error {
	c := f.cursor(secString)
	n := c.Count("strings", 2)
	if !c.OK() {
		return c.Err()
	}
	text := string(c.data) // one copy: the strings outlive the mapping
	f.strings = make([]string, n)
	end := uint64(len(text))
	for i := n - 1; i >= 0; i-- {
		at := c.Offset()
		l := c.Varint()
		if c.OK() && (l == 0 || l > end-min(end, uint64(c.pos))) {
			c.failAt(at, fmt.Sprintf("string %d of %d bytes", i, l), fmt.Sprintf("1..%d", end-min(end, uint64(c.pos))))
		}
		if !c.OK() {
			return c.Err()
		}
		f.strings[i] = text[end-l : end-1]
		end -= l
	}
	if uint64(c.pos) != end {
		c.Fail(fmt.Sprintf("%d bytes between the lengths and the strings", end-uint64(c.pos)), "none")
	}
	return c.Err()
}

// String gives string i of the file; a number out of range is a fault of c.
func (f *File) String(c *Cursor) string {
	at := c.Offset()
	return f.stringAt(c, at, c.Varint())
}

func (f *File) stringAt(c *Cursor, at int64, i uint64) string {
	if c.OK() && i >= uint64(len(f.strings)) {
		c.failAt(at, fmt.Sprintf("string %d", i), fmt.Sprintf("one of the file's %d", len(f.strings)))
	}
	if !c.OK() {
		return ""
	}
	return f.strings[i]
}

// readDialects takes the dialects, then the names of operations in groups by dialect.
func (f *File) readDialects() error {
	c := f.cursor(secDialect)
	for n := c.Count("dialects", 1); len(f.Dialects) < n && c.OK(); {
		f.Dialects = append(f.Dialects, f.dialect(&c))
	}
	if f.Version >= 4 {
		c.Varint() // how many names follow: room to allocate, which is not taken on trust
	}
	for c.Left() > 0 {
		d := f.dialectIndex(&c)
		for n := c.Count("names of operations", 1); n > 0 && c.OK(); n-- {
			o := OpName{Dialect: d}
			at := c.Offset()
			v := c.Varint()
			if f.Version >= 5 {
				o.Registered = v&1 == 1
				v >>= 1
			}
			o.Name = f.stringAt(&c, at, v)
			f.OpNames = append(f.OpNames, o)
		}
	}
	return c.Err()
}

func (f *File) dialect(c *Cursor) Dialect {
	at := c.Offset()
	if f.Version < 1 {
		return Dialect{Name: f.String(c)}
	}
	i, versioned := c.Flagged()
	d := Dialect{Name: f.stringAt(c, at, i)}
	if versioned {
		at := c.Offset()
		s := c.section()
		if c.OK() && s.ID != secDialectVersions {
			c.failAt(at, "a section of "+sectionNames[s.ID], "one of dialect versions")
		}
		d.Version = s.Data
	}
	return d
}

func (f *File) dialectIndex(c *Cursor) int {
	at := c.Offset()
	d := c.Varint()
	if c.OK() && d >= uint64(len(f.Dialects)) {
		c.failAt(at, fmt.Sprintf("dialect %d", d), fmt.Sprintf("one of the file's %d", len(f.Dialects)))
		return 0
	}
	return int(d)
}

// readEntries takes the sizes of attributes and types, in groups by dialect, and so where each stands.
func (f *File) readEntries() error {
	c, d := f.cursor(secAttrTypeOffset), f.cursor(secAttrType)
	na := c.Count("attributes", 1)
	nt := c.Count("types", 1)
	for _, list := range []struct {
		to *[]Entry
		n  int
	}{{&f.Attrs, na}, {&f.Types, nt}} {
		*list.to = make([]Entry, 0, list.n)
		for len(*list.to) < list.n && c.OK() && d.OK() {
			f.entryGroup(&c, &d, list.to, list.n)
		}
	}
	c.End()
	if c.OK() {
		d.End()
	}
	if c.OK() {
		return d.Err()
	}
	return c.Err()
}

func (f *File) entryGroup(c, d *Cursor, to *[]Entry, most int) {
	dialect := f.dialectIndex(c)
	at := c.Offset()
	n := c.Count("entries", 1)
	if c.OK() && n > most-len(*to) {
		c.failAt(at, fmt.Sprintf("%d entries", n), fmt.Sprintf("at most %d, what is left of the number before", most-len(*to)))
	}
	for ; n > 0 && c.OK() && d.OK(); n-- {
		at := c.Offset()
		size, custom := c.Flagged()
		if size > math.MaxInt32 || dialect > math.MaxInt16 {
			c.failAt(at, fmt.Sprintf("%d bytes, of dialect %d", size, dialect), "less than 2 GB, of one of the first 32767 dialects")
			return
		}
		e := Entry{Offset: d.Offset(), Dialect: int16(dialect), Custom: custom}
		e.Size = int32(len(d.Bytes(size)))
		*to = append(*to, e)
	}
}

// readProperties takes the encoded properties of registered operations.
func (f *File) readProperties() error {
	if f.byID[secProperties] == nil || len(f.byID[secProperties].Data) == 0 {
		return nil
	}
	c := f.cursor(secProperties)
	n := c.Count("properties", 1)
	f.props = make([]span, 0, n)
	for i := 0; i < n && c.OK(); i++ {
		size := c.Varint()
		p := span{off: c.Offset()}
		p.size = int64(len(c.Bytes(size)))
		f.props = append(f.props, p)
	}
	c.End()
	return c.Err()
}

// Properties reads the properties of an operation of a registered name; op.Props is >= 0.
func (f *File) Properties(op *Op, where string) (Cursor, error) {
	if op.Props < 0 || op.Props >= int64(len(f.props)) {
		return Cursor{}, &Fault{Offset: op.Offset, Where: where, Found: fmt.Sprintf("properties %d", op.Props), Want: fmt.Sprintf("one of the file's %d", len(f.props))}
	}
	p := f.props[op.Props]
	return NewCursor(f.data[p.off:p.off+p.size], p.off, where), nil
}

// OpName is the whole name of an operation, "dialect.name".
func (f *File) OpName(i uint64) string {
	if i >= uint64(len(f.OpNames)) {
		return fmt.Sprintf("operation %d", i)
	}
	n := f.OpNames[i]
	return strings.TrimSuffix(f.Dialects[n.Dialect].Name+"."+n.Name, ".")
}
