package safetensors

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/internal/inputerr"

	gocmp "github.com/google/go-cmp/cmp"
)

// create starts a file with two tensors of different width, given narrow first.
func create(t *testing.T, path string) *Writer {
	t.Helper()
	w, err := Create(path, map[string]string{"who": "sibyl <\"ü\">", "data_sha256": strings.Repeat("0", 64)},
		[]Spec{{"half", F16, []int{3}}, {"wide", F32, []int{2, 1}}, {"scalar", F32, nil}, {"none", I32, []int{0, 4}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Abort)
	return w
}

func fill(t *testing.T, w *Writer) {
	t.Helper()
	for _, p := range []struct {
		name string
		off  int64
		b    []byte
	}{{"half", 4, []byte{5, 6}}, {"half", 0, []byte{1, 2, 3, 4}}, {"scalar", 0, []byte{9, 9, 9, 9}}, {"wide", 0, []byte("abcdefgh")}} {
		if err := w.WriteAt(p.name, p.off, p.b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriterRoundTrip(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.safetensors")
	w := create(t, path)
	fill(t, w)
	sum, err := w.SHA256()
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("abcdefgh\x09\x09\x09\x09\x01\x02\x03\x04\x05\x06")
	if want := sha256.Sum256(data); sum != hex.EncodeToString(want[:]) {
		t.Errorf("SHA256() = %s, want that of %q: wider elements first, given order otherwise", sum, data)
	}
	if err := w.SetMetadata("data_sha256", sum); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Fatal("the file has its name before Commit")
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}

	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if diff := gocmp.Diff(map[string]string{"who": "sibyl <\"ü\">", "data_sha256": sum}, f.Metadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	want := []Tensor{
		{Name: "wide", DType: F32, Shape: []int{2, 1}, Begin: 0, End: 8, Data: []byte("abcdefgh")},
		{Name: "none", DType: I32, Shape: []int{0, 4}, Begin: 12, End: 12, Data: []byte{}},
		{Name: "scalar", DType: F32, Shape: []int{}, Begin: 8, End: 12, Data: []byte{9, 9, 9, 9}},
		{Name: "half", DType: F16, Shape: []int{3}, Begin: 12, End: 18, Data: []byte{1, 2, 3, 4, 5, 6}},
	}
	for _, tw := range want {
		if got, _ := f.Tensor(tw.Name); !gocmp.Equal(got, tw) {
			t.Errorf("tensor %s (-want +got):\n%s", tw.Name, gocmp.Diff(tw, got))
		}
	}
	raw, _ := os.ReadFile(path)
	if start := len(raw) - len(data); start%8 != 0 || !bytes.Equal(raw[start:], data) {
		t.Errorf("data section starts at byte %d, want a multiple of 8 followed by %q", start, data)
	}
	if left := names(t, filepath.Dir(path)); len(left) != 1 {
		t.Errorf("folder holds %v, want the file alone", left)
	}
}

func TestWriterLeavesNothingHalfWritten(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, why string
		do        func(*Writer) error
		wantErr   string
	}{
		{"abort", "an interrupted job cleans up", func(w *Writer) error { w.Abort(); w.Abort(); return nil }, ""},
		{"hole", "an unwritten row would read as zeros", func(w *Writer) error {
			_ = w.WriteAt("wide", 0, make([]byte, 8))
			_ = w.WriteAt("scalar", 0, make([]byte, 4))
			_ = w.WriteAt("half", 0, make([]byte, 4))
			return w.Commit()
		}, `tensor "half" has 4 of its 6 bytes`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "x.safetensors")
			if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			err := tt.do(create(t, path))
			if got := errText(err); !strings.Contains(got, tt.wantErr) {
				t.Errorf("got %q, want %q\nwhy: %s", got, tt.wantErr, tt.why)
			}
			if b, _ := os.ReadFile(path); string(b) != "old" || len(names(t, filepath.Dir(path))) != 1 {
				t.Errorf("the file there reads %q beside %v, want it untouched and alone\nwhy: %s", b, names(t, filepath.Dir(path)), tt.why)
			}
		})
	}
}

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	w := create(t, filepath.Join(t.TempDir(), "x.safetensors"))
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"unknown-tensor", w.WriteAt("nobody", 0, nil), `tensor "nobody" was not announced`},
		{"past-the-end", w.WriteAt("half", 4, make([]byte, 3)), `bytes 4..7 of tensor "half", which has 6`},
		{"negative-offset", w.WriteAt("half", -1, make([]byte, 1)), `bytes -1..0 of tensor "half", which has 6`},
		{"longer-metadata", w.SetMetadata("data_sha256", "short"), "66 bytes of JSON reserved, 7 given"},
		{"unknown-metadata", w.SetMetadata("nobody", "x"), "0 bytes of JSON reserved, 3 given"},
		{"duplicate", specErr(Spec{"a", F32, nil}, Spec{"a", F32, nil}), `tensor "a" given twice`},
		{"dtype", specErr(Spec{"a", "F4", nil}), "not a name, dtype and shape"},
		{"overflow", specErr(Spec{"a", F32, []int{1 << 40, 1 << 40}}), "overflows"},
		{"negative-size", specErr(Spec{"a", F32, []int{-1}}), "negative dimension"},
	}
	for _, tt := range tests {
		if got := errText(tt.err); !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func specErr(s ...Spec) error {
	_, err := Create("never/made", nil, s)
	return err
}

// A file larger than any disk stands for a full one: the space is claimed before anything is written.
func TestWriterDiskFull(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.safetensors")
	_, err := Create(path, nil, []Spec{{"a", F32, []int{1 << 58}}})
	var in *inputerr.Error
	if err == nil {
		t.Skip("this file system keeps files of 2^60 bytes")
	}
	if !asInput(err, &in) || in.File != path || !strings.Contains(in.Do, "free space") {
		t.Errorf("Create of 2^60 bytes = %v, want an error that names the file and says to free space", err)
	}
	if left := names(t, filepath.Dir(path)); len(left) != 0 {
		t.Errorf("folder holds %v, want nothing", left)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
