package safetensors

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	nlp "github.com/nlpodyssey/safetensors"

	"sibyl/internal/malformed"
)

// text makes a file of a header text and n bytes of data.
func text(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

// TestMalformed holds the exact error of every malformed file; package bundle holds them once more through a path.
func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, tt := range malformed.All() {
		content, ok := tt.Files[""]
		if !ok {
			continue
		}
		_, err := Parse("PATH", content)
		if got := errText(err); got != tt.Want {
			t.Errorf("%s\n got %s\nwant %s\nwhy: %s", tt.Name, got, tt.Want, tt.Why)
		}
	}
}

// TestStricterThanTheLibrary: the files that nlpodyssey/safetensors alone would accept are why our scanner goes
// first; if it learns to refuse one, this list gets shorter.
func TestStricterThanTheLibrary(t *testing.T) {
	t.Parallel()
	accepted := map[string]bool{}
	for _, tt := range malformed.All() {
		if content, ok := tt.Files[""]; ok {
			if _, err := nlp.Deserialize(content); err == nil {
				accepted[strings.TrimSuffix(filepath.Base(tt.Name), ".safetensors")] = true
			}
		}
	}
	for _, name := range []string{"bad-utf8", "duplicate-key", "duplicate-escaped", "duplicate-in-entry", "leading-space", "lone-surrogate", "rank", "long-name"} {
		if !accepted[name] {
			t.Errorf("%s: the library refuses it now (it accepts %v)", name, accepted)
		}
		delete(accepted, name)
	}
	for name := range accepted {
		t.Errorf("%s: the library accepts it, and this list does not say so", name)
	}
}

func TestGoodForms(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, why, header string
		data              int
		want              string
	}{
		{"empty", "a header may hold nothing", "{}", 0, ""},
		{"padded", "spaces after the object align the data", "{}      ", 0, ""},
		{"unordered", "entries in any order of the text", `{"b":{"data_offsets":[4,6],"shape":[1],"dtype":"BF16"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`, 6, "a F32 [] 4; b BF16 [1] 2; "},
		{"unknown-dtype", "kept by name, its size is nobody's to judge", `{"a":{"dtype":"F4_NEW","shape":[9],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}`, 4, "a F4_NEW [9] 3; b U8 [1] 1; "},
		{"zero-sized", "no bytes at one place, twice", `{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[3,0],"data_offsets":[0,0]}}`, 0, "a F32 [0] 0; b F32 [3 0] 0; "},
		{"metadata", "strings, also with escapes", `{"__metadata__":{"format":"pt","ü":"\ud83d\ude00\n"}}`, 0, "format=pt ü=😀\n "},
		{"long-numbers", "zeros are sizes too", `{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,2],"data_offsets":[0,2]}}`, 2, "a U8 [1 1 1 1 1 1 1 2] 2; "},
	}
	for _, tt := range tests {
		f, err := Parse("x", text(tt.header, tt.data))
		if err != nil {
			t.Errorf("%s: %v\nwhy: %s", tt.name, err, tt.why)
			continue
		}
		var got strings.Builder
		for _, x := range f.Tensors() {
			fmt.Fprintf(&got, "%s %s %v %d; ", x.Name, x.DType, x.Shape, len(x.Data))
		}
		for _, key := range []string{"format", "ü"} {
			if v, ok := f.Metadata()[key]; ok {
				fmt.Fprintf(&got, "%s=%s ", key, v)
			}
		}
		if got.String() != tt.want {
			t.Errorf("%s: %q\n got %q\nwant %q\nwhy: %s", tt.name, tt.header, got.String(), tt.want, tt.why)
		}
	}
}

// TestHostileHeaders are too large to commit: the bounds must stop them before memory is spent. Not parallel,
// because TotalAlloc counts the whole process.
func TestHostileHeaders(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"t%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`, i)
		}
		b.WriteByte('}')
		return b.String()
	}
	tests := []struct {
		name, header, wantErr string
		maxMB                 uint64
	}{
		{"most-tensors", many(MaxTensors), "", 150},
		{"too-many-tensors", many(MaxTensors + 1), "found more than 65536 tensors, want fewer", 64},
		{"long-shape", `{"a":{"dtype":"U8","shape":[` + strings.Repeat("1,", 1<<20) + `1],"data_offsets":[0,1]}}`, "more than 8 dimensions", 1},
		{"many-metadata", `{"__metadata__":{"a":"` + strings.Repeat(`","b`, 1) + `":""` + manyKeys(5000) + `}}`, "more than 4096 entries", 4},
		{"long-string", `{"__metadata__":{"a":"` + strings.Repeat("x", 8<<20) + `"}}`, "", 20},
	}
	for _, tt := range tests {
		in := text(tt.header, 0)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse("x", in)
		runtime.ReadMemStats(&after)
		if got := errText(err); !strings.Contains(got, tt.wantErr) || tt.wantErr == "" && err != nil {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.wantErr)
		}
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > tt.maxMB {
			t.Errorf("%s: %d MB allocated for a header of %d bytes, want at most %d MB", tt.name, used, len(tt.header), tt.maxMB)
		}
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":""`, i)
	}
	return b.String()
}

func TestOpenNamesTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "absent.safetensors")
	if _, err := Open(path); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("Open(%q) = %v, want an error that starts with the path", path, err)
	}
	empty := filepath.Join(t.TempDir(), "empty.safetensors")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(empty); err == nil || !strings.Contains(err.Error(), "found a file of 0 bytes, want at least 8") {
		t.Errorf("Open of an empty file = %v", err)
	}
}

// FuzzHeader: no panic, and whatever is accepted is consistent: the tensors fill the data section, each has the size
// its shape says, and writing them again gives a file that reads the same.
func FuzzHeader(f *testing.F) {
	for _, tt := range malformed.All() {
		for name, content := range tt.Files {
			if name == "" || strings.HasSuffix(name, ".safetensors") {
				f.Add(content)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse("x", b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x: ") {
				t.Fatalf("the error does not name the file: %v", err)
			}
			return
		}
		var end int64
		for _, x := range file.Tensors() {
			if x.Begin != end || x.End-x.Begin != int64(len(x.Data)) {
				t.Fatalf("tensor %q at [%d, %d] with %d bytes, after %d", x.Name, x.Begin, x.End, len(x.Data), end)
			}
			if s := x.DType.Size(); s > 0 && x.Elements()*s != len(x.Data) {
				t.Fatalf("tensor %q %s %v with %d bytes", x.Name, x.DType, x.Shape, len(x.Data))
			}
			end = x.End
		}
		if n := 8 + binary.LittleEndian.Uint64(b); uint64(end) != uint64(len(b))-n {
			t.Fatalf("tensors end at %d of %d", end, uint64(len(b))-n)
		}
	})
}
