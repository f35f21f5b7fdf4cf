package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Exit codes, the same for every verb.
const (
	exitOK           = 0   // done; also when the reader of a pipe has left
	exitMismatch     = 1   // it ran, and the two sides differ
	exitUsage        = 2   // usage or bad input, or the machine refused (disk full)
	exitInconclusive = 3   // it ran, and nothing could be decided
	exitInterrupted  = 130 // 128 + SIGINT, as shells count
	exitTerminated   = 143 // 128 + SIGTERM
)

// signalError is why a context ended.
type signalError struct{ os.Signal }

// Error is for logs; it is never printed.
func (s signalError) Error() string { return s.String() }

// signalExit is the exit code of a process that a signal ended.
func signalExit(s os.Signal) int {
	if s == syscall.SIGTERM {
		return exitTerminated
	}
	return exitInterrupted
}

// statusError is a verb's result that is not an error of its own: the verb has said everything.
type statusError int

// Error is for logs; it is never printed.
func (s statusError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// report prints err, if it is one to be printed, and picks the exit code.
func (a *App) report(ctx context.Context, err error) int {
	var status statusError
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, syscall.EPIPE):
		return exitOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return a.interrupted(ctx, err)
	case errors.As(err, &usage):
		a.Stderr.error(err.Error())
		a.Stderr.line(`Run "sibyl --help", or "sibyl VERB --help", for what there is.`)
		return exitUsage
	}
	a.Stderr.error(err.Error())
	return exitUsage
}

// interrupted says what a signal broke off, without the words of package context.
func (a *App) interrupted(ctx context.Context, err error) int {
	word, code := "interrupted", exitInterrupted
	var by signalError
	if errors.As(context.Cause(ctx), &by) && by.Signal == syscall.SIGTERM {
		word, code = "terminated", exitTerminated
	}
	doing := strings.ReplaceAll(err.Error(), ": "+context.Canceled.Error(), "")
	if doing = strings.ReplaceAll(doing, context.Canceled.Error(), ""); doing != "" {
		word += ": " + doing
	}
	a.Stderr.error(word)
	return code
}
