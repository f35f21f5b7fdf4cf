package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"sibyl/internal/inputerr"
	"sibyl/tokenizer"
)

// eachLine reads standard input line by line, and writes the JSON of what f makes of each line. Lines are
// flushed as they come, so that it can serve another program.
func (a *App) eachLine(ctx context.Context, f func(line []byte) (any, error)) error {
	in := bufio.NewScanner(a.Stdin)
	in.Buffer(nil, maxInputBytes)
	lines := make(chan []byte)
	go func() { // it may be waiting for input when ctx ends; it then ends with the process
		defer close(lines)
		for in.Scan() {
			select {
			case lines <- bytes.Clone(in.Bytes()):
			case <-ctx.Done():
				return
			}
		}
	}()
	enc := json.NewEncoder(a.Stdout)
	enc.SetEscapeHTML(false)
	for n := 1; ; n++ {
		var line []byte
		var ok bool
		select {
		case line, ok = <-lines:
		case <-ctx.Done():
			return fmt.Errorf("reading standard input: %w", context.Canceled)
		}
		if !ok {
			break
		}
		out, err := f(line)
		if err != nil {
			return &inputerr.Error{File: fmt.Sprintf("standard input:%d", n), Err: err}
		}
		if err := enc.Encode(out); err != nil {
			return err
		}
		if err := a.Stdout.Flush(); err != nil {
			return err
		}
	}
	if errors.Is(in.Err(), bufio.ErrTooLong) {
		return &inputerr.Error{File: "standard input", Found: "a longer line", Want: fmt.Sprintf("lines of at most %d bytes", maxInputBytes)}
	}
	return in.Err()
}

// line is one line of --jsonl.
func (v *Tokenize) line(tok *tokenizer.Tokenizer, line []byte) (any, error) {
	if v.Decode {
		var ids []int32
		if err := json.Unmarshal(line, &ids); err != nil {
			return nil, fmt.Errorf("want a JSON list of ids: %w", err)
		}
		return tok.DecodeChecked(ids, v.SkipSpecial)
	}
	var text string
	if err := json.Unmarshal(line, &text); err != nil {
		return nil, fmt.Errorf("want a JSON string: %w", err)
	}
	enc, err := tok.Encode(text, tokenizer.EncodeOptions{IDsOnly: true})
	if enc.IDs == nil {
		enc.IDs = []int32{}
	}
	return enc.IDs, err
}
