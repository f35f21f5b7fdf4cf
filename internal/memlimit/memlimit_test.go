package memlimit

import (
	"runtime"
	"testing"
	"testing/fstest"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestLinuxLimits(t *testing.T) {
	t.Parallel()
	const meminfo = "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    8000000 kB\n"
	tests := []struct {
		name, why string
		root      fstest.MapFS
		want      int64
		source    string
	}{
		{"machine-only", "no cgroup limits anything", fstest.MapFS{
			"proc/meminfo": file(meminfo),
		}, 8000000 * 1024, "available on this machine"},
		{"v2-own-group", "a limit on the group itself binds", fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("0::/job/a\n"),
			"sys/fs/cgroup/job/a/memory.max": file("1000000\n"), "sys/fs/cgroup/job/a/memory.current": file("400000\n"),
		}, 600000, "left of the cgroup's memory.max (1000000 bytes)"},
		{"v2-parent-binds", "a parent's limit holds for its children", fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("0::/job/a\n"),
			"sys/fs/cgroup/job/a/memory.max": file("max\n"), "sys/fs/cgroup/job/a/memory.current": file("5\n"),
			"sys/fs/cgroup/job/memory.max": file("900\n"), "sys/fs/cgroup/job/memory.current": file("100\n"),
		}, 800, "left of the cgroup's memory.max (900 bytes)"},
		{"v2-page-cache-is-free", "mapped weights count as used but can be taken back", fstest.MapFS{
			"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("1000\n"),
			"sys/fs/cgroup/memory.current": file("900\n"), "sys/fs/cgroup/memory.stat": file("anon 100\ninactive_file 700\n"),
		}, 800, "left of the cgroup's memory.max (1000 bytes)"},
		{"v2-overdrawn", "a group over its limit has nothing left, not less", fstest.MapFS{
			"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("1000\n"), "sys/fs/cgroup/memory.current": file("1200\n"),
		}, 0, "left of the cgroup's memory.max (1000 bytes)"},
		{"v1-no-limit", "version 1 writes no limit as a huge number", fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("9:memory,x:/j\n"),
			"sys/fs/cgroup/memory/j/memory.limit_in_bytes": file("9223372036854771712\n"),
			"sys/fs/cgroup/memory/j/memory.usage_in_bytes": file("1\n"),
		}, 8000000 * 1024, "available on this machine"},
		{"v1-container", "in a container the path is the host's and only the mount is there", fstest.MapFS{
			"proc/meminfo": file(meminfo), "proc/self/cgroup": file("9:memory:/docker/abc\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("5000\n"),
			"sys/fs/cgroup/memory/memory.usage_in_bytes": file("1000\n"),
		}, 4000, "left of the cgroup's memory.limit_in_bytes (5000 bytes)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := least(fromFS(tt.root))
			if err != nil || got != (Limit{tt.want, tt.source}) {
				t.Errorf("got %+v, %v; want %d %s\nwhy: %s", got, err, tt.want, tt.source, tt.why)
			}
		})
	}
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	if l, err := least(fromFS(fstest.MapFS{})); err != ErrUnknown {
		t.Errorf("with nothing to read: got %+v, %v; want ErrUnknown", l, err)
	}
}

func TestLeftHere(t *testing.T) {
	t.Parallel()
	l, err := Left()
	switch runtime.GOOS {
	case "linux", "darwin", "windows":
		if err != nil || l.Bytes <= 0 || l.Bytes > 1<<50 || l.Source == "" {
			t.Errorf("Left() = %+v, %v; want a plausible amount with its source", l, err)
		}
	}
}
