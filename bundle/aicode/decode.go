package aicode

import (
	"errors"
	"fmt"
	"io"

	"sibyl/internal/mlirb"
	"sibyl/internal/mmap"
	"sibyl/internal/userfile"
)

// dialectName is the one dialect of an .aimodel, dialectVersion the one version of it that is known.
const (
	dialectName    = "aicode"
	dialectVersion = "\x05"
)

// Open maps and decodes the main.mlirb at path. The program's bytes are valid until the io.Closer is closed.
// Bad input gives an *inputerr.Error; errors.As finds the *mlirb.Fault with its offset.
func Open(path string) (*Program, io.Closer, error) {
	m, err := mmap.Open(path)
	if err != nil {
		return nil, nil, userfile.Fault(path, "give the path of a main.mlirb that can be read", err)
	}
	p, err := Decode(m.Bytes(), path)
	if err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	return p, m, nil
}

// Decode decodes a main.mlirb whose bytes are data, which the program keeps views of; label names it in messages.
// Every constant's length is held against its type, every reference against what was defined before it.
// Where the dialect is unknown or damaged and the resources could be read, a Program that has only them comes with the error.
func Decode(data []byte, label string) (*Program, error) {
	f, err := mlirb.Parse(label, data)
	if f == nil {
		return nil, err
	}
	r := &reader{file: f, prog: &Program{File: label, Bytecode: f.Version, Producer: f.Producer, Size: int64(len(data))},
		types: make([]*Type, len(f.Types)), attrs: map[uint64]Attr{}, ids: map[uint64]int64{}}
	r.resources()
	if err == nil {
		err = r.dialect()
	}
	if err == nil {
		err = r.program()
	}
	if err != nil {
		return &Program{File: label, Bytecode: f.Version, Producer: f.Producer, Size: int64(len(data)), Resources: r.prog.Resources}, f.Err(err)
	}
	return r.prog, nil
}

// reader decodes one file.
type reader struct {
	file  *mlirb.File
	prog  *Program
	types []*Type
	attrs map[uint64]Attr
	ids   map[uint64]int64
}

func (r *reader) resources() {
	for _, res := range r.file.Resources {
		if res.Kind == mlirb.Blob && !res.Elided {
			r.prog.Resources = append(r.prog.Resources, Resource{Key: res.Key, Offset: res.Offset, Align: int64(res.Align), Data: res.Data})
		}
	}
}

// dialect demands the one dialect in the one version.
func (r *reader) dialect() error {
	want := fmt.Sprintf("%s, version %x", dialectName, dialectVersion)
	known := false
	for _, d := range r.file.Dialects {
		switch {
		case d.Name != dialectName:
			return r.unknown("dialects", fmt.Sprintf("dialect %.80q", d.Name), want)
		case string(d.Version) != dialectVersion:
			return r.unknown("dialects", fmt.Sprintf("%s, version %.20x", dialectName, d.Version), want)
		}
		r.prog.Dialect, known = d.Version, true
	}
	if !known {
		return r.unknown("dialects", "none", want)
	}
	return nil
}

// unknown is a fault of a whole section.
func (r *reader) unknown(where, found, want string) error {
	e := &mlirb.Fault{Where: where, Found: found, Want: want, Unknown: true}
	for _, s := range r.file.Sections {
		if s.ID == r.file.SectionOf(where) {
			e.Offset = s.Offset
		}
	}
	return e
}

// program builds the operations and makes graphs of them.
func (r *reader) program() error {
	b := &builder{r: r}
	if err := r.file.Walk(b); err != nil {
		return err
	}
	if len(b.top) != 1 || b.top[0].Name != "serialization.asset" || len(b.top[0].Regions) != 1 {
		return r.unknown("operations", fmt.Sprintf("%d operations outermost", len(b.top)), "one serialization.asset with one region")
	}
	asset := b.top[0]
	if v, ok := asset.Attrs["version"].(uint64); ok {
		r.prog.AssetVersion = v
	}
	graphs := map[string]*Graph{}
	for _, op := range asset.Regions[0].Ops {
		g, err := r.graph(op)
		if err != nil {
			return err
		}
		if graphs[g.Name] != nil {
			return at(op, fmt.Sprintf("a second graph named %.80q", g.Name), "each name once")
		}
		graphs[g.Name] = g
		r.prog.Graphs = append(r.prog.Graphs, g)
	}
	if len(r.prog.Graphs) == 0 {
		return at(asset, "no graph", "one at least")
	}
	return r.calls(graphs)
}

// at is a fault of an operation.
func at(op *Op, found, want string) error {
	return &mlirb.Fault{Offset: op.Offset, Where: op.Name, Found: found, Want: want}
}

// IsUnknown says whether err is about something well-formed that this program does not know, such as a newer dialect.
func IsUnknown(err error) bool {
	var f *mlirb.Fault
	return errors.As(err, &f) && f.Unknown
}
