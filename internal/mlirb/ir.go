package mlirb

import "fmt"

// Op is an operation as the file holds it.
type Op struct {
	Offset     int64
	Name       uint64   // into File.OpNames
	Loc        uint64   // its location, into File.Attrs
	Attrs      int64    // its dictionary of attributes, into File.Attrs; -1 = none
	Props      int64    // its properties: an entry of the section for a registered name, else an attribute; -1 = none
	Results    []uint64 // types, into File.Types
	First      uint64   // number of its first result in its scope
	Operands   []uint64 // numbers of values in its scope; one may be defined later
	Successors []uint64 // blocks of its region
	Regions    int
	Isolated   bool // its regions see no value from outside: a scope of their own
}

// Arg is an argument of a block.
type Arg struct {
	Type uint64 // into File.Types
	Loc  int64  // into File.Attrs, -1 = none
}

// Region says which values a region defines: numbers First..First+Values of its scope. Values is what the file declares:
// allocate as they come.
type Region struct {
	First, Values uint64
	NewScope      bool // numbers start at 0
}

// Visitor is told a file's operations in their order. After Op come, for each of its regions, Region, its blocks, and
// EndRegion; then EndOp, also of an operation without regions. What is handed over is valid until the method returns.
type Visitor interface {
	Op(*Op) error
	EndOp() error
	Region(Region) error
	EndRegion() error
	// Block begins a block of so many operations: args have the next numbers of the region.
	Block(args []Arg, ops int) error
}

// maxNesting bounds regions within regions: real files have less than 8.
const maxNesting = 64

// Walk reads the operations and tells them to v. An error is v's own, or an *inputerr.Error that wraps a *Fault.
func (f *File) Walk(v Visitor) error {
	w := walker{f: f, v: v}
	c := f.cursor(secIR)
	if err := w.block(&c, &scope{}, &region{}); err != nil {
		return f.wrap(err)
	}
	c.End()
	return f.wrap(c.Err())
}

type walker struct {
	f     *File
	v     Visitor
	depth int
	args  []Arg
	now   Op // the operation that is being told: one for all
	lists [3][]uint64
}

// scope is the values that operations can refer to.
type scope struct{ values uint64 }

// region is what is left to define of the numbers a region declared.
type region struct{ next, end uint64 }

func (r *region) define(c *Cursor, n int) uint64 {
	first := r.next
	if uint64(n) > r.end-r.next {
		c.Fail(fmt.Sprintf("%d more values", n), fmt.Sprintf("at most %d, what the region declared", r.end-r.next))
	}
	r.next += uint64(n)
	return first
}

