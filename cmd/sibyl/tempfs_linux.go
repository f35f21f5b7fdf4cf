package main

import "golang.org/x/sys/unix"

// inMemory says whether files under dir live in memory (tmpfs, ramfs): then what is spooled there is not saved. A
// folder that cannot be asked is taken for a disk's.
func inMemory(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	const ramfs = 0x858458f6 // RAMFS_MAGIC, linux/magic.h
	return uint32(st.Type) == unix.TMPFS_MAGIC || uint32(st.Type) == ramfs
}
