package meter

import "golang.org/x/sys/unix"

// hugePages asks for large pages, as a mapped checkpoint has them on many file systems: small ones would make the limit
// one of the page tables.
func hugePages(x []byte) { _ = unix.Madvise(x, unix.MADV_HUGEPAGE) } // where there are none, small ones do
