package main

import "golang.org/x/sys/windows"

// diskFree is what this user may still write to dir's volume; ok is false where that is not known.
func diskFree(dir string) (n int64, ok bool) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, false
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil || free > 1<<62 {
		return 0, false
	}
	return int64(free), true
}
