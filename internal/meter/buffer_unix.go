//go:build unix

package meter

import "golang.org/x/sys/unix"

// buffer maps n bytes that go back to the system when free is called: the collector would keep them for a while, and a
// peak of memory would show them.
func buffer(n int) (x []byte, free func()) {
	x, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, n), func() {}
	}
	hugePages(x)
	return x, func() { _ = unix.Munmap(x) } // it was mapped above: it can be unmapped
}
