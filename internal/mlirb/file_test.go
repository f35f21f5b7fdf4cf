package mlirb

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/internal/inputerr"
)

// lister notes what a Visitor is told, as lines of text.
type lister struct {
	f     *File
	depth int
	lines []string
	attrs []string
	ops   int
}

func (l *lister) Op(o *Op) error {
	var ts []string
	for _, t := range o.Results {
		s, err := l.f.TypeText(t)
		if err != nil {
			return err
		}
		ts = append(ts, s)
	}
	l.lines = append(l.lines, fmt.Sprintf("%s%s(%d) %v", strings.Repeat(" ", l.depth), l.f.OpName(o.Name), o.Operands, ts))
	for _, a := range []int64{o.Attrs, int64(o.Loc)} {
		if a >= 0 {
			s, err := l.f.AttrText(uint64(a))
			if err != nil {
				return err
			}
			l.attrs = append(l.attrs, s)
		}
	}
	l.ops++
	l.depth++
	return nil
}
func (l *lister) EndOp() error           { l.depth--; return nil }
func (l *lister) Region(Region) error    { return nil }
func (l *lister) EndRegion() error       { return nil }
func (l *lister) Block([]Arg, int) error { return nil }

func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func list(t *testing.T, name string) (*File, *lister) {
	t.Helper()
	f, err := Parse(name, sample(t, name))
	if err != nil {
		t.Fatal(err)
	}
	l := &lister{f: f}
	if err := f.Walk(l); err != nil {
		t.Fatal(err)
	}
	return f, l
}

// TestSamplesUnchanged holds testdata against its manifest.
func TestSamplesUnchanged(t *testing.T) {
	for line := range strings.Lines(string(sample(t, "manifest.txt"))) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if got := fmt.Sprintf("%x", sha256.Sum256(sample(t, name))); got != want {
			t.Errorf("%s: sha256 %s, want %s", name, got, want)
		}
	}
}

// TestVersions: one module written by mlir-opt in each version of the container reads the same.
func TestVersions(t *testing.T) {
	want := []string{
		"builtin.module([]) []",
		" coreai.graph([]) []",
		"  coreai.constant([]) [tensor<64x128xsi8>]",
		"  coreai.constant([]) [tensor<64x4xf16>]",
		"  coreai.constant([]) [tensor<64x4xsi8>]",
		"  coreai.constant([]) [tensor<64x4xf16>]",
		"  coreai.constant([]) [tensor<2xui32>]",
		"  coreai.blockwise_shift_scale([2 3 4 5]) [tensor<64x128xf16>]",
		"  coreai.transpose([7 6]) [tensor<128x64xf16>]",
		"  coreai.decomposable.broadcasting_batch_matmul([0 8]) [tensor<1x?x64xf16>]",
		"  coreai.output([9 1]) []",
	}
	for v := range uint64(MaxVersion + 1) {
		name := fmt.Sprintf("s2_qlinear_int8_block32.v%d.mlirb", v)
		f, l := list(t, name)
		if f.Version != v || f.Producer != "MLIR22.1.8" {
			t.Errorf("%s: version %d of %q, want %d of MLIR22.1.8", name, f.Version, f.Producer, v)
		}
		if !slices.Equal(l.lines, want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(l.lines, "\n"), strings.Join(want, "\n"))
		}
		checkBlob(t, f, "resource_11111111111111111111", 64, 64*128)
		checkBlob(t, f, "resource_222", 64, 64*4*2)
		attrs := strings.Join(l.attrs, "\n")
		for _, s := range []string{"value = dense_resource<resource_222> : tensor<64x4xf16>", `MutableBuffers.buffer_mutation = "keyCache"`,
			"function_type = (tensor<1x?x128xf16>, tensor<1x4x?x8xf16>) -> (tensor<1x?x64xf16>, tensor<1x4x?x8xf16>)",
			`fused[loc("model.py":12:3)]<{call_stack = ["Linear$1", "Model$1"], identifiers = ["linear"]}>`} {
			if !strings.Contains(attrs, s) {
				t.Errorf("%s: no attribute %s in\n%s", name, s, attrs)
			}
		}
	}
}

