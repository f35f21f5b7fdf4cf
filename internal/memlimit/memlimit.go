// Package memlimit says how much memory a job may still take: the least of what the machine has available and
// what the control groups this process is in leave it. Jobs ask before they start, so that a run that cannot
// fit is refused with two numbers instead of being killed halfway.
package memlimit

import (
	"errors"
	"math"
)

// Limit is an amount of memory and where that number comes from.
type Limit struct {
	Bytes  int64  // what may still be allocated
	Source string // "available on this machine", "left of the cgroup's memory.max (512000000 bytes)"
}

// ErrUnknown is returned on systems where nothing is known; a job then has no limit to be held to.
var ErrUnknown = errors.New("the available memory is not known on this system")

// Left gives the least of all limits that apply to this process.
func Left() (Limit, error) {
	return least(platformLimits())
}

// least picks the smallest; a limit that is already overdrawn leaves 0.
func least(limits []Limit) (Limit, error) {
	best := Limit{Bytes: math.MaxInt64}
	for _, l := range limits {
		if l.Bytes < best.Bytes {
			best = l
		}
	}
	if best.Source == "" {
		return Limit{}, ErrUnknown
	}
	return Limit{max(best.Bytes, 0), best.Source}, nil
}
