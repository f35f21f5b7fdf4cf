package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/mlirb"
	"sibyl/internal/mmap"
	"sibyl/internal/strictjson"
)

// The files of an .aimodel folder.
const (
	mainFile     = "main.mlirb"
	hashFile     = "main.hash"
	metadataFile = "metadata.json"
)

// Asset is an .aimodel folder: what its metadata says, and its program's bytes.
type Asset struct {
	Name         string // the folder's name
	Producer     string // of metadata.json; "" in assets of coreai-torch 0.4.0
	AssetVersion string
	CreationDate string
	// Compiled lists the programs of the .aimodelc beside it, or instead of it ("main-h16c.mlirb"): for one kind of
	// device each. They are described and never executed.
	Compiled []string

	dir  *folder   // whose root the path is below
	path string    // inside dir; "." for a lone .aimodel
	data *mmap.Map // main.mlirb; nil where only the .aimodelc is there
	hash []byte    // main.hash as it is; nil if it is missing
}

// openAsset opens the .aimodel at name below dir, and notes the .aimodelc beside it.
func openAsset(dir *folder, name string) (*Asset, error) {
	a := &Asset{Name: path.Base(name), dir: dir, path: name}
	if name == "." {
		a.Name = baseName(dir.label)
	}
	if err := a.compiled(); err != nil {
		return nil, err
	}
	if len(a.Compiled) > 0 && (!dir.has(name) || name == "." && !dir.has(mainFile)) {
		return a, nil
	}
	if err := a.metadata(); err != nil {
		return nil, err
	}
	if err := a.mapMain(); err != nil {
		return nil, err
	}
	hash, err := dir.read(a.file(hashFile), 1<<10)
	if err != nil && dir.has(a.file(hashFile)) {
		_ = a.close() // the first error is the one to tell
		return nil, err
	}
	a.hash = hash
	return a, nil
}

// file is a name below the asset.
func (a *Asset) file(name string) string { return path.Join(a.path, name) }

// Path is main.mlirb's, for messages.
func (a *Asset) Path() string { return a.dir.show(a.file(mainFile)) }

// Size is main.mlirb's in bytes.
func (a *Asset) Size() int64 {
	if a.data == nil {
		return 0
	}
	return int64(a.data.Len())
}

// Bytes is main.mlirb, a view of the mapped file; nil where only an .aimodelc is there.
func (a *Asset) Bytes() []byte {
	if a.data == nil {
		return nil
	}
	return a.data.Bytes()
}

// compiled lists the programs of NAME.aimodelc, if there is one.
func (a *Asset) compiled() error {
	folder := a.path + "c"
	if a.path == "." {
		if !strings.HasSuffix(a.Name, ".aimodelc") {
			return nil // what lies beside a lone .aimodel is not the user's subject
		}
		folder = "."
	}
	entries, err := fs.ReadDir(a.dir.fsys, folder)
	if err != nil {
		return nil // none, or none that can be read: there is nothing to describe
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "main") && strings.HasSuffix(e.Name(), ".mlirb") && e.Name() != mainFile && len(a.Compiled) < maxNames {
			a.Compiled = append(a.Compiled, e.Name())
		}
	}
	slices.Sort(a.Compiled)
	return nil
}

// onlyCompiled says that there is nothing to read but a compiled form.
func (a *Asset) onlyCompiled() error {
	return &inputerr.Error{File: a.dir.show(strings.TrimSuffix(a.path, "c")), Found: fmt.Sprintf("a compiled model only (.aimodelc: %s)", strings.Join(a.Compiled, ", ")),
		Want: "the .aimodel it was compiled from", Do: "`sibyl inspect` describes it; sibyl executes uncompiled models only: download or export the .aimodel"}
}

