package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/google/renameio/v2/maybe"

	"sibyl/internal/inputerr"
	"sibyl/internal/userfile"
)

// pipe buffers standard output and keeps the first error, so that printing needs no check at every line.
type pipe struct {
	w   io.Writer
	buf *bufio.Writer
	err error
}

// Write is buffered; its error may belong to earlier bytes.
func (p *pipe) Write(b []byte) (int, error) {
	if p.buf == nil {
		p.buf = bufio.NewWriterSize(p.w, 1<<16)
	}
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.buf.Write(b)
	p.err = err
	return n, err
}

// Flush writes out what is buffered and gives the first error of all writes.
func (p *pipe) Flush() error {
	if p.buf != nil && p.err == nil {
		p.err = p.buf.Flush()
	}
	return p.err
}

// JSON is embedded by verbs that print.
type JSON struct {
	JSON bool `name:"json" env:"SIBYL_JSON" help:"Print JSON instead of text."`
}

// Output is embedded by verbs that write a file.
type Output struct {
	Out   string `name:"out" short:"o" placeholder:"FILE" help:"Write the result as JSON to FILE."`
	Force bool   `help:"Overwrite an existing file."`
}

// check refuses before any work what write would refuse after it.
func (o *Output) check() error { return checkOutput(o.Out, o.Force) }

// write puts v into the file as JSON, if one was asked for: under a temporary name first (on Windows directly).
func (o *Output) write(v any) error {
	if o.Out == "" {
		return nil
	}
	data, err := marshal(v)
	if err != nil {
		return err
	}
	return o.writeBytes(data)
}

// writeBytes puts data into the file, if one was asked for.
func (o *Output) writeBytes(data []byte) error {
	if o.Out == "" {
		return nil
	}
	if err := o.check(); err != nil {
		return err
	}
	return maybe.WriteFile(o.Out, data, 0o644)
}

// checkOutput refuses what cannot become a file, if one was asked for; without force, what would be overwritten.
func checkOutput(path string, force bool) error {
	if path == "" {
		return nil
	}
	return userfile.CheckOutput(path, force)
}

// marshal is the one form of JSON sibyl prints: indented, UTF-8 as it is, a line end at the end.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return b.Bytes(), nil
}

// Emit prints v as JSON if asJSON, else what text writes.
func (a *App) Emit(asJSON bool, v any, text func(w io.Writer) error) error {
	a.Stderr.finish() // the result goes where the bar was, if both are one terminal
	if !asJSON {
		return text(a.Stdout)
	}
	data, err := marshal(v)
	if err == nil {
		_, err = a.Stdout.Write(data)
	}
	return err
}

// readStdin reads standard input to its end, or until ctx is done.
func (a *App) readStdin(ctx context.Context) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1) // the reader may outlive this call; it then ends with the process
	go func() {
		data, err := readBounded(a.Stdin, "standard input")
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("reading standard input: %w", context.Canceled)
	}
}

// stdinText is standard input as text. Bytes that are no UTF-8 reach a tokenizer as U+FFFD; that is said.
func (a *App) stdinText(ctx context.Context) (string, error) {
	data, err := a.readStdin(ctx)
	bad := 0
	for rest := data; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			bad++
		}
		rest = rest[n:]
	}
	if bad > 0 {
		a.Note("standard input: %s no UTF-8; U+FFFD stands for them", plural(bad, "byte is", "bytes are"))
	}
	return string(data), err
}

// readBounded reads r to its end and refuses more than maxInputBytes.
func readBounded(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInputBytes+1))
	if err != nil {
		return nil, &inputerr.Error{File: name, Err: err}
	}
	if len(data) > maxInputBytes {
		return nil, &inputerr.Error{File: name, Found: "more than that", Want: fmt.Sprintf("at most %d bytes", maxInputBytes)}
	}
	return data, nil
}
