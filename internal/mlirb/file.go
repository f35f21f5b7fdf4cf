// Package mlirb reads MLIR bytecode, versions 0 to 6, whatever its dialects: sections, strings, dialects, the entries of
// attributes and types, resources, and the operations by a visitor. It maps nothing and copies no blob: everything is a
// view of the bytes it is given, and every count is held against the bytes that remain before it is used.
//
// What an attribute or a type means is its dialect's: builtin.go reads the builtin ones, package bundle/aicode those of .aimodel.
//
// Source: LLVM 22, mlir/docs/BytecodeFormat.md and mlir/lib/Bytecode/Reader; held against mlir-opt 22 (testdata).
package mlirb

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"sibyl/internal/inputerr"
)

// MaxVersion is the newest version of the container that is read.
const MaxVersion = 6

// Sections of a file.
const (
	secString = iota
	secDialect
	secAttrType
	secAttrTypeOffset
	secIR
	secResource
	secResourceOffset
	secDialectVersions
	secProperties
	numSections
)

var sectionNames = [numSections]string{"strings", "dialects", "attributes and types", "offsets of attributes and types",
	"operations", "resources", "offsets of resources", "dialect versions", "properties"}

// Section is a stretch of the file. Data excludes the padding before it.
type Section struct {
	ID     int
	Align  uint64 // 1 if none is demanded
	Offset int64
	Data   []byte
}

// Dialect is a namespace of operations, attributes and types.
type Dialect struct {
	Name    string
	Version []byte // nil if the file has none; its meaning is the dialect's
}

// OpName is a name that operations refer to.
type OpName struct {
	Dialect    int
	Name       string // without the dialect
	Registered bool   // its properties are in the section of properties; since version 5
}

// Entry is the encoding of an attribute or a type.
type Entry struct {
	Offset  int64 // in the file
	Size    int32
	Dialect int16
	Custom  bool // in the dialect's own encoding; otherwise assembly text
}

// File is a file whose tables were read. Its operations are read by Walk.
type File struct {
	Name      string // for messages
	Version   uint64
	Producer  string
	Sections  []Section
	Dialects  []Dialect
	OpNames   []OpName
	Attrs     []Entry
	Types     []Entry
	Resources []Resource

	data    []byte
	strings []string
	handles []int32 // n-th resource of a dialect: its place in Resources
	props   []span
	byID    [numSections]*Section
}

// span is a stretch of the file.
type span struct{ off, size int64 }

// Parse reads the tables of a file whose bytes are data; name is for messages. Bad input gives an *inputerr.Error that
// wraps a *Fault. Where the resources could be read the File is returned beside the error, so that they can be listed
// although the rest cannot be understood.
func Parse(name string, data []byte) (*File, error) {
	f := &File{Name: name, data: data}
	if err := f.header(); err != nil {
		return nil, f.wrap(err)
	}
	for _, read := range []func() error{f.readStrings, f.readDialects, f.readResources} {
		if err := read(); err != nil {
			return nil, f.wrap(err)
		}
	}
	for _, read := range []func() error{f.readEntries, f.readProperties} {
		if err := read(); err != nil {
			return f, f.wrap(err)
		}
	}
	return f, nil
}

// wrap names the file and says what to do.
func (f *File) wrap(err error) error {
	var fault *Fault
	if !errors.As(err, &fault) {
		return err
	}
	do := "download the file again; a correct writer never produces this"
	switch {
	case fault.Unknown:
		do = "a newer version of sibyl may know it"
	case fault.Found == lfsPointer:
		do = "run `git lfs pull` in the folder it came from, or download the file again"
	}
	return &inputerr.Error{File: f.Name, Err: fault, Do: do}
}

const lfsPointer = "a Git LFS pointer"

func (f *File) header() error {
	c := NewCursor(f.data, 0, "header")
	if bytes.HasPrefix(f.data, []byte("version https://git-lfs")) {
		c.Fail(lfsPointer, "the file itself")
		return c.Err()
	}
	if m := c.Bytes(4); c.OK() && string(m) != "ML\xefR" {
		c.failAt(0, fmt.Sprintf("the bytes % x", m), "4d 4c ef 52, the magic number of MLIR bytecode")
	}
	at := c.Offset()
	f.Version = c.Varint()
	if c.OK() && f.Version > MaxVersion {
		c.failAt(at, fmt.Sprintf("bytecode version %d", f.Version), fmt.Sprintf("at most %d", MaxVersion))
		c.err.Unknown = true
	}
	f.Producer = c.CString()
	for c.Left() > 0 {
		at := c.Offset()
		s := c.section()
		if c.OK() && f.has(s.ID) {
			c.failAt(at, fmt.Sprintf("the section of %s a second time", sectionNames[s.ID]), "each section once")
		}
		f.Sections = append(f.Sections, s)
	}
	if c.OK() {
		f.require(&c)
	}
	return c.Err()
}

func (f *File) has(id int) bool {
	for _, s := range f.Sections {
		if s.ID == id {
			return true
		}
	}
	return false
}

// require demands the sections that a file must have, and keeps them by their number.
func (f *File) require(c *Cursor) {
	for i := range f.Sections {
		f.byID[f.Sections[i].ID] = &f.Sections[i]
	}
	for id := range numSections {
		optional := id == secResource || id == secResourceOffset || id == secDialectVersions || id == secProperties && f.Version < 5
		if f.byID[id] == nil && !optional {
			c.Fail("no section of "+sectionNames[id], "one")
		}
	}
	if (f.byID[secResource] == nil) != (f.byID[secResourceOffset] == nil) {
		c.Fail("resources or their offsets alone", "both sections or none")
	}
}

// section reads a section's header and takes its bytes.
func (c *Cursor) section() Section {
	at := c.Offset()
	b := c.Byte()
	n := c.Varint()
	s := Section{ID: int(b & 0x7f), Align: 1}
	if c.OK() && s.ID >= numSections {
		c.failAt(at, fmt.Sprintf("a section %d", s.ID), fmt.Sprintf("0..%d", numSections-1))
		return Section{}
	}
	if b&0x80 != 0 {
		s.Align = c.Varint()
		c.Align(s.Align)
	}
	s.Offset = c.Offset()
	s.Data = c.Bytes(n)
	return s
}

// cursor reads a section from its start.
func (f *File) cursor(id int) Cursor {
	s := f.byID[id]
	return NewCursor(s.Data, s.Offset, sectionNames[id])
}

// SectionOf gives the number of a section by its name in messages, -1 if there is none.
func (f *File) SectionOf(name string) int { return slices.Index(sectionNames[:], name) }

// Entry reads the encoding of an attribute or a type.
func (f *File) Entry(e Entry, where string) Cursor {
	return NewCursor(f.data[e.Offset:e.Offset+int64(e.Size)], e.Offset, where)
}

// Err gives err the file's name and what to do, as errors of Parse have them.
func (f *File) Err(err error) error { return f.wrap(err) }
