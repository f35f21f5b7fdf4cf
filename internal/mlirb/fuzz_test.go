package mlirb

import (
	"os"
	"path/filepath"
	"testing"
)

// visitAll reads all there is to read.
type visitAll struct{ f *File }

func (v visitAll) Op(o *Op) error {
	if o.Props >= 0 {
		_, _ = v.f.Properties(o, "")
	}
	return nil
}
func (v visitAll) EndOp() error           { return nil }
func (v visitAll) Region(Region) error    { return nil }
func (v visitAll) EndRegion() error       { return nil }
func (v visitAll) Block([]Arg, int) error { return nil }

// FuzzParse: no input panics, hangs or reads outside its bytes; what is listed lies within the file.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.mlirb")
	if err != nil || len(files) == 0 {
		f.Fatal("no samples", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse("fuzz", b)
		if file == nil {
			if err == nil {
				t.Fatal("neither a file nor an error")
			}
			return
		}
		for _, r := range file.Resources {
			if r.Offset < 0 || r.Offset+int64(len(r.Data)) > int64(len(b)) {
				t.Fatalf("resource %q at %d, %d bytes, of %d", r.Key, r.Offset, len(r.Data), len(b))
			}
		}
		if err != nil {
			return
		}
		_ = file.Walk(visitAll{file})
		for i := range min(len(file.Attrs), 200) {
			if s, err := file.AttrText(uint64(i)); err == nil && len(s) > maxText+3 {
				t.Fatalf("attribute %d: %d bytes of text", i, len(s))
			}
		}
		for i := range min(len(file.Types), 200) {
			_, _ = file.TypeText(uint64(i))
		}
	})
}
