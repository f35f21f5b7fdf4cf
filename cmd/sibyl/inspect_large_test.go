package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sibyl/internal/mlirb"
)

// inflate writes a copy of the sample .aimodel at src whose last resource is followed by one more of size bytes, a hole in a sparse
// file: a program as large as a 27B's with everything else as it was. Its main.hash is not that of the copy.
func inflate(t *testing.T, src, dst string, size int64) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(src, "main.mlirb"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := mlirb.Parse(src, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"metadata.json", "main.hash"} {
		text, err := os.ReadFile(filepath.Join(src, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dst, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	wide := func(v uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{0}, v) } // a PrefixVarInt of 9 bytes
	out := append([]byte{}, b[:4]...)
	out = append(append(append(out, byte(f.Version<<1|1)), f.Producer...), 0)
	put := func(id byte, data []byte) {
		out = append(append(append(out, id), wide(uint64(len(data)))...), data...)
	}
	var resources, offsets mlirb.Section
	for _, s := range f.Sections {
		switch s.ID {
		case 5:
			resources = s
		case 6:
			offsets = s
		default:
			put(byte(s.ID), s.Data)
		}
	}
	entry := append([]byte{1<<1 | 1}, wide(uint64(size))...) // alignment 1, length
	total := int64(len(entry)) + size
	// A group of its own behind the others: dialect 0, one resource, the key of string 0, its size, a blob.
	more := append(append([]byte{1, 1<<1 | 1, 1}, wide(uint64(total))...), 0)
	put(6, append(append([]byte{}, offsets.Data...), more...))
	out = append(append(out, 5|0x80), wide(uint64(int64(len(resources.Data))+total))...)
	out = append(out, 16<<1|1)
	for len(out)%16 != 0 {
		out = append(out, 0xCB)
	}
	out = append(append(out, resources.Data...), entry...)
	w, err := os.Create(filepath.Join(dst, "main.mlirb"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(out)
	if err == nil {
		err = w.Truncate(int64(len(out)) + size)
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		t.Skip("needs a sparse file of 28 GB:", err)
	}
}

// TestInspectLarge: a bundle of 28 GB is listed in less than 2 s and less than 200 MB.
func TestInspectLarge(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "large.aimodel")
	inflate(t, filepath.Join("..", "..", "testdata", "bundles", "opticks-2m-apple-q35", "opticks-2m-apple-q35.aimodel"), dir, 28e9)
	start := time.Now()
	cmd := exec.Command("sibyl", "inspect", dir, "--json")
	out, err := cmd.Output()
	took := time.Since(start)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r bundleInspection
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	if r.Asset.Bytes < 28e9 || len(r.Weights) != 165 || r.Profile != "apple-q35" || r.MainHash != hashUnread {
		t.Errorf("%d bytes, %d weights, profile %q, main.hash %s; want 28 GB, 165, apple-q35, not compared", r.Asset.Bytes, len(r.Weights), r.Profile, r.MainHash)
	}
	peak := peakMemory(cmd.ProcessState)
	t.Logf("%v, peak %d MB", took, peak>>20)
	if took > 2*time.Second || peak > 200<<20 {
		t.Errorf("%v and %d MB, want less than 2 s and 200 MB", took, peak>>20)
	}
}

// sparseCheckpoint writes a copy of the golden tiny-dense-tied whose embedding takes size bytes or a few more: a hole in a
// sparse file, with a NaN as the last element.
func sparseCheckpoint(t *testing.T, size int64) (dir string) {
	t.Helper()
	dir, src := t.TempDir(), filepath.Join("..", "..", "testdata", "goldens", "tiny-dense-tied")
	cfg, err := os.ReadFile(filepath.Join(src, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile(filepath.Join(src, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	const embed, vocab, row = "model.language_model.embed_tokens.weight", 640, 96 * 2 // first in the file
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	n := binary.LittleEndian.Uint64(model)
	var all map[string]json.RawMessage
	if err := json.Unmarshal(model[8:8+n], &all); err != nil {
		t.Fatal(err)
	}
	delete(all, "__metadata__")
	rest := model[8+n+vocab*row:]
	rows := size/row + 1
	header := map[string]entry{}
	for name, raw := range all {
		var e entry
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		e.Offsets[0] -= vocab * row
		e.Offsets[1] -= vocab * row
		if name == embed {
			e = entry{"BF16", []int64{rows, row / 2}, [2]int64{int64(len(rest)), int64(len(rest)) + rows*row}}
		}
		header[name] = e
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, strings.Repeat(" ", -len(text)&7)...)
	start := append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), rest...)
	cfg = bytes.Replace(cfg, []byte(`"vocab_size": 640`), fmt.Appendf(nil, `"vocab_size": %d`, rows), 1)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(start)
	if err == nil {
		_, err = f.WriteAt([]byte{0xc0, 0x7f}, int64(len(start))+rows*row-2)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		t.Skip("needs a sparse file:", err)
	}
	return dir
}

// TestInspectScans: a large checkpoint's weights are read when asked only, and the output says which it was.
func TestInspectScans(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		bytes int64
		flags []string
		code  int
		json  string
		text  string
	}{
		{"small", 100 << 20, nil, exitMismatch, `"non_finite":[{"tensor":"model.language_model.embed_tokens.weight","nan":1,"inf":0}]`, "note: not finite: model.language_model.embed_tokens.weight: 1 NaN, 0 Inf"},
		{"large", quickScan, nil, exitOK, `"non_finite":null`, "NaN and Inf were not looked for (--scan reads all 271 MB)"},
		{"large, asked", quickScan, []string{"--scan"}, exitMismatch, `"non_finite":[{"tensor":"model.language_model.embed_tokens.weight","nan":1,"inf":0}]`, "note: not finite: "},
		{"small, not wanted", 100 << 20, []string{"--no-scan"}, exitOK, `"non_finite":null`, "NaN and Inf were not looked for (--scan reads all 108 MB)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := sparseCheckpoint(t, tt.bytes)
			for want, flags := range map[string][]string{tt.json: {"--json"}, tt.text: nil} {
				var out, notes bytes.Buffer
				code := Main(append(append([]string{"inspect", dir}, flags...), tt.flags...), nil, &out, &notes)
				said := out.String()
				if flags != nil {
					said = strings.Join(strings.Fields(said), "")
				}
				if code != tt.code || !strings.Contains(said, want) {
					t.Errorf("exit %d, want %d with %q\n%s%s", code, tt.code, want, out.String()[max(0, out.Len()-300):], notes.String())
				}
			}
		})
	}
}
