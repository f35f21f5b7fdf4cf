package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/mmap"
	"sibyl/internal/safetensors"
	"sibyl/internal/userfile"
)

// maxJSON bounds the small files of a checkpoint in bytes; the largest real one is an index of a few megabytes.
const maxJSON = 16 << 20

// folder is where a checkpoint's files are. Nothing outside of it is ever opened.
type folder struct {
	fsys  fs.FS
	root  io.Closer // nil for file systems that need no closing
	label string    // path for messages
}

// openFolder opens path as an os.Root, so that neither names nor symlinks lead out of it. A snapshot of the hub
// cache is the one folder whose files are symlinks by design, to ../../blobs: there the root is the model's folder
// in the cache, which holds both.
func openFolder(path string) (*folder, error) {
	top, sub, err := snapshotRoot(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	root, err := os.OpenRoot(top)
	if err != nil {
		return nil, unreadable(path, err)
	}
	d := &folder{fsys: userfile.FS(root.FS()), root: root, label: path}
	if sub != "" {
		if d.fsys, err = fs.Sub(d.fsys, sub); err != nil {
			_ = root.Close()
			return nil, unreadable(path, err)
		}
	}
	return d, nil
}

// snapshotRoot sees whether path, its symlinks followed, is models--ORG--NAME/snapshots/REVISION, and splits it.
func snapshotRoot(path string) (top, sub string, err error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", "", err
	}
	if real, err = filepath.Abs(real); err != nil {
		return "", "", err
	}
	snapshots := filepath.Dir(real)
	model := filepath.Dir(snapshots)
	if filepath.Base(snapshots) == "snapshots" && strings.HasPrefix(filepath.Base(model), "models--") {
		return model, "snapshots/" + filepath.Base(real), nil
	}
	return real, "", nil
}

func unreadable(path string, err error) error {
	return &inputerr.Error{File: path, Err: cause(err), Do: "give a checkpoint's folder that can be read"}
}

// cause strips the operation and path from a system error: both are in the message already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (d *folder) close() error {
	if d.root == nil {
		return nil
	}
	return d.root.Close()
}

// show is a file's name in messages.
func (d *folder) show(name string) string {
	return filepath.Join(d.label, filepath.FromSlash(name))
}

// has says whether name is there, without following a symlink that leads out.
func (d *folder) has(name string) bool {
	f, err := d.fsys.Open(name)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	_ = f.Close()
	return true
}

// read reads a small file whole.
func (d *folder) read(name string, limit int64) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, &inputerr.Error{File: d.show(name), Err: cause(err), Do: "see that the file can be read"}
	}
	if int64(len(data)) > limit {
		return nil, &inputerr.Error{File: d.show(name), Found: fmt.Sprintf("more than %d bytes", limit), Want: "less", Do: "is this the file its name says?"}
	}
	if isPointer(data) {
		return nil, &inputerr.Error{File: d.show(name), Found: "a Git LFS pointer", Want: "the file itself", Do: "run `git lfs pull` in the folder it came from, or download the file again"}
	}
	return data, nil
}

func isPointer(b []byte) bool {
	return strings.HasPrefix(string(b[:min(len(b), 64)]), "version https://git-lfs")
}

// open opens a file and says what is wrong if that fails.
func (d *folder) open(name string) (fs.File, error) {
	f, err := d.fsys.Open(name)
	if err == nil {
		if info, serr := f.Stat(); serr == nil && !info.Mode().IsRegular() {
			_ = f.Close()
			return nil, &inputerr.Error{File: d.show(name), Found: "no regular file", Want: "a file", Do: "download it again"}
		}
		return f, nil
	}
	e := &inputerr.Error{File: d.show(name), Err: cause(err), Do: "see that the file can be read"}
	var odd *userfile.NotRegular
	switch {
	case errors.As(err, &odd):
		e.Found, e.Want, e.Err = odd.What(), "a regular file", nil
		e.Do = "put its content into a file of that name"
	case errors.Is(err, fs.ErrNotExist):
		e.Found, e.Want, e.Err = "no such file", "a part of the checkpoint", nil
		e.Do = "the checkpoint is not complete: download it again"
	case strings.Contains(err.Error(), "escapes"):
		e.Found, e.Want, e.Err = "a symlink that leads out of the folder", "a file inside it", nil
		e.Do = "put the file itself there, or name the folder it is in"
	}
	return nil, e
}

// mapShard maps a safetensors file and reads its header.
func (d *folder) mapShard(name string) (*safetensors.File, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	m, err := mmap.FS(f)
	if err != nil {
		return nil, &inputerr.Error{File: d.show(name), Err: cause(err), Do: "see that the file can be read"}
	}
	return safetensors.FromMap(d.show(name), m)
}

// recognise explains a folder without config.json by what it holds instead.
func (d *folder) recognise() error {
	if d.has("config.json") {
		return nil
	}
	entries, err := fs.ReadDir(d.fsys, ".")
	if err != nil {
		return unreadable(d.label, err)
	}
	e := &inputerr.Error{File: d.label, Want: "config.json and safetensors files", Do: "give the folder of a Hugging Face checkpoint"}
	if len(entries) == 0 {
		e.Found = "an empty folder"
		return e
	}
	for _, kind := range []struct{ suffix, found, do string }{
		{".gguf", "a GGUF file", "sibyl reads the checkpoint it was made from: give that folder"},
		{".aimodel", "an .aimodel", "give the .aimodel folder itself, or the LanguageBundle with its metadata.json"},
		{".mlmodelc", "a Core ML model", "give the folder of the checkpoint it was made from"},
		{".bin", "PyTorch weights", "convert them to safetensors (transformers: save_pretrained) and add config.json"},
		{".pt", "PyTorch weights", "convert them to safetensors (transformers: save_pretrained) and add config.json"},
		{".safetensors", "safetensors files without config.json", "copy config.json from the base model beside them"},
	} {
		for _, entry := range entries {
			if strings.HasSuffix(strings.ToLower(entry.Name()), kind.suffix) {
				e.Found, e.Do = fmt.Sprintf("%s (%s)", kind.found, inputerr.Clip(entry.Name(), 60)), kind.do
				return e
			}
		}
	}
	e.Found = fmt.Sprintf("%d other entries (%s, ...)", len(entries), inputerr.Clip(entries[0].Name(), 60))
	return e
}
