package bundle

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"sibyl/bundle/aicode"
	"sibyl/internal/inputerr"
	"sibyl/internal/mmap"
	"sibyl/internal/userfile"
)

// Edit gives a constant other bytes: as many, of the same type. Every operation that shares the constant gets them.
type Edit struct {
	Const *aicode.Const // of the bundle's program
	Data  []byte        // as it is stored, packed
}

// RewriteOptions say how a bundle is written.
type RewriteOptions struct {
	Force    bool                    // replace a bundle at out, or an empty folder; nothing else
	Progress func(done, total int64) // bytes of the program
}

// Rewrite writes a copy of the bundle to the folder out, with the edited constants and a main.hash that fits. The rest of
// the program stays as it is, byte for byte. A compiled form (.aimodelc) is left out: it holds the old weights. The
// folder is there in whole or not at all. Bad input gives an *inputerr.Error.
func (b *Bundle) Rewrite(ctx context.Context, out string, edits []Edit, opt RewriteOptions) (err error) {
	if b.Asset.data == nil {
		return b.Asset.onlyCompiled()
	}
	edits, err = b.checkEdits(edits)
	if err != nil {
		return err
	}
	if err := freeFor(ctx, out, opt.Force); err != nil {
		return err
	}
	out = filepath.Clean(out)
	tmp, err := os.MkdirTemp(filepath.Dir(out), userfile.TempPattern(out))
	if err != nil {
		return unwritten(out, err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp) // err is the one to tell; nothing reads a folder of this name
		}
	}()
	// MkdirTemp gives 0700; a bundle is as readable as any other folder the user makes.
	if err := os.Chmod(tmp, 0o755); err != nil && runtime.GOOS != "windows" {
		return unwritten(out, err)
	}
	if err := b.copyRest(tmp); err != nil {
		return unwritten(out, err)
	}
	if err := b.rewriteMain(ctx, filepath.Join(tmp, filepath.FromSlash(b.Asset.path)), edits, opt.Progress); err != nil {
		return unwritten(out, err)
	}
	return replaceFolder(tmp, out)
}

// checkEdits sorts the edits and refuses what does not fit.
func (b *Bundle) checkEdits(edits []Edit) ([]Edit, error) {
	edits = slices.Clone(edits)
	slices.SortFunc(edits, func(x, y Edit) int { return cmp.Compare(x.Const.Offset, y.Const.Offset) })
	all, end := b.Asset.Bytes(), int64(0)
	for _, e := range edits {
		field := fmt.Sprintf("constant at byte %d", e.Const.Offset)
		lo, n := e.Const.Offset, int64(len(e.Const.Data))
		switch {
		case lo < 0 || lo > int64(len(all))-n || !bytes.Equal(all[lo:lo+n], e.Const.Data):
			return nil, &inputerr.Error{File: b.Asset.Path(), Field: field, Found: "a constant of another program", Want: "one of this bundle's"}
		case int64(len(e.Data)) != n:
			return nil, &inputerr.Error{File: b.Asset.Path(), Field: field, Found: fmt.Sprintf("%d bytes to put there", len(e.Data)), Want: fmt.Sprintf("%d, as %s has", n, e.Const.Type),
				Do: "constants keep their type and shape"}
		case lo < end:
			return nil, &inputerr.Error{File: b.Asset.Path(), Field: field, Found: "two edits of the same bytes", Want: "one", Do: "weights may share a constant: edit it once"}
		}
		end = lo + n
	}
	return edits, nil
}

// freeFor says whether a bundle may be written to dir.
func freeFor(ctx context.Context, dir string, force bool) error {
	if err := userfile.CheckOutputFolder(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	e := &inputerr.Error{File: dir, Found: fmt.Sprintf("a folder of %d entries", len(entries)), Want: "a name that is free", Do: "choose another folder, or --force to replace a bundle"}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		e.Found, e.Do = "something that is no readable folder", "choose another folder"
		return e
	case !force:
		return e
	case len(entries) == 0:
		return nil
	}
	old, err := OpenBundle(ctx, dir, BundleOptions{SkipHash: true})
	if err != nil {
		e.Found, e.Want, e.Do = "a folder that is no bundle", "one that --force may replace", "choose another folder"
		return e
	}
	return old.Close()
}

func unwritten(dir string, err error) error {
	var in *inputerr.Error
	if errors.As(err, &in) || errors.Is(err, context.Canceled) {
		return err
	}
	return &inputerr.Error{File: dir, Field: "write", Err: cause(err), Do: "nothing was left under that name; free space or choose another place"}
}

// copyRest copies every file but the program, its hash, compiled forms and hidden folders.
func (b *Bundle) copyRest(tmp string) error {
	return fs.WalkDir(b.dir.fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(tmp, filepath.FromSlash(name))
		switch {
		case name == ".":
			return nil
		case strings.HasPrefix(d.Name(), ".") && d.IsDir():
			return fs.SkipDir // a clone's .git, a download's .cache
		case d.IsDir() && strings.HasSuffix(name, ".aimodelc"):
			return fs.SkipDir
		case d.IsDir():
			return os.Mkdir(to, 0o755)
		case name == b.Asset.file(mainFile), name == b.Asset.file(hashFile):
			return nil
		}
		f, err := b.dir.open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // only read
		return writeFile(to, func(w io.Writer) error {
			_, err := io.Copy(w, f)
			return err
		})
	})
}

// rewriteMain writes main.mlirb with the edits, and main.hash.
func (b *Bundle) rewriteMain(ctx context.Context, dir string, edits []Edit, progress func(done, total int64)) error {
	h := sha256.New()
	all := b.Asset.Bytes()
	err := writeFile(filepath.Join(dir, mainFile), func(w io.Writer) error {
		at := 0
		put := func(p []byte) error {
			h.Write(p)
			_, err := w.Write(p)
			return err
		}
		until := func(end int) error {
			for at < end {
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("writing stopped after %d of %d bytes: %w", at, len(all), err)
				}
				n := min(end-at, scanBlock)
				if err := put(all[at : at+n]); err != nil {
					return err
				}
				_ = b.Asset.data.Advise(mmap.DontNeed, at, n) // a hint
				if at += n; progress != nil {
					progress(int64(at), int64(len(all)))
				}
			}
			return nil
		}
		for _, e := range edits {
			if err := until(int(e.Const.Offset)); err != nil {
				return err
			}
			if err := put(e.Data); err != nil {
				return err
			}
			at += len(e.Data)
		}
		return until(len(all))
	})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, hashFile), func(w io.Writer) error {
		_, err := w.Write(h.Sum(nil))
		return err
	})
}

// writeFile makes a file and sees that it reaches the disk.
func writeFile(name string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// replaceFolder gives tmp its name. What was there is moved aside first and removed last.
func replaceFolder(tmp, dir string) error {
	aside := tmp + ".old"
	err := os.Rename(dir, aside)
	old := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unwritten(dir, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if old {
			err = errors.Join(err, os.Rename(aside, dir))
		}
		return unwritten(dir, err)
	}
	if old {
		return os.RemoveAll(aside)
	}
	return nil
}
