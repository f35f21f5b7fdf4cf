//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd || solaris

package mmap

import (
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(f *os.File, n int) ([]byte, func() error, error) {
	data, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return data, func() error { return unix.Munmap(data) }, nil
}

// window is how much is asked for at a time: Linux reads no more a call than the device's readahead window (128 KB unless
// somebody set another) or, if that is more, its largest request (1.25 MB on most).
const window = 512 << 10

func advise(b []byte, a Advice) error {
	if a == WillNeed && len(b) > window {
		for lo := 0; lo < len(b); lo += window {
			if err := unix.Madvise(b[lo:min(lo+window, len(b))], unix.MADV_WILLNEED); err != nil {
				return err
			}
		}
		return nil
	}
	return unix.Madvise(b, [...]int{
		Normal:     unix.MADV_NORMAL,
		Sequential: unix.MADV_SEQUENTIAL,
		Random:     unix.MADV_RANDOM,
		WillNeed:   unix.MADV_WILLNEED,
		DontNeed:   unix.MADV_DONTNEED,
	}[a])
}
