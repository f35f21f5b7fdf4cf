//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || solaris || windows)

package mmap

import (
	"io"
	"os"
)

// mapFile reads the file: this platform has no mapping that sibyl knows.
func mapFile(f *os.File, n int) ([]byte, func() error, error) {
	data := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, int64(n)), data); err != nil {
		return nil, nil, err
	}
	return data, nil, nil
}

func advise([]byte, Advice) error { return nil }
