package userfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"sibyl/internal/inputerr"
)

// CheckOutput refuses before any work what could not become the file path after it: an empty name, "-", a folder
// that is missing or cannot be written, anything there that is no regular file (a device, a pipe, a symlink,
// whatever force says), and, without force, an existing file. The error is an *inputerr.Error that names path.
func CheckOutput(path string, force bool) error {
	if err := Replaceable(path); err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil && !force {
		return &inputerr.Error{File: path, Found: "an existing file", Want: "a new name", Do: "--force overwrites it"}
	}
	return checkParent(path)
}

// CheckOutputFolder is CheckOutput for a folder that is to be made: what may be replaced is the caller's to say, but
// a symlink never is.
func CheckOutputFolder(dir string) error {
	if err := checkName(dir, "the name of a folder"); err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		return &inputerr.Error{File: dir, Found: describe(info.Mode()), Want: "a name that is free", Do: "choose another folder, or remove what is there"}
	}
	return checkParent(dir)
}

// Replaceable says whether a file may be renamed to path: nothing is there, or a regular file.
func Replaceable(path string) error {
	if err := checkName(path, "a file's name"); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().IsRegular() {
		return nil // what cannot be looked at is told by the folder
	}
	e := &inputerr.Error{File: path, Found: describe(info.Mode()), Want: "a new name, or a regular file to replace", Do: "choose another name"}
	switch {
	case info.IsDir():
		e.Do = "name a file in it"
	case info.Mode()&fs.ModeSymlink != 0:
		e.Do = "name the file it points to, or remove it"
	}
	return e
}

func describe(m fs.FileMode) string {
	if m.IsRegular() {
		return "a file"
	}
	return (&NotRegular{m}).What()
}

func checkName(path, want string) error {
	switch path {
	case "":
		return &inputerr.Error{File: "--out", Found: "an empty name", Want: want, Do: "is a variable unset?"}
	case "-":
		return &inputerr.Error{File: "--out", Found: `"-"`, Want: want,
			Do: "results are not written to standard output; --json prints what there is to print (./- is a file of that name)"}
	}
	return nil
}

// checkParent sees whether the folder of path takes new files, by making one: permissions alone do not tell on
// read-only file systems.
func checkParent(path string) error {
	dir := filepath.Dir(path)
	bad := &inputerr.Error{File: path, Field: "folder " + dir, Want: "a folder that takes new files", Do: "make the folder, or choose another"}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		bad.Found = "no such folder"
		return bad
	case err != nil:
		bad.Err = Cause(err)
		return bad
	case !info.IsDir():
		bad.Found = describe(info.Mode())
		return bad
	}
	f, err := os.CreateTemp(dir, TempPattern(path))
	if err != nil {
		bad.Found, bad.Err, bad.Do = "one that does not", Cause(err), "change its permissions, or choose another"
		return bad
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// TempPattern is the pattern (of os.CreateTemp) of the names under which a file or folder grows beside its place
// until it is complete: ".NAME.tmp-*". A killed run leaves one behind, which nothing reads.
func TempPattern(path string) string { return "." + filepath.Base(path) + ".tmp-*" }
