package safetensors

import (
	"os"
	"path/filepath"
	"runtime"

	"sibyl/internal/userfile"
)

// createTemp opens a new file beside path, unless what is there is no regular file. renameio does the same, but has no such call on Windows and no pattern
// for the name, by which leftovers of killed runs are known.
func createTemp(path string) (*os.File, error) {
	if err := userfile.Replaceable(path); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), userfile.TempPattern(path))
	if err != nil {
		return nil, err
	}
	// CreateTemp gives 0600; results are as readable as any other file the user makes (the umask is not asked:
	// it cannot be read without changing it).
	if err := f.Chmod(0o644); err != nil && runtime.GOOS != "windows" {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return nil, err
	}
	return f, nil
}

// publish makes f durable, closes it and renames it to path.
func publish(f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := userfile.Replaceable(path); err != nil { // it may have come meanwhile
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	// The rename itself is in the folder. Some file systems and Windows cannot sync one; the file is safe by then.
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
