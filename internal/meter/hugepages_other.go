//go:build unix && !linux

package meter

// hugePages does nothing: this system has no such request.
func hugePages([]byte) {}
