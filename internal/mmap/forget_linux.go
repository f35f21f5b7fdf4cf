package mmap

import (
	"os"

	"golang.org/x/sys/unix"
)

// forget lets pages of a file leave the page cache, those that no process maps.
func forget(f *os.File, off, n int64) error {
	return unix.Fadvise(int(f.Fd()), off, n, unix.FADV_DONTNEED)
}
