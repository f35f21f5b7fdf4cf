package mlirb

import "fmt"

// Kind is what a resource holds.
type Kind uint8

// Kinds of resources.
const (
	Blob Kind = iota
	Bool
	Text
)

// Resource is named data beside the operations.
type Resource struct {
	Key      string
	Group    string // the dialect's name, or the key of an external group
	External bool   // belongs to no dialect: no attribute refers to it
	Elided   bool   // declared only: its bytes are not in the file
	Kind     Kind
	Align    uint64 // of a blob
	Offset   int64  // of a blob's bytes in the file
	Data     []byte // of a blob: a view of the file
	Text     string // of a text
	Bool     bool
}

// readResources takes the resources: external groups by key, then those of dialects. Blobs stand one behind the other in
// the section, so they can neither overlap nor leave a hole.
func (f *File) readResources() error {
	if f.byID[secResource] == nil {
		return nil
	}
	o, r := f.cursor(secResourceOffset), f.cursor(secResource)
	for n := o.Count("groups of resources", 2); n > 0 && o.OK() && r.OK(); n-- {
		f.resourceGroup(&o, &r, f.String(&o), true)
	}
	for o.Left() > 0 && r.OK() {
		f.resourceGroup(&o, &r, f.dialectName(f.dialectIndex(&o)), false)
	}
	if r.OK() {
		r.End()
	}
	if !o.OK() {
		return o.Err()
	}
	return r.Err()
}

// dialectName names a dialect, "" where the file has none.
func (f *File) dialectName(i int) string {
	if i >= len(f.Dialects) {
		return ""
	}
	return f.Dialects[i].Name
}

func (f *File) resourceGroup(o, r *Cursor, group string, external bool) {
	for n := o.Count("resources", 3); n > 0 && o.OK() && r.OK(); n-- {
		res := Resource{Key: f.String(o), Group: group, External: external}
		size := o.Varint()
		at := o.Offset()
		res.Kind = Kind(o.Byte())
		if o.OK() && res.Kind > Text {
			o.failAt(at, fmt.Sprintf("resource %.80q of kind %d", res.Key, res.Kind), "0, 1 or 2: blob, bool, text")
		}
		start := r.Offset()
		e := NewCursor(r.Bytes(size), start, fmt.Sprintf("resource %.80q", res.Key))
		if !o.OK() || !r.OK() {
			return
		}
		f.resourceValue(&e, &res, size)
		if r.err == nil {
			r.err = e.err
		}
		if !external {
			f.handles = append(f.handles, int32(len(f.Resources)))
		}
		f.Resources = append(f.Resources, res)
	}
}

func (f *File) resourceValue(e *Cursor, res *Resource, size uint64) {
	if size == 0 {
		res.Elided = true
		return
	}
	switch res.Kind {
	case Blob:
		res.Align = e.Varint()
		n := e.Varint()
		e.Align(res.Align)
		res.Offset = e.Offset()
		res.Data = e.Bytes(n)
	case Bool:
		res.Bool = e.Byte() != 0
	case Text:
		res.Text = f.String(e)
	}
	e.End()
}

// Handle reads the number of a dialect's resource, as attributes refer to one.
func (f *File) Handle(c *Cursor) *Resource {
	at := c.Offset()
	h := c.Varint()
	if c.OK() && h >= uint64(len(f.handles)) {
		c.failAt(at, fmt.Sprintf("resource %d", h), fmt.Sprintf("one of the file's %d", len(f.handles)))
	}
	if !c.OK() {
		return nil
	}
	return &f.Resources[f.handles[h]]
}