func checkBlob(t *testing.T, f *File, key string, align uint64, size int) {
	t.Helper()
	for _, r := range f.Resources {
		if r.Key != key {
			continue
		}
		if r.Align != align || len(r.Data) != size || r.Offset%int64(align) != 0 || !bytes.Equal(f.data[r.Offset:][:size], r.Data) {
			t.Errorf("%s: %d bytes at %d, alignment %d; want %d bytes, alignment %d", key, len(r.Data), r.Offset, r.Align, size, align)
		}
		return
	}
	t.Errorf("no resource %s", key)
}

// TestBuiltin: every attribute of s4 in the words of its source, gen.py.
func TestBuiltin(t *testing.T) {
	for v := 4; v <= 6; v++ {
		_, l := list(t, fmt.Sprintf("s4_inline_and_properties.v%d.mlirb", v))
		attrs := strings.Join(l.attrs, "\n")
		for _, s := range []string{"ui4 = dense<0x010f> : tensor<2xui4>", "si8 = dense<0xff0280> : tensor<3xsi8>", "si64 = dense<0xfbffffffffffffff> : tensor<4xi64>",
			"f16 = dense<0x003800c0> : tensor<2xf16>", "bf16 = dense<0x803f> : tensor<3xbf16>",
			"arr = array<3, 0x0100000000000000feffffffffffffff0300000000000000> : i64", "arr8 = array<2, 0x01fe> : i8", `str = "text"`, "sym = @m::@f",
			"ty = tensor<?x4xbf16>", "unit = unit", "n = 42 : si32", "big = -9000000000 : i64", "fp = 3.25 : f16", `lst = [1 : i32, "a", {k = 2 : f32}]`,
			"opaque = #t.attr<{x = 1}>", "oty = !t.ty<[1, 2]>"} {
			if !strings.Contains(attrs, s) {
				t.Errorf("version %d: no %s in\n%s", v, s, attrs)
			}
		}
		if want := "    scf.if([1]) [tensor<2x2xf32>]"; !slices.ContainsFunc(l.lines, func(s string) bool { return strings.HasPrefix(strings.TrimSpace(s), "scf.if(") }) {
			t.Errorf("version %d: no %s in\n%s", v, want, strings.Join(l.lines, "\n"))
		}
	}
}

// TestResources: alignments, a blob with two shapes, external groups, declarations without bytes.
func TestResources(t *testing.T) {
	f, _ := list(t, "s1_resources.mlirb")
	checkBlob(t, f, "res_i8", 64, 32)
	checkBlob(t, f, "res_f16", 2, 8)
	checkBlob(t, f, "res_f32", 4096, 24)
	f, _ = list(t, "s5_external.mlirb")
	got := fmt.Sprintf("%v", f.Resources)
	for _, r := range f.Resources {
		if !r.External || r.Group != "ext" {
			t.Errorf("%q of group %q, want an external one of ext", r.Key, r.Group)
		}
		switch r.Key {
		case "b":
			if r.Kind != Bool || !r.Bool {
				t.Errorf("b = %v", r)
			}
		case "s":
			if r.Kind != Text || r.Text != "hello" {
				t.Errorf("s = %v", r)
			}
		case "d":
			if r.Kind != Blob || string(r.Data) != "0123456789abcdef" {
				t.Errorf("d = %v", r)
			}
		}
	}
	if len(f.Resources) != 3 {
		t.Errorf("resources %s, want 3", got)
	}
	f, _ = list(t, "s6_elided.mlirb")
	for _, r := range f.Resources {
		if !r.Elided || r.Data != nil {
			t.Errorf("%s: %d bytes, want a declaration", r.Key, len(r.Data))
		}
	}
}

