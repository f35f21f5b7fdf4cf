package gpu

import (
	"fmt"

	"sibyl/internal/inputerr"
)

// check refuses a dispatch that a device could not run, with both numbers.
func (d *Dispatch) check(limits Info, buffers, regions int) error {
	threads := d.Group[0] * d.Group[1] * d.Group[2]
	bad := func(field, found, want string) error {
		return &inputerr.Error{File: "kernel " + d.Pipeline.Name(), Field: field, Found: found, Want: want, Do: "this is a fault of sibyl: please report it"}
	}
	if most := min(limits.MaxThreads, d.Pipeline.MaxThreads()); threads < 1 || threads > most {
		return bad("threads of a threadgroup", fmt.Sprint(threads), fmt.Sprintf("1..%d on %s", most, limits.Name))
	}
	for _, n := range d.Grid {
		if n < 1 || n > 1<<31-1 {
			return bad("grid", fmt.Sprint(d.Grid), "at least one threadgroup on each axis")
		}
	}
	memory := 0
	for _, n := range d.Threadgroup {
		memory += (n + 15) &^ 15
	}
	if memory > limits.MaxThreadgroup {
		return bad("threadgroup memory", fmt.Sprintf("%d bytes", memory), fmt.Sprintf("at most %d on %s", limits.MaxThreadgroup, limits.Name))
	}
	have := len(d.Buffers)
	if len(d.Args) > 0 {
		have++
	}
	if buffers >= 0 && (have != buffers || len(d.Threadgroup) != regions) {
		return bad("arguments", fmt.Sprintf("%d buffers and %d threadgroup sizes", have, len(d.Threadgroup)), fmt.Sprintf("%d and %d", buffers, regions))
	}
	for i, b := range d.Buffers {
		if b.Buffer == nil || b.Offset < 0 || b.Offset >= len(b.Buffer.Bytes()) {
			return bad(fmt.Sprintf("buffer %d", i), "none, or an offset beyond its end", "a buffer")
		}
	}
	return nil
}

// TooLarge is the refusal of a buffer beyond what the device recommends to use.
func TooLarge(name string, need, used, limit int64) error {
	return &inputerr.Error{File: name, Field: "memory", Found: fmt.Sprintf("a need of %d bytes beside the %d in use", need, used),
		Want: fmt.Sprintf("at most %d (recommendedMaxWorkingSetSize)", limit), Do: "use a smaller model, a quantized one, or fewer tokens"}
}
