// Package gpu is the seam between sibyl's Metal kernels and what runs them: an Apple GPU through darwinkit, or a CPU that
// compiles the same source (Open). A device compiles a library from source, gives buffers and runs dispatches in order.
//
// Nothing here knows a model. Sizes are bytes unless they say otherwise; buffers are shared memory that host and kernels both
// see, the host only between two commits.
package gpu

import (
	"time"

	"sibyl/metal/msl"
)

// Device runs kernels. It may be used by one goroutine at a time.
type Device interface {
	Info() Info
	// Library compiles kernel files as one unit. A fault of the source names file and line.
	Library(files []msl.File) (Library, error)
	// Buffer is n bytes of zeros, at an address that is a multiple of 16. n > 0.
	Buffer(n int) (Buffer, error)
	// Wrap is a buffer of bytes that are there already, read only, without a copy: b must stay mapped and unchanged until
	// the buffer is released. Offset is where b begins in the buffer. A device that cannot gives an error.
	Wrap(b []byte) (buf Buffer, offset int, err error)
	// Begin starts a list of dispatches.
	Begin() Commands
	Close() error
}

// Info describes a device.
type Info struct {
	Name            string `json:"name"`                        // "Apple M3 Max", "CPU"
	Kind            string `json:"kind"`                        // "gpu" or "cpu"
	MaxThreads      int    `json:"max_threads"`                 // of a threadgroup
	MaxThreadgroup  int    `json:"max_threadgroup_bytes"`       // threadgroup memory
	WorkingSet      int64  `json:"working_set_bytes,omitempty"` // what buffers may take together; 0: not limited
	Orders          int    `json:"orders"`                      // how many orders of threads the device can run (the CPU: 3)
	SourceSHA256    string `json:"source_sha256"`               // of what was compiled last
	CompilerVersion string `json:"compiler"`
}

// Library is compiled source.
type Library interface {
	// Pipeline is one kernel ready to run; the name is its host name.
	Pipeline(name string) (Pipeline, error)
}

// Pipeline is a kernel. MaxThreads is the most threads a threadgroup of it may have.
type Pipeline interface {
	Name() string
	MaxThreads() int
}

// Buffer is memory of the device.
type Buffer interface {
	Bytes() []byte
	Release()
}

// Lacks are the fields of errors (inputerr.Error) that say what a machine lacks for a device.
var Lacks = []string{"platform", "GPU", "CPU", "compiler"}

// Slice is a buffer from an offset on.
type Slice struct {
	Buffer Buffer
	Offset int
}

// Dispatch runs a kernel over a grid of threadgroups. Buffers take the kernel's indices from 0 up; Args, if not empty, the
// next one. Threadgroup are the sizes of its threadgroup memory arguments.
type Dispatch struct {
	Pipeline    Pipeline
	Buffers     []Slice
	Args        []byte
	Threadgroup []int
	Grid        [3]int // threadgroups
	Group       [3]int // threads of each
}

// Commands is a list of dispatches, each of which sees what those before it wrote.
type Commands interface {
	// Add appends a dispatch. Its first fault sticks and is Commit's error.
	Add(Dispatch)
	// Commit runs the list and waits. After an error the device is in doubt: it refuses what follows.
	Commit() (Timing, error)
}

// Timing is what a commit took on the device.
type Timing struct {
	Device     time.Duration // by the GPU's own timestamps; on the CPU the time of the calls
	Dispatches int
}

// Orders of threads that the CPU device runs, for tests: results must not depend on them.
const (
	Ascending = iota
	Descending
	Shuffled
	NumOrders
)

// Ordered is a device that can be told the order of threads.
type Ordered interface{ SetOrder(order int) }
