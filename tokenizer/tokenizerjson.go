package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sibyl/internal/inputerr"
)

// Parse reads the contents of a tokenizer.json; name is for errors.
func Parse(name string, data []byte) (*Tokenizer, error) {
	if err := notJSON(name, data); err != nil {
		return nil, err
	}
	p := parser{file: name, t: &Tokenizer{file: name}}
	if err := p.parse(data); err != nil {
		return nil, err
	}
	return p.t, nil
}

// notJSON recognises what people have instead of the file.
func notJSON(name string, data []byte) error {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return &inputerr.Error{File: name, Found: "an empty file", Want: "its contents", Do: "fetch it again"}
	case bytes.HasPrefix(data, []byte("version https://git-lfs.github.com/spec/")):
		return &inputerr.Error{File: name, Found: "a Git LFS pointer", Want: "the file itself", Do: "run git lfs pull in the checkpoint's folder"}
	}
	return nil
}

type parser struct {
	file  string
	t     *Tokenizer
	build builder
	added []AddedToken
}

// section is one key of the top level or of the model: its raw text, read when all are known, because their order in the
// file is free while merges need the vocabulary.
type section map[string][]byte

func (p *parser) parse(data []byte) error {
	top, err := p.sections(data, "", 0, "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model")
	if err != nil {
		return err
	}
	for _, part := range []struct {
		key  string
		read func(at string, raw []byte) error
	}{
		{"version", p.version}, {"truncation", p.mustBeNull}, {"padding", p.mustBeNull},
		{"normalizer", p.normalizer}, {"pre_tokenizer", p.preTokenizer}, {"post_processor", p.postProcessor}, {"decoder", p.decoder},
		{"added_tokens", p.addedTokens},
	} {
		raw, ok := top[part.key]
		if !ok {
			raw = []byte("null")
		}
		if err := part.read(part.key, raw); err != nil {
			return err
		}
	}
	raw, ok := top["model"]
	if !ok {
		return p.bad("model", "nothing", `an object with type "BPE"`, repair)
	}
	return p.model(raw, offset(data, raw))
}

// offset is where part, a slice of data, begins in it.
func offset(data, part []byte) int { return cap(data) - cap(part) }

func (p *parser) bad(field, found, want, do string) *inputerr.Error {
	return &inputerr.Error{File: p.file, Field: field, Found: found, Want: want, Do: do}
}

const refused = "sibyl reads the byte-level BPE of the Qwen family only and does not guess at others"

