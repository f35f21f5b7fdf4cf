package bench

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// watchMemory looks at the resident memory of this process every few milliseconds until the function it gives is
// called, which tells the most it saw: all of it, and the part that is not a mapped file.
func watchMemory() func() (resident, anonymous int64) {
	stop, result := make(chan struct{}), make(chan [2]int64)
	go func() {
		var most [2]int64
		look := func() {
			rss, anon := resident()
			most[0], most[1] = max(most[0], rss), max(most[1], anon)
		}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		look()
		for {
			select {
			case <-tick.C:
				look()
			case <-stop:
				look()
				result <- most
				return
			}
		}
	}()
	return func() (int64, int64) {
		close(stop)
		most := <-result
		return most[0], most[1]
	}
}

// resident reads VmRSS and RssAnon, in bytes; 0 where the kernel does not tell.
func resident() (all, anonymous int64) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	kilobytes := func(key string) int64 {
		_, rest, _ := bytes.Cut(status, []byte("\n"+key+":"))
		fields := bytes.Fields(rest[:max(0, bytes.IndexByte(rest, '\n'))])
		if len(fields) == 0 {
			return 0
		}
		n, err := strconv.ParseInt(string(fields[0]), 10, 64)
		if err != nil {
			return 0
		}
		return n << 10
	}
	return kilobytes("VmRSS"), kilobytes("RssAnon")
}
