// Package ops are sibyl's Metal kernels as Go functions: each names its tensors with their shapes, checks what its kernel asks
// for, picks the pipeline and sets the grid. Formulas and orders of summation stand at the head of kernels/OP.metal.
//
// Activations are float32 [rows, width], row-major. A round is the grid of a contract's rounding point (precision.Round).
package ops

import (
	"fmt"
	"unsafe"

	"sibyl/metal/gpu"
	"sibyl/metal/kernels"
	"sibyl/precision"
)

// Set is a device with the kernels compiled.
type Set struct {
	Device gpu.Device
	lib    gpu.Library
	pipes  map[string]gpu.Pipeline
}

// Load compiles the kernels on dev.
func Load(dev gpu.Device) (*Set, error) {
	lib, err := dev.Library(kernels.Files())
	if err != nil {
		return nil, err
	}
	return With(dev, lib), nil
}

// With is a device with a library that holds the kernels.
func With(dev gpu.Device, lib gpu.Library) *Set {
	return &Set{Device: dev, lib: lib, pipes: map[string]gpu.Pipeline{}}
}

func (s *Set) pipeline(name string) (gpu.Pipeline, error) {
	if p, ok := s.pipes[name]; ok {
		return p, nil
	}
	p, err := s.lib.Pipeline(name)
	if err == nil {
		s.pipes[name] = p
	}
	return p, err
}

// List is a list of ops that run in order when it is committed. The first fault sticks.
type List struct {
	set *Set
	cmd gpu.Commands
	err error
	ran map[string]int // dispatches by kernel
}

// Begin starts a list.
func (s *Set) Begin() *List { return &List{set: s, cmd: s.Device.Begin(), ran: map[string]int{}} }

// Ran counts the dispatches by kernel since Begin.
func (l *List) Ran() map[string]int { return l.ran }

// Commit runs the list and waits.
func (l *List) Commit() (gpu.Timing, error) {
	if l.err != nil {
		return gpu.Timing{}, l.err
	}
	return l.cmd.Commit()
}

func (l *List) fail(kernel, format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf("kernel %s: %s", kernel, fmt.Sprintf(format, args...))
	}
}

type size = [3]int

// add appends a dispatch of a kernel. The pointer args names the kernel's argument struct, which holds 32-bit fields only.
func add[T any](l *List, kernel string, args *T, grid, group size, tgmem []int, buffers ...gpu.Slice) {
	if l.err != nil {
		return
	}
	p, err := l.set.pipeline(kernel)
	if err != nil {
		l.err = err
		return
	}
	l.ran[kernel]++
	l.cmd.Add(gpu.Dispatch{Pipeline: p, Buffers: buffers, Args: bytesOf(args), Threadgroup: tgmem, Grid: grid, Group: group})
}

func bytesOf[T any](args *T) []byte {
	b := unsafe.Slice((*byte)(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	return append([]byte(nil), b...)
}

func ceil(n, by int) int { return (n + by - 1) / by }

// Seq is one sequence's part of a ragged batch, as kernels see it.
type Seq struct{ Row, Len, Pos, Slot uint32 }

// Format is how a weight's elements are stored.
type Format uint8

// The formats that kernels read. The quantized ones have blocks of 32 along the columns.
const (
	F32 Format = iota
	F16
	BF16
	I8
	I4
	U4
	NumFormats
)

// Block is how many neighbours of a row share a scale in the quantized formats.
const Block = 32

// String is the kernels' suffix.
func (f Format) String() string { return [...]string{"f32", "f16", "bf16", "i8", "i4", "u4"}[f] }

// Quantized says whether elements are integers in blocks.
func (f Format) Quantized() bool { return f >= I8 }

// Bits of an element, without scales.
func (f Format) Bits() int { return [...]int{32, 16, 16, 8, 4, 4}[f] }

// Align is what the place of a matrix must be a multiple of, in bytes; of scales and minima it is 2.
func (f Format) Align() int { return max(1, f.Bits()/8) }

// Weight is a matrix [Rows, Cols] on the device, as it is stored. Round is applied to every element when it is read.
type Weight struct {
	Format        Format
	Rows, Cols    int
	Round         precision.Round
	Q, Scale, Min gpu.Slice // Scale and Min [Rows, Cols/32]; of plain formats they are unused
}

// Bytes is what reading the matrix once takes.
func (w *Weight) Bytes() int {
	n := w.Rows * w.Cols * w.Format.Bits() / 8
	switch w.Format {
	case I8, I4:
		n += w.Rows * w.Cols / Block * 2
	case U4:
		n += w.Rows * w.Cols / Block * 4
	}
	return n
}

// slices are the three buffers that a kernel takes; unused ones are the first again.
func (w *Weight) slices() (q, scale, least gpu.Slice) {
	q, scale, least = w.Q, w.Scale, w.Min
	if scale.Buffer == nil {
		scale = q
	}
	if least.Buffer == nil {
		least = q
	}
	return q, scale, least
}

// check refuses what no kernel reads.
func (l *List) checkWeight(kernel string, w *Weight) bool {
	switch {
	case w.Rows < 1 || w.Cols < 1:
		l.fail(kernel, "a weight [%d, %d]", w.Rows, w.Cols)
	case w.Format.Quantized() && w.Cols%Block != 0:
		l.fail(kernel, "%d columns do not make blocks of %d", w.Cols, Block)
	case w.Q.Offset%w.Format.Align() != 0:
		l.fail(kernel, "a weight at offset %d, which is no multiple of %d", w.Q.Offset, w.Format.Align())
	default:
		return l.err == nil
	}
	return false
}
