package tokenizer

import (
	"fmt"
	"unicode/utf8"

	"sibyl/internal/inputerr"
)

// maxText bounds one text to encode: positions inside a word are int32, and a word can be the whole text.
const maxText = 1 << 30

// Tokenizer encodes and decodes. It is immutable once loaded, so any number of goroutines may share it.
type Tokenizer struct {
	file   string
	tokens []string // id -> the token as spelled in tokenizer.json (byte-level: a space is Ġ)
	bytes  []string // id -> the bytes it decodes to
	ids    map[string]int32
	byteID [256]int32 // the ids of the single bytes, where merging starts
	merges mergeTable
	split  splitter
	nfc    bool // normalizer: NFC or none

	added      []AddedToken  // in id order
	addedAt    map[int32]int // id -> index in added
	raw        addedSet      // normalized = false: matched in the text as it came
	normalized addedSet      // normalized = true: matched after NFC
}

// AddedToken is an entry of added_tokens: matched as a whole before any merge.
type AddedToken struct {
	ID      int32
	Content string
	// Special tokens are dropped by Decode with skipSpecial and are text under SplitSpecial.
	Special bool
	// SingleWord: matches only where no word character touches it. LStrip, RStrip: takes the white space on that side
	// along. Normalized: is looked for after NFC rather than before it.
	SingleWord, LStrip, RStrip, Normalized bool
}

// AddedMode says which added tokens Encode recognises in the text.
type AddedMode int

const (
	// AllAdded recognises every added token: the library's default.
	AllAdded AddedMode = iota
	// NoAdded takes everything as ordinary text.
	NoAdded
	// SplitSpecial takes those marked special as text (encode_special_tokens in the Rust library), the others as tokens.
	SplitSpecial
)

// EncodeOptions steers Encode; the zero value is what Hugging Face does by default, without BOS or EOS.
type EncodeOptions struct {
	Added AddedMode
	// IDsOnly leaves Offsets and Pieces nil: the fast path for scoring.
	IDsOnly bool
}

// Encoding is one encoded text; the slices have one entry per token.
type Encoding struct {
	IDs []int32
	// Offsets are [begin, end) in code points of the original text (after U+FFFD took the place of invalid bytes, before
	// NFC). Tokens inside one character share its range. A composed character has the range of its first code point, as in
	// the Rust library.
	Offsets [][2]int
	// Pieces spell the tokens as tokenizer.json does: a space is Ġ, a byte 0x0a is Ċ.
	Pieces []string
}

// VocabSize is one more than the largest id. The model's embedding may be longer: checkpoints pad it.
func (t *Tokenizer) VocabSize() int { return len(t.tokens) }

// File is the name the tokenizer was loaded from.
func (t *Tokenizer) File() string { return t.file }

// Piece is the spelling of id in tokenizer.json; false if there is no such id.
func (t *Tokenizer) Piece(id int32) (string, bool) {
	if !t.known(id) {
		return "", false
	}
	return t.tokens[id], true
}

// Bytes is what id decodes to, perhaps a part of a character; false if there is no such id.
func (t *Tokenizer) Bytes(id int32) (string, bool) {
	if !t.known(id) {
		return "", false
	}
	return t.bytes[id], true
}

// ID finds a token by its spelling in tokenizer.json, added tokens included.
func (t *Tokenizer) ID(piece string) (int32, bool) {
	id, ok := t.ids[piece]
	return id, ok
}

// Added lists the added tokens in the order of their ids.
func (t *Tokenizer) Added() []AddedToken { return append([]AddedToken(nil), t.added...) }

// IsSpecial says whether id is an added token marked special.
func (t *Tokenizer) IsSpecial(id int32) bool {
	i, ok := t.addedAt[id]
	return ok && t.added[i].Special
}

// Pieces spells out ids. An unknown id is an error, as in DecodeChecked.
func (t *Tokenizer) Pieces(ids []int32) ([]string, error) {
	if err := t.CheckIDs(ids); err != nil {
		return nil, err
	}
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = t.tokens[id]
	}
	return out, nil
}

// CheckIDs names the first id that is outside the vocabulary.
func (t *Tokenizer) CheckIDs(ids []int32) error {
	for i, id := range ids {
		if !t.known(id) {
			return &inputerr.Error{
				File: "token ids", Field: fmt.Sprintf("position %d", i), Found: fmt.Sprint(id),
				Want: fmt.Sprintf("0..%d, the ids of %s", len(t.tokens)-1, t.file),
				Do:   "ids from another tokenizer, or padding of the embedding, have no text",
			}
		}
	}
	return nil
}

