package tokenizer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/userfile"
)

// maxFile bounds what is read into memory. The largest tokenizer.json of the family is about 20 MB.
const maxFile = 64 << 20

// Load reads a tokenizer.json, or a .tiktoken file that ParseTiktoken knows.
func Load(name string) (*Tokenizer, error) {
	f, err := userfile.Open(name)
	if err != nil {
		return nil, openError(name, err)
	}
	defer f.Close()
	data, err := readBounded(name, f)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".tiktoken") {
		return ParseTiktoken(name, data)
	}
	return Parse(name, data)
}

// LoadFS reads a checkpoint folder: tokenizer.json, and what tokenizer_config.json and chat_template.jinja say about chats.
// dir is "." for the root of fsys.
func LoadFS(fsys fs.FS, dir string) (*Tokenizer, *ChatInfo, error) {
	name := path.Join(dir, "tokenizer.json")
	data, err := readFS(fsys, name)
	if err != nil {
		return nil, nil, err
	}
	t, err := Parse(name, data)
	if err != nil {
		return nil, nil, err
	}
	info, err := loadChatInfo(fsys, dir, t)
	if err != nil {
		return nil, nil, err
	}
	return t, info, nil
}

func readFS(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, openError(name, err)
	}
	defer f.Close()
	return readBounded(name, f)
}

func openError(name string, err error) error {
	var odd *userfile.NotRegular
	if errors.As(err, &odd) {
		return userfile.Fault(name, "give a folder or file that holds the tokenizer", err)
	}
	do := ""
	if errors.Is(err, fs.ErrNotExist) {
		do = "give a folder or file that holds the tokenizer"
	}
	return &inputerr.Error{File: name, Want: "a readable file", Err: bare(err), Do: do}
}

// bare strips the path that File says already.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func readBounded(name string, f fs.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, openError(name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, &inputerr.Error{File: name, Found: "a " + kindOf(st.Mode()), Want: "a regular file"}
	}
	size := st.Size()
	if size > maxFile {
		return nil, tooLarge(name, fmt.Sprintf("%d bytes", size))
	}
	// One byte more than promised, so that a file that grows is noticed rather than cut.
	data := make([]byte, 0, size+1)
	for len(data) <= maxFile {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := f.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err == io.EOF {
			return data, nil
		}
		if err != nil {
			return nil, openError(name, err)
		}
	}
	return nil, tooLarge(name, "more than its size says")
}

func kindOf(m fs.FileMode) string {
	if m.IsDir() {
		return "folder"
	}
	return "special file"
}

func tooLarge(name, found string) error {
	return &inputerr.Error{File: name, Found: found, Want: fmt.Sprintf("at most %d bytes", maxFile), Do: "a tokenizer is never that large; check the path"}
}

// builder collects the entries of a file until they can be checked as a whole. Nothing is sized by an id before that id is
// known to be below the number of entries.
type builder struct {
	file  string
	spell []byte // all spellings, one after the other
	raw   []byte // all decoded bytes
	entry []entry
}

type entry struct {
	id                 int32
	spellEnd, rawEnd   int
	spellFrom, rawFrom int
}

func (b *builder) add(id int32, spelling []byte) {
	e := entry{id: id, spellFrom: len(b.spell), rawFrom: len(b.raw)}
	b.spell = append(b.spell, spelling...)
	b.raw = appendBytes(b.raw, spelling)
	e.spellEnd, e.rawEnd = len(b.spell), len(b.raw)
	b.entry = append(b.entry, e)
}

// index checks that the ids are 0..n-1, each once, and that no token is there twice.
func (b *builder) index(t *Tokenizer, field string) *inputerr.Error {
	n := len(b.entry)
	spell, raw := string(b.spell), string(b.raw)
	t.tokens, t.bytes = make([]string, n), make([]string, n)
	t.ids = make(map[string]int32, n)
	seen := make([]bool, n)
	stray := int32(-1)
	for _, e := range b.entry {
		s := spell[e.spellFrom:e.spellEnd]
		if other, dup := t.ids[s]; dup {
			return &inputerr.Error{File: b.file, Field: field, Found: fmt.Sprintf("the token %s twice, with the ids %d and %d", inputerr.Clip(s, 40), other, e.id),
				Want: "each token once", Do: repair}
		}
		t.ids[s] = e.id
		if int(e.id) >= n {
			stray = e.id
			continue
		}
		if seen[e.id] {
			return &inputerr.Error{File: b.file, Field: field, Found: fmt.Sprintf("the id %d twice, for %s and %s", e.id, inputerr.Clip(t.tokens[e.id], 40), inputerr.Clip(s, 40)),
				Want: "each id once", Do: repair}
		}
		seen[e.id] = true
		t.tokens[e.id], t.bytes[e.id] = s, raw[e.rawFrom:e.rawEnd]
	}
	if stray >= 0 {
		gap := 0
		for seen[gap] {
			gap++
		}
		return &inputerr.Error{File: b.file, Field: field, Found: fmt.Sprintf("no token with id %d, but one with id %d", gap, stray),
			Want: fmt.Sprintf("the ids 0..%d without a gap, as there are %d tokens", n-1, n), Do: repair}
	}
	return nil
}

const repair = "take tokenizer.json from the base model again"

// indexBytes fills byteID; every byte must be a token, or text could vanish.
func (t *Tokenizer) indexBytes(field string) *inputerr.Error {
	for b := range t.byteID {
		id, ok := t.ids[string(byteRune[b])]
		if !ok {
			return &inputerr.Error{File: t.file, Field: field, Found: fmt.Sprintf("no token for the byte 0x%02x (%q)", b, byteRune[b]),
				Want: "a token for each of the 256 bytes", Do: repair}
		}
		t.byteID[b] = id
	}
	return nil
}

// byteRune is the byte-level alphabet of GPT-2: printable Latin-1 stands for itself, the rest for U+0100 onwards in order.
// runeByte is its inverse, -1 for what is no letter of it.
var byteRune, runeByte = func() (to [256]rune, from [324]int16) {
	for i := range from {
		from[i] = -1
	}
	next := rune(256)
	for b := range to {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE) {
			r = next
			next++
		}
		to[b], from[r] = r, int16(b)
	}
	return to, from
}()

// appendBytes appends what a token decodes to: its letters as bytes, or, if one of them is not in the byte-level alphabet
// (an added token with a space, say), its UTF-8 as it is. So does the ByteLevel decoder of the Rust library, for added
// tokens too.
func appendBytes(dst, spelling []byte) []byte {
	from := len(dst)
	for _, r := range string(spelling) {
		if int(r) >= len(runeByte) || runeByte[r] < 0 {
			return append(dst[:from], spelling...)
		}
		dst = append(dst, byte(runeByte[r]))
	}
	return dst
}
