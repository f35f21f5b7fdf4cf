//go:build linux || darwin

package main

import "golang.org/x/sys/unix"

// diskFree is what an ordinary user may still write to dir's file system; ok is false where that is not known.
func diskFree(dir string) (n int64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
