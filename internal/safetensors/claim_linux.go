package safetensors

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// claim sets the file's length and, where the file system can, reserves its blocks: a full disk is told before
// hours of work, not after.
func claim(f *os.File, n int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, n)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(n)
	}
	return err
}