// metadata reads the asset's own metadata.json.
func (a *Asset) metadata() error {
	file := a.file(metadataFile)
	if !a.dir.has(file) {
		return &inputerr.Error{File: a.dir.show(file), Found: "no such file", Want: "the asset's metadata", Do: "the .aimodel is not complete: download it again"}
	}
	text, err := a.dir.read(file, 1<<20)
	if err != nil {
		return err
	}
	shown := a.dir.show(file)
	s, err := strictjson.New(text)
	if err == nil {
		err = s.Object(func(key string) (err error) {
			dst := map[string]*string{"producer": &a.Producer, "assetVersion": &a.AssetVersion, "creationDate": &a.CreationDate}[key]
			if dst == nil {
				return s.Skip()
			}
			*dst, err = s.String()
			return err
		})
	}
	if err == nil {
		err = s.End()
	}
	var at *strictjson.Error
	if errors.As(err, &at) {
		return &inputerr.Error{File: shown, Field: fmt.Sprintf("byte %d", at.Offset), Found: at.Found, Want: at.Want, Do: "download the file again"}
	}
	if err == nil && a.AssetVersion != "2.0" {
		found := "nothing"
		if a.AssetVersion != "" {
			found = inputerr.Clip(a.AssetVersion, 40)
		}
		return &inputerr.Error{File: shown, Field: "assetVersion", Found: found, Want: `"2.0"`, Do: "sibyl knows this version only: export the model with current tools"}
	}
	return err
}

// mapMain maps main.mlirb and sees that it is no stand-in for one.
func (a *Asset) mapMain() error {
	file := a.file(mainFile)
	if !a.dir.has(file) {
		return &inputerr.Error{File: a.dir.show(file), Found: "no such file", Want: "the model's program and weights", Do: "the .aimodel is not complete: download it again"}
	}
	f, err := a.dir.open(file)
	if err != nil {
		return err
	}
	m, err := mmap.FS(f)
	if err != nil {
		return &inputerr.Error{File: a.dir.show(file), Err: cause(err), Do: "see that the file can be read"}
	}
	if isPointer(m.Bytes()) {
		_ = m.Close() // nothing was written
		return &inputerr.Error{File: a.dir.show(file), Found: "a Git LFS pointer", Want: "the file itself",
			Do: "run `git lfs pull` in the folder it came from, or download the file again"}
	}
	a.data = m
	return nil
}

// MainHash is main.hash in hex as it is stored, "" if the file is missing or of another length.
func (a *Asset) MainHash() string {
	if len(a.hash) != sha256.Size {
		return ""
	}
	return hex.EncodeToString(a.hash)
}

// Verify compares main.hash with the sha256 of main.mlirb. It reads every byte of the program; progress, if not nil, is
// told the bytes done and in all. What does not match is an *inputerr.Error.
func (a *Asset) Verify(ctx context.Context, progress func(done, total int64)) error {
	const do = "the download is damaged or not complete: download it again, or look at it as it is with --no-verify"
	file := a.dir.show(a.file(hashFile))
	switch {
	case a.hash == nil:
		return &inputerr.Error{File: file, Found: "no such file", Want: "the sha256 of main.mlirb", Do: do}
	case len(a.hash) != sha256.Size:
		return &inputerr.Error{File: file, Found: fmt.Sprintf("%d bytes", len(a.hash)), Want: fmt.Sprintf("%d, the sha256 of main.mlirb", sha256.Size), Do: do}
	}
	h := sha256.New()
	total := a.Size()
	for b := a.Bytes(); len(b) > 0; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("hashing stopped after %d of %d bytes: %w", total-int64(len(b)), total, err)
		}
		n := min(len(b), scanBlock)
		h.Write(b[:n])
		if b = b[n:]; progress != nil {
			progress(total-int64(len(b)), total)
		}
		_ = a.data.Advise(mmap.DontNeed, int(total)-len(b)-n, n) // a hint: hashing is no reason to fill the memory
	}
	if sum := h.Sum(nil); !bytes.Equal(sum, a.hash) {
		return &inputerr.Error{File: a.Path(), Field: "sha256", Found: hex.EncodeToString(sum), Want: hex.EncodeToString(a.hash) + ", which main.hash says", Do: do}
	}
	return nil
}

func (a *Asset) close() error {
	if a.data == nil {
		return nil
	}
	return a.data.Close()
}

// fault gives an error of the program's file its name.
func (a *Asset) fault(err error) error {
	var f *mlirb.Fault
	if !errors.As(err, &f) {
		return err
	}
	return &inputerr.Error{File: a.Path(), Err: f, Do: "export the model again"}
}
