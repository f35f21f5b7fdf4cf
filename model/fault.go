package model

import (
	"context"
	"runtime"
	"runtime/debug"

	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
)

// catch makes memory faults panics of the goroutine that calls it, and gives what is to be deferred: that turns such a
// panic into *err, for weights are files of others, mapped, which may be cut or whose disk may fail while they are read.
// A loop that stopped because ctx is done is ctx's error. Any other panic goes on.
func (e *Engine) catch(ctx context.Context, err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		switch r := recover().(type) {
		case nil:
		case kernels.Stopped:
			*err = ctx.Err()
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			*err = &inputerr.Error{File: e.info.Subject, Field: "weights", Found: "a file that can no longer be read where it was mapped",
				Want: "the file as it was when it was opened", Do: "see whether it was truncated or replaced, or whether its disk fails, and run again", Err: r}
		default:
			panic(r)
		}
	}
}
