package mmap

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// stay has what is not in memory yet read in pages of 2 MB. How a file lies in the page cache decides at what rate it can be read
// from there, for every process, until it leaves: after the faults of a decoder's two threads at 18 GB/s, in large pages at 27.
// Random, of a kernel that knows large pages of files, keeps the system's readahead from putting small ones between them.
func stay(b []byte) error {
	err := unix.Madvise(b, unix.MADV_HUGEPAGE)
	if err == nil && largeFolios() {
		err = unix.Madvise(b, unix.MADV_RANDOM)
	}
	return err
}

// largeFolios says whether a fault in a file brings a whole large page where that was asked for: since Linux 5.18
// (mm/filemap.c, do_sync_mmap_readahead). An older one, told that reading is random, would bring pages of 4 KB one by one.
var largeFolios = sync.OnceValue(func() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 5 || major == 5 && minor >= 18)
})
