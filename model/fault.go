package model

import (
	"context"
	"runtime/debug"

	"sibyl/internal/kernels"
	"sibyl/internal/mmap"
)

// catch makes memory faults panics of the goroutine that calls it, and gives what is to be deferred: that turns such a
// panic into *err, for weights are files of others, mapped, which may be cut or whose disk may fail while they are read.
// Files that were changed without a fault are an error too: what was computed is of neither. A loop that stopped because
// ctx is done is ctx's error. Any other panic goes on.
func (e *Engine) catch(ctx context.Context, err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		switch r := recover().(type) {
		case nil:
			if *err == nil {
				*err = e.src.Check()
			}
		case kernels.Stopped:
			*err = ctx.Err()
		default:
			if *err = mmap.Fault(r); *err == nil {
				panic(r)
			}
		}
	}
}
