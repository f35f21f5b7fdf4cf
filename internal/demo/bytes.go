package demo

import "unsafe"

// Bytes gives the whole content without a copy. It must not be written to: the pages are read-only, and a write
// is a fault of the process.
func (f *file) Bytes() []byte { return unsafe.Slice(unsafe.StringData(*f.text), len(*f.text)) }
