// Package userfile opens the files a person names, and says which names may be written. Only regular files are
// read and replaced: opening a named pipe waits for a writer that may never come, and renaming a new file over a
// device or a symlink destroys something that is not a result.
package userfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"sibyl/internal/inputerr"
)

// NotRegular is the error for what exists and is no regular file.
type NotRegular struct{ Mode fs.FileMode }

// Error says what it is.
func (e *NotRegular) Error() string { return "found " + e.What() + ", want a regular file" }

// What names the kind of file: "a named pipe".
func (e *NotRegular) What() string {
	switch m := e.Mode; {
	case m.IsDir():
		return "a folder"
	case m&fs.ModeSymlink != 0:
		return "a symlink"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}

// Open opens a regular file, or a symlink to one, for reading. Anything else is a *NotRegular and is not opened.
func Open(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &NotRegular{info.Mode()}
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// Read reads a regular file of at most limit bytes. The error is an *inputerr.Error that names path.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, Fault(path, "", err)
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, Fault(path, "", err)
	}
	if int64(len(data)) > limit {
		return nil, &inputerr.Error{File: path, Found: fmt.Sprintf("more than %d bytes", limit), Want: "at most that many", Do: "check the path"}
	}
	return data, nil
}

// Fault is the error of opening or reading a file as found, want and do; "" for do is the usual remedy of each.
func Fault(path, do string, err error) *inputerr.Error {
	e := &inputerr.Error{File: path, Want: "a regular file", Do: do}
	usual := "check the path"
	var odd *NotRegular
	switch {
	case errors.As(err, &odd):
		e.Found = odd.What()
		if !odd.Mode.IsDir() {
			usual = "put its content into a file"
		}
	case errors.Is(err, fs.ErrNotExist):
		e.Found = "no such file"
	case errors.Is(err, fs.ErrPermission):
		e.Found, e.Want, usual = "a file that may not be read", "one that can be", "change its permissions"
	default:
		e.Want, e.Err = "a file that can be read", Cause(err)
	}
	if do == "" {
		e.Do = usual
	}
	return e
}

// Cause strips the operation and path from a system error: messages name the file already.
func Cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// FS is fsys whose Open gives only regular files and folders: what is neither is a *NotRegular in a *fs.PathError.
// fsys should have a Stat of its own, as those of package os do; otherwise Stat opens the file.
func FS(fsys fs.FS) fs.FS { return guarded{fsys} }

type guarded struct{ fs.FS }

func (g guarded) Open(name string) (fs.File, error) {
	info, err := fs.Stat(g.FS, name)
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: &NotRegular{info.Mode()}}
	}
	if err != nil {
		return nil, err
	}
	return g.FS.Open(name)
}