func (t *Tokenizer) known(id int32) bool { return id >= 0 && int(id) < len(t.tokens) }

// Encode turns text into tokens. The only error is a text longer than 1 GiB.
func (t *Tokenizer) Encode(text string, opt EncodeOptions) (Encoding, error) {
	if len(text) > maxText {
		return Encoding{}, &inputerr.Error{
			File: "text", Found: fmt.Sprintf("%d bytes", len(text)), Want: fmt.Sprintf("at most %d", maxText),
			Do: "encode it in parts, cut at a line's start",
		}
	}
	if !utf8.ValidString(text) {
		text = string(AppendLossy(nil, text))
	}
	e := encoder{t: t, opt: opt}
	if opt.Added == NoAdded {
		e.normalize(text, 0)
		return e.out, nil
	}
	at := 0 // in code points
	t.raw.cut(text, opt.Added == SplitSpecial, t, func(id int32, s string) {
		n := 0
		if !opt.IDsOnly {
			n = utf8.RuneCountInString(s)
		}
		if id >= 0 {
			e.emit(id, at, at+n)
		} else {
			e.normalize(s, at)
		}
		at += n
	})
	return e.out, nil
}

// encoder carries one Encode call.
type encoder struct {
	t    *Tokenizer
	opt  EncodeOptions
	out  Encoding
	work mergeWork
	at   runeIndex
}

func (e *encoder) emit(id int32, begin, end int) {
	e.out.IDs = append(e.out.IDs, id)
	if !e.opt.IDsOnly {
		e.out.Offsets = append(e.out.Offsets, [2]int{begin, end})
		e.out.Pieces = append(e.out.Pieces, e.t.tokens[id])
	}
}

// normalize takes a stretch between raw added tokens, which begins at code point base of the original text.
func (e *encoder) normalize(s string, base int) {
	var align []int32
	if e.t.nfc {
		s, align = composeNFC(s, !e.opt.IDsOnly)
	}
	e.at = runeIndex{s: s, align: align, base: base}
	if e.opt.Added == NoAdded || len(e.t.normalized.tokens) == 0 {
		e.words(s, 0)
		return
	}
	at := 0 // in bytes of the normalized stretch
	e.t.normalized.cut(s, e.opt.Added == SplitSpecial, e.t, func(id int32, part string) {
		if id >= 0 {
			begin, end := e.span(at, at+len(part))
			e.emit(id, begin, end)
		} else {
			e.words(part, at)
		}
		at += len(part)
	})
}

// words splits s, which lies at byte at of the normalized stretch, and merges each word.
func (e *encoder) words(s string, at int) {
	for len(s) > 0 {
		n := e.t.split(s)
		pos := at
		for _, id := range e.work.merge(e.t, s[:n]) {
			begin, end := 0, 0
			if !e.opt.IDsOnly {
				next := pos + len(e.t.bytes[id])
				begin, end = e.span(pos, next)
				pos = next
			}
			e.emit(id, begin, end)
		}
		s, at = s[n:], at+n
	}
}

func (e *encoder) span(from, to int) (begin, end int) {
	if e.opt.IDsOnly {
		return 0, 0
	}
	return e.at.span(from, to)
}

// runeIndex turns byte ranges of a normalized stretch, asked for in ascending order, into code points of the original.
type runeIndex struct {
	s     string
	align []int32 // normalized code point -> original one, nil when NFC changed nothing
	base  int
	bytes int // of s whose starts are counted in runes
	runes int
}

func (r *runeIndex) span(from, to int) (begin, end int) {
	first := r.count(from)
	if from < len(r.s) && !utf8.RuneStart(r.s[from]) {
		first-- // inside a character: its whole range
	}
	end = r.count(to)
	if r.align == nil {
		return r.base + first, r.base + end
	}
	if end == first {
		return r.base, r.base
	}
	return r.base + int(r.align[first]), r.base + int(r.align[end-1]) + 1
}

// count is the number of code points that start before byte at.
func (r *runeIndex) count(at int) int {
	for ; r.bytes < at; r.bytes++ {
		if utf8.RuneStart(r.s[r.bytes]) {
			r.runes++
		}
	}
	return r.runes
}
