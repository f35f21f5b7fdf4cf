package mlirb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Fault is what is wrong with a file's bytes, and where. Errors of this package wrap one (errors.As).
type Fault struct {
	Offset  int64  // in the file
	Where   string // the table or section
	Found   string
	Want    string
	Unknown bool // well-formed as far as it can be read, but of a dialect, code or version that this program does not know
}

// Error prints one line: where, byte N: found F, want W.
func (f *Fault) Error() string {
	return fmt.Sprintf("%s, byte %d: found %s, want %s", f.Where, f.Offset, f.Found, f.Want)
}

// Cursor reads a stretch of a file's bytes. The first fault stops it: every later read gives zero, so that a caller
// looks at Err once per entry instead of once per number. No count read from the file is to be trusted before Count.
type Cursor struct {
	data  []byte
	pos   int
	base  int64 // data's place in the file: alignment counts from the file's start
	where string
	err   *Fault
}

// NewCursor reads data, which stands at byte base of the file; where names it in messages.
func NewCursor(data []byte, base int64, where string) Cursor {
	return Cursor{data: data, base: base, where: where}
}

// Err is the first fault, nil so far.
func (c *Cursor) Err() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

// OK says whether every read so far was good.
func (c *Cursor) OK() bool { return c.err == nil }

// Offset is the place of the next byte in the file.
func (c *Cursor) Offset() int64 { return c.base + int64(c.pos) }

// Left is the number of bytes that remain, 0 after a fault.
func (c *Cursor) Left() int {
	if c.err != nil {
		return 0
	}
	return len(c.data) - c.pos
}

// Fail records a fault at the next byte, unless there is one already.
func (c *Cursor) Fail(found, want string) { c.failAt(c.Offset(), found, want) }

func (c *Cursor) failAt(off int64, found, want string) {
	if c.err == nil {
		c.err = &Fault{Offset: off, Where: c.where, Found: found, Want: want}
	}
}

// End demands that nothing is left.
func (c *Cursor) End() {
	if n := c.Left(); n > 0 {
		c.Fail(plural(uint64(n), "byte", "bytes")+" more", "the end")
	}
}

// Byte reads one byte.
func (c *Cursor) Byte() byte {
	if c.Left() == 0 {
		c.Fail("the end", "another byte")
		return 0
	}
	c.pos++
	return c.data[c.pos-1]
}

// Bytes reads n bytes: a view, nothing is copied.
func (c *Cursor) Bytes(n uint64) []byte {
	if n > uint64(c.Left()) {
		c.Fail(plural(uint64(c.Left()), "byte", "bytes"), fmt.Sprintf("%d", n))
		return nil
	}
	b := c.data[c.pos : c.pos+int(n) : c.pos+int(n)]
	c.pos += int(n)
	return b
}

// Varint reads a PrefixVarInt: the zeros below the first byte's lowest set bit count the bytes that follow, and the value is the
// little-endian word shifted past them; a first byte of 0 stands before 8 raw bytes.
// Source: LLVM 22, mlir/docs/BytecodeFormat.md, "Variable-Width Integers".
func (c *Cursor) Varint() uint64 {
	b := c.Byte()
	switch {
	case b&1 == 1:
		return uint64(b >> 1)
	case c.err != nil:
		return 0
	case b == 0:
		p := c.Bytes(8)
		if p == nil {
			return 0
		}
		return binary.LittleEndian.Uint64(p)
	}
	n := bits.TrailingZeros8(b)
	v := uint64(b)
	for i, x := range c.Bytes(uint64(n)) {
		v |= uint64(x) << (8 * (i + 1))
	}
	return v >> (n + 1)
}

// Signed reads a zigzag PrefixVarInt.
func (c *Cursor) Signed() int64 {
	v := c.Varint()
	return int64(v>>1) ^ -int64(v&1)
}

// Flagged reads a PrefixVarInt whose lowest bit is a flag.
func (c *Cursor) Flagged() (uint64, bool) {
	v := c.Varint()
	return v >> 1, v&1 == 1
}

// Count reads a number of entries of at least size bytes each; what names them. More than fit into the bytes that
// remain is a fault, so a caller may allocate what it gets.
func (c *Cursor) Count(what string, size int) int {
	at := c.Offset()
	return c.Fits(at, c.Varint(), what, size)
}

// Fits is Count for a number that was read already, at byte at.
func (c *Cursor) Fits(at int64, n uint64, what string, size int) int {
	if c.err == nil && n > uint64(c.Left()/size) {
		c.failAt(at, fmt.Sprintf("%d %s in %d bytes", n, what, c.Left()), fmt.Sprintf("at most %d", c.Left()/size))
	}
	if c.err != nil {
		return 0
	}
	return int(n)
}

// CString reads up to a NUL.
func (c *Cursor) CString() string {
	n := bytes.IndexByte(c.data[c.pos:], 0)
	if n < 0 || c.err != nil {
		c.Fail("no NUL up to the end", "a string that ends")
		return ""
	}
	s := string(c.data[c.pos : c.pos+n])
	c.pos += n + 1
	return s
}

// Align skips the padding bytes (0xCB) up to a multiple of a.
func (c *Cursor) Align(a uint64) {
	if a == 0 || a&(a-1) != 0 || a > 1<<32 {
		c.Fail(fmt.Sprintf("an alignment of %d", a), "a power of two up to 2^32")
		return
	}
	for c.err == nil && uint64(c.Offset())&(a-1) != 0 {
		at := c.Offset()
		if b := c.Byte(); c.err == nil && b != 0xCB {
			c.failAt(at, fmt.Sprintf("the byte %#02x", b), fmt.Sprintf("0xCB, padding up to a multiple of %d", a))
		}
	}
}

func plural(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// FailUnknown records something that is well-formed but not known: an *Fault with Unknown set.
func (c *Cursor) FailUnknown(found, want string) {
	if c.err == nil {
		c.Fail(found, want)
		c.err.Unknown = true
	}
}

// Adopt takes over the fault of another cursor, if it has one.
func (c *Cursor) Adopt(d *Cursor) {
	if c.err == nil {
		c.err = d.err
	}
}
