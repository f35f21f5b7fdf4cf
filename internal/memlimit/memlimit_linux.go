package memlimit

import "os"

// platformLimits reads /proc and /sys/fs/cgroup.
func platformLimits() []Limit { return fromFS(os.DirFS("/")) }
