package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"sibyl/tokenizer"
)

// decode prints the text of ids, and nothing else.
func (v *Tokenize) decode(ctx context.Context, a *App, tok *tokenizer.Tokenizer, input string) error {
	if input == "-" {
		input = "@-"
	}
	ids, err := a.ParseIDs(ctx, "TEXT", input)
	if err != nil {
		return err
	}
	text, err := tok.DecodeChecked(ids, v.SkipSpecial)
	if err != nil {
		return err
	}
	return a.Emit(v.JSON.JSON, text, func(w io.Writer) error { return writeText(w, text) })
}

// render prints the rendering of a chat; --json adds its ids.
func (v *Tokenize) render(ctx context.Context, a *App, tok *tokenizer.Tokenizer, chat *tokenizer.ChatInfo) error {
	data, err := a.readInput(ctx, "--chat", v.Chat)
	if err != nil {
		return err
	}
	f, err := parseChat(filepath.ToSlash(v.Chat), data)
	if err != nil {
		return err
	}
	text, err := renderChat(chat, v.Template, f.Messages, v.NoThink, v.Prompt, f.Tools)
	if err != nil {
		return err
	}
	if !v.JSON.JSON {
		return writeText(a.Stdout, text)
	}
	enc, err := tok.Encode(text, tokenizer.EncodeOptions{})
	if err != nil {
		return err
	}
	return v.print(a, text, enc)
}

// print shows an encoding.
func (v *Tokenize) print(a *App, text string, enc tokenizer.Encoding) error {
	out := encoding{text, enc.IDs, enc.Pieces, enc.Offsets}
	if enc.IDs == nil {
		out.IDs, out.Pieces, out.Offsets = []int32{}, []string{}, [][2]int{}
	}
	return a.Emit(v.JSON.JSON, out, func(w io.Writer) error {
		rows := [][]string{{"id", "code points", "piece"}}
		for i, id := range enc.IDs {
			at := fmt.Sprintf("%d-%d", enc.Offsets[i][0], enc.Offsets[i][1])
			rows = append(rows, []string{strconv.Itoa(int(id)), at, enc.Pieces[i]})
		}
		return table(w, "rr", rows)
	})
}

// writeText prints text, ended by a line end.
func writeText(w io.Writer, text string) error {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
