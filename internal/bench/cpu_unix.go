//go:build unix

package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuSeconds is what this process has used, all threads together; 0 if the system does not tell.
func cpuSeconds() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
