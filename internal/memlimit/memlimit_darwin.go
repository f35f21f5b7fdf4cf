package memlimit

import "golang.org/x/sys/unix"

// platformLimits is the size of the machine's memory: macOS has no cheap figure for what is available, since it
// compresses and swaps before it refuses.
func platformLimits() []Limit {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return nil
	}
	return []Limit{{int64(n), "in this machine"}}
}
