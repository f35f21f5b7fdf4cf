package memlimit

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// fromFS reads the limits of Linux from root, a view of "/": MemAvailable of /proc/meminfo (which already counts
// reclaimable page cache), and memory.max of version 2 or memory.limit_in_bytes of version 1 for the group this
// process is in and every group above it. It is built everywhere, so that its test runs everywhere.
// Sources: proc_meminfo(5); Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
func fromFS(root fs.FS) []Limit {
	var out []Limit
	if kb, ok := keyed(root, "proc/meminfo", "MemAvailable:"); ok && kb < 1<<50 {
		out = append(out, Limit{kb * 1024, "available on this machine"})
	}
	for _, line := range strings.Split(read(root, "proc/self/cgroup"), "\n") {
		hierarchy, rest, ok := strings.Cut(line, ":")
		controllers, group, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		switch {
		case hierarchy == "0" && controllers == "": // version 2
			out = append(out, groups(root, "sys/fs/cgroup", group, "memory.max", "memory.current", "inactive_file")...)
		case slices.Contains(strings.Split(controllers, ","), "memory"): // version 1
			out = append(out, groups(root, "sys/fs/cgroup/memory", group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")...)
		}
	}
	return out
}

// groups reads a limit for group and each of its parents below mount. A group that is not there is skipped:
// inside a container the path names the host's tree, and the mount itself is the container's group.
func groups(root fs.FS, mount, group, limitFile, usedFile, reclaimable string) []Limit {
	var out []Limit
	for dir := path.Join(mount, path.Clean("/"+group)); ; dir = path.Dir(dir) {
		limit, ok := number(root, path.Join(dir, limitFile))
		used, ok2 := number(root, path.Join(dir, usedFile))
		// Version 1 writes "no limit" as the largest multiple of the page size, version 2 as "max".
		if ok && ok2 && limit < 1<<60 {
			// Page cache counts as used until the kernel wants it back: a mapped checkpoint must not refuse itself.
			cache, _ := keyed(root, path.Join(dir, "memory.stat"), reclaimable+" ")
			out = append(out, Limit{limit - max(used-cache, 0), fmt.Sprintf("left of the cgroup's %s (%d bytes)", limitFile, limit)})
		}
		if dir == mount || dir == "." {
			return out
		}
	}
}

// read gives a file's text, "" if it cannot be read; kernel files are short.
func read(root fs.FS, name string) string {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return string(data)
}

func number(root fs.FS, name string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(read(root, name)), 10, 64)
	return n, err == nil && n >= 0
}

// keyed finds "key value" on a line of its own.
func keyed(root fs.FS, name, key string) (int64, bool) {
	for _, line := range strings.Split(read(root, name), "\n") {
		if rest, ok := strings.CutPrefix(line, key); ok {
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				return 0, false
			}
			n, err := strconv.ParseInt(fields[0], 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}
