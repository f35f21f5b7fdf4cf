// Package demo holds the embedded model: opticks-2m, 2.4 million parameters of the Qwen3.5 architecture, so that
// sibyl's main job runs on a machine with nothing else. Its files are an in-memory file system; nothing is copied.
package demo

import (
	_ "embed" // the files below
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Name is what the demo model is called in output.
const Name = "opticks-2m"

// About is README.txt: what the model is, what it was trained on, and what it is not.
//
//go:embed opticks-2m/README.txt
var About string

// Not is the sentence to print beside the demo model's output.
const Not = "opticks-2m is a numerics demo of 2.4 million parameters, trained on three old books (CC0): its text is old-fashioned noise, not information, and no weights of the Qwen team are in it"

// The contents, as strings: the linker puts them into read-only pages of the binary, and Go code cannot change them.
var (
	//go:embed opticks-2m/config.json
	config string
	//go:embed opticks-2m/generation_config.json
	generationConfig string
	//go:embed opticks-2m/model.safetensors
	weights string
	//go:embed opticks-2m/tokenizer.json
	tokenizer string
	//go:embed opticks-2m/tokenizer_config.json
	tokenizerConfig string
)

// FS is the model's folder: the files of a Hugging Face checkpoint and README.txt, flat. Its files implement
// Bytes() []byte, which gives the content without a copy.
var FS fs.FS = folder{
	{"README.txt", &About},
	{"config.json", &config},
	{"generation_config.json", &generationConfig},
	{"model.safetensors", &weights},
	{"tokenizer.json", &tokenizer},
	{"tokenizer_config.json", &tokenizerConfig},
}

// folder is sorted by name.
type folder []entry

type entry struct {
	name string
	text *string
}

// Open implements fs.FS.
func (d folder) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		return &dirFile{folder: d}, nil
	}
	i, ok := slices.BinarySearchFunc(d, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{Reader: strings.NewReader(*d[i].text), entry: d[i]}, nil
}

// file is an open file; it seeks and reads at offsets as strings.Reader does.
type file struct {
	*strings.Reader
	entry
}

func (f *file) Close() error               { return nil }
func (f *file) Stat() (fs.FileInfo, error) { return info{f.name, f.Reader.Size(), 0o444}, nil }

// dirFile is the open folder.
type dirFile struct {
	folder folder
	next   int
}

func (d *dirFile) Close() error               { return nil }
func (d *dirFile) Stat() (fs.FileInfo, error) { return info{".", 0, fs.ModeDir | 0o555}, nil }
func (d *dirFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: ".", Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFile.
func (d *dirFile) ReadDir(n int) ([]fs.DirEntry, error) {
	rest := d.folder[d.next:]
	if n > 0 && len(rest) == 0 {
		return nil, io.EOF
	}
	if n > 0 && n < len(rest) {
		rest = rest[:n]
	}
	d.next += len(rest)
	var out []fs.DirEntry
	for _, e := range rest {
		out = append(out, fs.FileInfoToDirEntry(info{e.name, int64(len(*e.text)), 0o444}))
	}
	return out, nil
}

// info describes a file or the folder.
type info struct {
	name string
	size int64
	mode fs.FileMode
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
func (i info) ModTime() time.Time { return time.Time{} }