func (w *walker) block(c *Cursor, sc *scope, r *region) error {
	at := c.Offset()
	n, hasArgs := c.Flagged()
	w.args = w.args[:0]
	if hasArgs {
		w.readArgs(c)
	}
	ops := c.Fits(at, n, "operations", 3)
	r.define(c, len(w.args))
	if !c.OK() {
		return c.Err()
	}
	if err := w.v.Block(w.args, ops); err != nil {
		return err
	}
	for range ops {
		if err := w.op(c, sc, r); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) readArgs(c *Cursor) {
	for n := c.Count("arguments", 1); n > 0 && c.OK(); n-- {
		a := Arg{Loc: -1}
		hasLoc := true
		if w.f.Version >= 4 {
			a.Type, hasLoc = c.Flagged()
		} else {
			a.Type = c.Varint()
		}
		w.checkType(c, a.Type)
		if hasLoc {
			a.Loc = w.attr(c)
		}
		w.args = append(w.args, a)
	}
	if w.f.Version >= 3 && c.Byte() != 0 {
		useLists(c, len(w.args))
	}
}

func (w *walker) checkType(c *Cursor, t uint64) {
	if c.OK() && t >= uint64(len(w.f.Types)) {
		c.Fail(fmt.Sprintf("type %d", t), fmt.Sprintf("one of the file's %d", len(w.f.Types)))
	}
}

// attr reads a number of an attribute.
func (w *walker) attr(c *Cursor) int64 {
	at := c.Offset()
	a := c.Varint()
	if c.OK() && a >= uint64(len(w.f.Attrs)) {
		c.failAt(at, fmt.Sprintf("attribute %d", a), fmt.Sprintf("one of the file's %d", len(w.f.Attrs)))
	}
	return int64(a)
}

// useLists passes over the order of uses of n values: it matters to nobody who only reads.
func useLists(c *Cursor, n int) {
	k := 1
	if n > 1 {
		k = c.Count("lists of uses", 2)
	}
	for ; k > 0 && c.OK(); k-- {
		if n > 1 {
			c.Varint()
		}
		at := c.Offset()
		uses, _ := c.Flagged()
		for u := c.Fits(at, uses, "uses", 1); u > 0 && c.OK(); u-- {
			c.Varint()
		}
	}
}

// Bits of an operation's mask: which of its parts are there.
const (
	maskAttrs = 1 << iota
	maskResults
	maskOperands
	maskSuccessors
	maskRegions
	maskUses
	maskProps
	maskUnknown
)

func (w *walker) op(c *Cursor, sc *scope, r *region) error {
	w.now = Op{Offset: c.Offset(), Attrs: -1, Props: -1}
	o := &w.now
	mask := w.head(c, o)
	if mask&maskResults != 0 {
		o.Results = w.list(c, 0, "results")
		for _, t := range o.Results {
			w.checkType(c, t)
		}
		o.First = r.define(c, len(o.Results))
	}
	if mask&maskOperands != 0 {
		o.Operands = w.list(c, 1, "operands")
		for _, v := range o.Operands {
			if v >= sc.values {
				c.Fail(fmt.Sprintf("value %d", v), fmt.Sprintf("one of the %d of its scope", sc.values))
			}
		}
	}
	if mask&maskSuccessors != 0 {
		o.Successors = w.list(c, 2, "successors")
	}
	if mask&maskUses != 0 && w.f.Version >= 3 {
		useLists(c, len(o.Results))
	}
	if mask&maskRegions != 0 {
		at := c.Offset()
		n, isolated := c.Flagged()
		o.Regions, o.Isolated = c.Fits(at, n, "regions", 1), isolated
	}
	if !c.OK() {
		return c.Err()
	}
	regions, isolated := o.Regions, o.Isolated
	if err := w.v.Op(o); err != nil {
		return err
	}
	if regions > 0 {
		if err := w.regions(c, sc, regions, isolated); err != nil {
			return err
		}
	}
	return w.v.EndOp()
}

// head reads what every operation begins with, and gives the mask of what follows.
func (w *walker) head(c *Cursor, o *Op) byte {
	o.Name = c.Varint()
	if c.OK() && o.Name >= uint64(len(w.f.OpNames)) {
		c.failAt(o.Offset, fmt.Sprintf("the name of operation %d", o.Name), fmt.Sprintf("one of the file's %d", len(w.f.OpNames)))
	}
	at := c.Offset()
	mask := c.Byte()
	if mask&maskUnknown != 0 {
		c.failAt(at, fmt.Sprintf("a mask of %#02x", mask), "one below 0x80")
	}
	o.Loc = uint64(w.attr(c))
	if mask&maskAttrs != 0 {
		o.Attrs = w.attr(c)
	}
	if mask&maskProps != 0 {
		o.Props = int64(c.Varint() & (1<<63 - 1))
	}
	return mask
}

func (w *walker) list(c *Cursor, which int, what string) []uint64 {
	l := w.lists[which][:0]
	for n := c.Count(what, 1); n > 0 && c.OK(); n-- {
		l = append(l, c.Varint())
	}
	w.lists[which] = l
	return l
}

// regions reads the regions of an operation. Those of an isolated one are sections of their own since version 2.
func (w *walker) regions(c *Cursor, sc *scope, n int, isolated bool) error {
	if isolated {
		sc = &scope{}
	}
	own := isolated && w.f.Version >= 2
	var inner Cursor
	for range n {
		from := c
		if own {
			if inner.Left() == 0 {
				at := c.Offset()
				s := c.section()
				if c.OK() && s.ID != secIR {
					c.failAt(at, "a section of "+sectionNames[s.ID], "one of operations")
				}
				inner = NewCursor(s.Data, s.Offset, c.where)
			}
			from = &inner
		}
		if !c.OK() {
			return c.Err()
		}
		if err := w.region(from, sc, isolated); err != nil {
			return err
		}
	}
	inner.End()
	return inner.Err()
}

func (w *walker) region(c *Cursor, sc *scope, fresh bool) error {
	if w.depth++; w.depth > maxNesting {
		c.Fail("regions nested deeper than that", fmt.Sprintf("at most %d levels", maxNesting))
	}
	defer func() { w.depth-- }()
	blocks := c.Count("blocks", 1)
	r := region{next: sc.values}
	if blocks > 0 {
		r.end = sc.values + uint64(c.Count("values", 1))
	} else {
		r.end = sc.values
	}
	if !c.OK() {
		return c.Err()
	}
	outer := sc.values
	sc.values = r.end
	if err := w.v.Region(Region{First: r.next, Values: r.end - r.next, NewScope: fresh}); err != nil {
		return err
	}
	for range blocks {
		if err := w.block(c, sc, &r); err != nil {
			return err
		}
	}
	if r.next != r.end {
		c.Fail(fmt.Sprintf("%d values fewer than the region declared", r.end-r.next), "as many")
	}
	sc.values = outer
	if !c.OK() {
		return c.Err()
	}
	return w.v.EndRegion()
}