// TestEveryEntry: all attributes and types of all samples are printed without a fault.
func TestEveryEntry(t *testing.T) {
	files, err := filepath.Glob("testdata/*.mlirb")
	if err != nil || len(files) != 15 {
		t.Fatalf("%d samples (%v), want 15", len(files), err)
	}
	for _, file := range files {
		f, _ := list(t, filepath.Base(file))
		for i := range f.Attrs {
			if _, err := f.AttrText(uint64(i)); err != nil && !strings.Contains(err.Error(), "f8E4M3FN") {
				t.Errorf("%v", err)
			}
		}
		for i := range f.Types {
			if _, err := f.TypeText(uint64(i)); err != nil {
				t.Errorf("%v", err)
			}
		}
	}
}

// TestFaults: each is refused at its byte; resources stay listed where the rest is what is wrong.
func TestFaults(t *testing.T) {
	good := sample(t, "s1_resources.mlirb")
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	section := func(id int) *Section {
		f, err := Parse("s1", good)
		if err != nil {
			t.Fatal(err)
		}
		return f.byID[id]
	}
	for _, tt := range []struct {
		name, why string
		in        []byte
		want      string
		listed    int // resources that stay listed
	}{
		{"empty", "nothing was written", nil, "file: header, byte 0: found 0 bytes, want 4", 0},
		{"lfs", "a clone without git lfs", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:00"),
			"file: header, byte 0: found a Git LFS pointer, want the file itself; run `git lfs pull`", 0},
		{"magic", "another file", []byte("PK\x03\x04"), "found the bytes 50 4b 03 04, want 4d 4c ef 52", 0},
		{"version-7", "a newer container", edit(func(b []byte) []byte { b[4] = 7<<1 | 1; return b }), "byte 4: found bytecode version 7, want at most 6; a newer version of sibyl may know it", 0},
		{"truncated", "a cut download", good[:len(good)-1], "want", 0},
		{"resource-past-end", "a blob that is longer than the section", edit(func(b []byte) []byte {
			s := section(secResourceOffset) // 0 external groups, dialect, 3 resources: key, size, kind
			b[s.Offset+4] |= 0xfe
			return b
		}), "want", 0},
		{"alignment", "a blob aligned to 3", edit(func(b []byte) []byte { b[section(secResource).Offset] = 3<<1 | 1; return b }), "found an alignment of 3, want a power of two", 0},
		{"misaligned", "a blob that is not where its alignment says", edit(func(b []byte) []byte {
			s := section(secResource)
			b[s.Offset+2] = 0 // alignment 64, size 32, then padding
			return b
		}), "found the byte 0x00, want 0xCB, padding up to a multiple of 64", 0},
		{"overlap", "a blob that reaches into the next", edit(func(b []byte) []byte { b[section(secResource).Offset+1] += 64 << 1; return b }), "resource \"res_i8\", byte", 0},
		{"section-end", "a section that is longer than the file", edit(func(b []byte) []byte {
			s := section(secResource)
			return b[:s.Offset+int64(len(s.Data))/2]
		}), "want", 0},
		{"type-count", "more types than bytes", edit(func(b []byte) []byte { b[section(secAttrTypeOffset).Offset+1] = 0xff; return b }), "types in", 3},
		{"section-twice", "two meanings for one table", append(bytes.Clone(good), 7, 1, 7, 1), "found the section of dialect versions a second time, want each section once", 0},
		{"section-unknown", "a section of a newer container", append(bytes.Clone(good), 9, 1), "found a section 9, want 0..8", 0},
	} {
		f, err := Parse("file", tt.in)
		var e *inputerr.Error
		var fault *Fault
		if !errors.As(err, &e) || !errors.As(err, &fault) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v\nwant %s\nwhy: %s", tt.name, err, tt.want, tt.why)
		}
		if got := countResources(f); got != tt.listed {
			t.Errorf("%s: %d resources listed, want %d", tt.name, got, tt.listed)
		}
	}
}

func countResources(f *File) int {
	if f == nil {
		return 0
	}
	return len(f.Resources)
}
