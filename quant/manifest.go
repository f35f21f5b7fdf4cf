package quant

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sibyl/bundle"
)

// entry is what config.json records of one weight.
type entry struct {
	name string
	spec Spec
	h    hashes
}

// section is quantization_config; bundle reads it. quant_method stands first, so that readers of other methods can
// pass over it, and other programs refuse the checkpoint by name instead of missing its weights.
type section struct {
	Method  string                 `json:"quant_method"`
	Version int                    `json:"version"`
	Scheme  string                 `json:"scheme"`
	Source  string                 `json:"source"`
	Untied  bool                   `json:"untied_head"`
	Tensors map[string]sectionItem `json:"tensors"`
}

type sectionItem struct {
	Format string `json:"format"`
	Mode   string `json:"mode"`
	Block  int    `json:"block"`
	Axis   int    `json:"axis"`
	SHA256 string `json:"sha256"`
	Min    string `json:"minval_sha256,omitempty"`
}

// config writes the source's config.json with the section added in front; everything else stays as it is, byte for
// byte.
func (w *writer) config(tmp string) error {
	text, ok, err := w.ck.Read("config.json")
	if err != nil || !ok {
		return errors.Join(err, fmt.Errorf("%s: config.json is gone", w.ck.Name()))
	}
	s := section{bundle.QuantMethod, 1, w.a.Scheme.Name, w.ck.Name(), w.a.HeadUntied, map[string]sectionItem{}}
	for _, e := range w.entries {
		s.Tensors[e.name] = sectionItem{e.spec.Format.String(), e.spec.Mode(), e.spec.Block, e.spec.Axis, e.h.q, e.h.min}
	}
	add, err := json.MarshalIndent(s, "  ", "  ")
	if err != nil {
		return err
	}
	open := bytes.IndexByte(text, '{') // config.Parse has seen that this is an object with keys
	var out bytes.Buffer
	out.Write(text[:open+1])
	out.WriteString("\n  \"quantization_config\": ")
	out.Write(add)
	out.WriteByte(',')
	out.Write(text[open+1:])
	return w.file(tmp, "config.json", out.Bytes())
}

// index writes model.safetensors.index.json.
func (w *writer) index(tmp string, shardOf map[string]string) error {
	text, err := json.MarshalIndent(map[string]any{
		"metadata":   map[string]any{"total_size": w.report.Bytes},
		"weight_map": shardOf,
	}, "", "  ")
	if err != nil {
		return err
	}
	return w.file(tmp, "model.safetensors.index.json", append(text, '\n'))
}

// kept are the names of files that go with a checkpoint: tokenizer, generation, licence. Folders, weights and
// whatever else lies there stay behind.
func kept(name string) bool {
	lower := strings.ToLower(name)
	switch filepath.Ext(lower) {
	case ".tiktoken", ".jinja":
		return true
	}
	for _, prefix := range []string{"license", "licence", "notice"} {
		if strings.HasPrefix(lower, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
		"added_tokens.json", "chat_template.json", "generation_config.json"}, lower)
}

// copyRest copies the small files.
func (w *writer) copyRest(tmp string) error {
	fsys, dir, err := w.ck.Tokenizer()
	if err != nil {
		return err
	}
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !kept(e.Name()) {
			continue
		}
		if err := w.copyFile(fsys, path.Join(dir, e.Name()), tmp, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies one file; folders and the like are passed over.
func (w *writer) copyFile(fsys fs.FS, from, tmp, name string) error {
	f, err := fsys.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	return w.stream(tmp, name, f)
}

// file writes a small file.
func (w *writer) file(tmp, name string, text []byte) error {
	return w.stream(tmp, name, bytes.NewReader(text))
}

// stream writes a file and sees that it is on the disk.
func (w *writer) stream(tmp, name string, from io.Reader) error {
	f, err := os.OpenFile(filepath.Join(tmp, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		w.report.Files = append(w.report.Files, name)
	}
	return err
}
