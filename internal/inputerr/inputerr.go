// Package inputerr holds the one error type for bad input: what a person gave sibyl and what to do about it.
// Packages return it; only cmd maps it to exit code 2.
package inputerr

import (
	"fmt"
	"strings"
)

// Error says which input is wrong, where, what was found there, what was expected, and what to do next.
// Empty parts are left out of the text. Err, if set, is the cause and is reachable by errors.As.
type Error struct {
	File  string // path, flag or other name of the input
	Field string // the place inside it: "rope_parameters.rope_theta", "tensor \"x\" data_offsets", "byte 12"
	Found string
	Want  string
	Do    string
	Err   error
}

// Error prints one line: file: field: found F, want W; do.
func (e *Error) Error() string {
	var b strings.Builder
	for _, s := range []string{e.File, e.Field} {
		if s != "" {
			b.WriteString(s)
			b.WriteString(": ")
		}
	}
	switch {
	case e.Found != "" && e.Want != "":
		fmt.Fprintf(&b, "found %s, want %s", e.Found, e.Want)
	case e.Found != "":
		fmt.Fprintf(&b, "found %s", e.Found)
	case e.Want != "":
		fmt.Fprintf(&b, "want %s", e.Want)
	}
	if e.Err != nil {
		if e.Found != "" || e.Want != "" {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	}
	if e.Do != "" {
		b.WriteString("; ")
		b.WriteString(e.Do)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Clip shortens s for use in Found: at most n bytes, quoted, so that hostile input cannot flood a terminal.
func Clip(s string, n int) string {
	if len(s) > n {
		return fmt.Sprintf("%q (%d bytes in all)", s[:n], len(s))
	}
	return fmt.Sprintf("%q", s)
}
