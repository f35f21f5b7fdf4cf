//go:build !linux

package mmap

import "os"

// forget does nothing: the page cache of this system takes no such hint.
func forget(*os.File, int64, int64) error { return nil }