// sections reads an object whose keys are all in known, each at most once. base is where data begins in the file.
func (p *parser) sections(data []byte, at string, base int, known ...string) (section, error) {
	s := scanner{data: data}
	out := section{}
	var bad *inputerr.Error
	s.object(func(key []byte) {
		k := string(key)
		if bad == nil && !slices.Contains(known, k) {
			bad = p.bad(join(at, inputerr.Clip(k, 40)), "a key sibyl does not know", "one of "+strings.Join(known, ", "), refused)
		}
		if _, dup := out[k]; dup && bad == nil {
			bad = p.bad(join(at, k), "the key twice", "it once", repair)
		}
		out[k] = s.skip(1)
	})
	s.end()
	if err := p.scanErr(&s, at, base); err != nil {
		return nil, err
	}
	if bad != nil {
		return nil, bad
	}
	return out, nil
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// scanErr completes the scanner's error with the file and the place in it.
func (p *parser) scanErr(s *scanner, at string, base int) error {
	if s.err == nil {
		return nil
	}
	s.err.File = p.file
	s.err.Field = fmt.Sprintf("byte %d", base+s.at)
	if at != "" {
		s.err.Field = at + ", " + s.err.Field
	}
	return s.err
}

func (p *parser) version(at string, raw []byte) error {
	if string(raw) != `"1.0"` {
		return p.bad(at, clip(raw), `"1.0"`, refused)
	}
	return nil
}

func (p *parser) mustBeNull(at string, raw []byte) error {
	if string(raw) != "null" {
		return p.bad(at, clip(raw), "null", "remove it: a tokenizer that cuts or pads the text by itself would hide what the model sees")
	}
	return nil
}

func clip(raw []byte) string {
	if len(raw) > 60 {
		return fmt.Sprintf("%s... (%d bytes)", bytes.ToValidUTF8(raw[:60], nil), len(raw))
	}
	return string(raw)
}

func (p *parser) normalizer(at string, raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	var n struct{ Type string }
	if err := p.small(at, raw, &n); err != nil {
		return err
	}
	if n.Type != "NFC" {
		return p.bad(at+".type", inputerr.Clip(n.Type, 40), `"NFC", or null for no normalizer`, refused)
	}
	p.t.nfc = true
	return nil
}

type byteLevel struct {
	Type           string
	AddPrefixSpace *bool `json:"add_prefix_space"`
	TrimOffsets    *bool `json:"trim_offsets"`
	UseRegex       *bool `json:"use_regex"`
}

func (p *parser) preTokenizer(at string, raw []byte) error {
	if string(raw) == "null" {
		return p.bad(at, "nothing", "a Sequence of Split and ByteLevel", refused)
	}
	var seq struct {
		Type          string
		Pretokenizers []json.RawMessage
	}
	if err := p.typed(at, raw, "Sequence", `"Sequence" of Split and ByteLevel`, &seq); err != nil {
		return err
	}
	if len(seq.Pretokenizers) != 2 {
		return p.bad(at+".pretokenizers", fmt.Sprintf("%d entries", len(seq.Pretokenizers)), "2: Split and ByteLevel", refused)
	}
	var split struct {
		Type     string
		Pattern  struct{ Regex *string }
		Behavior string
		Invert   bool
	}
	at0 := at + ".pretokenizers[0]"
	if err := p.typed(at0, seq.Pretokenizers[0], "Split", `"Split"`, &split); err != nil {
		return err
	}
	if split.Pattern.Regex == nil {
		return p.bad(at0+".pattern", "no Regex", "one of the family's two regexes", refused)
	}
	f, ok := splitters[*split.Pattern.Regex]
	if !ok {
		return p.bad(at0+".pattern.Regex", inputerr.Clip(*split.Pattern.Regex, 80), "one of the family's two regexes (Qwen3.5 with \\p{M}, Qwen3 without), to the letter", refused)
	}
	p.t.split = f
	if split.Behavior != "Isolated" || split.Invert {
		return p.bad(at0+".behavior", fmt.Sprintf("%q, invert %v", split.Behavior, split.Invert), `"Isolated", invert false`, refused)
	}
	var bl byteLevel
	at1 := at + ".pretokenizers[1]"
	if err := p.typed(at1, seq.Pretokenizers[1], "ByteLevel", `"ByteLevel"`, &bl); err != nil {
		return err
	}
	if err := p.mustBeFalse(at1+".add_prefix_space", bl.AddPrefixSpace); err != nil {
		return err
	}
	return p.mustBeFalse(at1+".use_regex", bl.UseRegex)
}

// postProcessor may be a ByteLevel that does nothing; one that adds tokens or trims offsets would change the answer.
func (p *parser) postProcessor(at string, raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	var bl byteLevel
	if err := p.typed(at, raw, "ByteLevel", `"ByteLevel", or null`, &bl); err != nil {
		return err
	}
	return p.mustBeFalse(at+".trim_offsets", bl.TrimOffsets)
}

// decoder: ByteLevel's options have no effect on decoding.
func (p *parser) decoder(at string, raw []byte) error {
	if string(raw) == "null" {
		return p.bad(at, "nothing", `"ByteLevel"`, refused)
	}
	return p.typed(at, raw, "ByteLevel", `"ByteLevel"`, &byteLevel{})
}

// mustBeFalse wants the option written out: the library's default is true.
func (p *parser) mustBeFalse(at string, v *bool) error {
	switch {
	case v == nil:
		return p.bad(at, "nothing", "false", refused)
	case *v:
		return p.bad(at, "true", "false", refused)
	}
	return nil
}

// typed reads a small object after its "type", so that another kind is refused by its name and not by its first odd key.
func (p *parser) typed(at string, raw []byte, kind, want string, into any) error {
	var t struct{ Type string }
	if err := json.Unmarshal(raw, &t); err != nil {
		return p.small(at, raw, into)
	}
	if t.Type != kind {
		return p.bad(at+".type", inputerr.Clip(t.Type, 40), want, refused)
	}
	return p.small(at, raw, into)
}

func (p *parser) small(at string, raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		text := strings.TrimPrefix(err.Error(), "json: ")
		return p.bad(at, clip(raw), "the fields the tokenizers library writes", text)
	}
	return nil
}

func (p *parser) addedTokens(at string, raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	type jsonToken struct {
		ID         *int64
		Content    string
		SingleWord bool `json:"single_word"`
		LStrip     bool
		RStrip     bool
		Normalized *bool
		Special    bool
	}
	var list []json.RawMessage
	if err := p.small(at, raw, &list); err != nil {
		return err
	}
	for i, raw := range list {
		at := fmt.Sprintf("%s[%d]", at, i)
		var x jsonToken
		if err := p.small(at, raw, &x); err != nil {
			return err
		}
		switch {
		case x.ID == nil:
			return p.bad(at+".id", "nothing", "an integer from 0 to 2147483647", repair)
		case *x.ID < 0 || *x.ID > 1<<31-1:
			return p.bad(at+".id", fmt.Sprint(*x.ID), "an integer from 0 to 2147483647", repair)
		case x.Content == "":
			return p.bad(at+".content", `""`, "a text to match", repair)
		case x.Normalized == nil:
			return p.bad(at+".normalized", "nothing", "true or false", repair)
		}
		p.added = append(p.added, AddedToken{ID: int32(*x.ID), Content: x.Content, Special: x.Special, SingleWord: x.SingleWord,
			LStrip: x.LStrip, RStrip: x.RStrip, Normalized: *x.Normalized})
	}
	return nil
}
