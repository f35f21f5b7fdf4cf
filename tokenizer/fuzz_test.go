package tokenizer

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
	"golang.org/x/text/unicode/norm"

	"sibyl/internal/inputerr"
)

// seedTexts are short and hit every alternative of the regexes, NFC's corners and broken UTF-8.
var seedTexts = []string{
	"", "a", " ", "Hello, world!", "I'll we'RE 'S 'tis don't '\u017ft 'x '", "  two  spaces \n\n\n  x \r\n \t y   ", "12 345 x2y", "=== !?\n\n", "\u00a0x\u3000y\u2003",
	"e\u0301e\u0323\u0301 \u1112\u1161\u11ab \uac00\u11a8 \u0344 \u0f73 \u212b", strings.Repeat("\u0301\u0323", 40), "\u0301a \u0301 !\u0301", "中文字符 ไทย ก\u0e38\u0e48 हिन्दी",
	"\xff\xe4\xba \xf0\x9f\x98 \xed\xa0\x80\x80", "<|im_start|>user\n<think></think><|im_end|", "\U0001d15e\U00011099\U000110ba 👩‍👩‍👧", "\u0085\u001c\u200b\ufeff",
	" \u0300", "a\nb\r\n\r\n \n x", "\U000e0100\U0010ffff",
}

// FuzzSplit: the hand-written splitter cuts where the regexes do. regexp2 is the oracle. It lower-cases for (?i), so it
// does not know that the long s folds to s, as Oniguruma does; the pattern gets that written out.
func FuzzSplit(f *testing.F) {
	for _, s := range seedTexts {
		f.Add(s)
	}
	oracles := map[string]*regexp2.Regexp{}
	for regex := range splitters {
		oracles[regex] = regexp2.MustCompile(strings.Replace(regex, "(?i:'s|", "(?i:'s|'\u017f|", 1), regexp2.None)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1<<12 {
			return
		}
		s = string(AppendLossy(nil, s))
		for regex, split := range splitters {
			var got, want []string
			for rest := s; rest != ""; {
				n := split(rest)
				if n <= 0 || n > len(rest) {
					t.Fatalf("split(%q) = %d", rest, n)
				}
				got, rest = append(got, rest[:n]), rest[n:]
			}
			for m, err := oracles[regex].FindStringMatch(s); m != nil || err != nil; m, err = oracles[regex].FindNextMatch(m) {
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, m.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s\n in %q\n got %q\nwant %q", regex, s, got, want)
			}
		}
	})
}

// plainNFC is NFC by x/text where its stream-safe rule does not apply: ok is false for a text with a long run of marks.
func plainNFC(s string) (_ string, ok bool) {
	marks := 0
	for _, r := range norm.NFD.String(s) {
		if r == 0x034F {
			return "", false // the text's own or inserted: not to be told apart
		}
		marks++
		if properties(r).CCC() == 0 && !unicode.Is(unicode.M, r) {
			marks = 0
		}
		if marks > 25 {
			return "", false
		}
	}
	return norm.NFC.String(s), true
}

// FuzzNFC: the composition equals x/text's wherever that is NFC, and is idempotent everywhere.
func FuzzNFC(f *testing.F) {
	for _, s := range seedTexts {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = string(AppendLossy(nil, s))
		got, align := composeNFC(s, true)
		if want, ok := plainNFC(s); ok && got != want {
			t.Errorf("composeNFC(%+q)\n got %+q\nwant %+q", s, got, want)
		}
		if again, _ := composeNFC(got, false); again != got {
			t.Errorf("composeNFC is not idempotent on %+q: %+q, %+q", s, got, again)
		}
		if align == nil {
			return
		}
		n := utf8.RuneCountInString(s)
		if len(align) != utf8.RuneCountInString(got) || !slices.IsSorted(align) || int(align[len(align)-1]) >= n {
			t.Errorf("composeNFC(%+q) aligns %+q as %v", s, got, align)
		}
	})
}

// FuzzRoundTrip: decoding gives back the NFC of the text, in one go and streamed, and the offsets cover it in order.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range seedTexts {
		f.Add(s)
	}
	tok, _ := loadDemo(f)
	f.Fuzz(func(t *testing.T, s string) {
		e := encode(t, tok, s, EncodeOptions{Added: NoAdded})
		text := string(AppendLossy(nil, s))
		want, _ := composeNFC(text, false)
		if got := tok.Decode(e.IDs, false); got != want {
			t.Errorf("%+q\n got %+q\nwant %+q", s, got, want)
		}
		d, got := tok.NewStreamDecoder(false), ""
		for _, id := range e.IDs {
			part := d.Add(id)
			if !utf8.ValidString(part) {
				t.Errorf("%+q: the stream split a character: %+q", s, part)
			}
			got += part
		}
		if got += d.Flush(); got != want {
			t.Errorf("%+q: streamed\n got %+q\nwant %+q", s, got, want)
		}
		n := utf8.RuneCountInString(text)
		last := 0
		for i, o := range e.Offsets {
			if o[0] < last || o[1] < o[0] || o[1] > n {
				t.Errorf("%+q: offset %d is %v after %d, of %d", s, i, o, last, n)
			}
			last = o[0]
		}
		withAdded := encode(t, tok, s, EncodeOptions{})
		if len(withAdded.Pieces) != len(withAdded.IDs) || len(withAdded.Offsets) != len(withAdded.IDs) {
			t.Errorf("%+q: lengths differ", s)
		}
		if ids := encode(t, tok, s, EncodeOptions{IDsOnly: true}).IDs; !slices.Equal(ids, withAdded.IDs) {
			t.Errorf("%+q: IDsOnly changes the ids", s)
		}
	})
}

// FuzzMerge: the heap and the plain scan agree on every word.
func FuzzMerge(f *testing.F) {
	for _, s := range seedTexts {
		f.Add(s)
	}
	f.Add(strings.Repeat("the rays of light in ", 3))
	tok, _ := loadDemo(f)
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1<<12 || s == "" {
			return
		}
		var short, long mergeWork
		for i := range len(s) {
			short.ids = append(short.ids, tok.byteID[s[i]])
		}
		long.ids = slices.Clone(short.ids)
		short.mergeShort(&tok.merges)
		long.mergeLong(&tok.merges)
		if !slices.Equal(short.ids, long.ids) {
			t.Errorf("%q\nscan %v\nheap %v", s, short.ids, long.ids)
		}
	})
}

// FuzzTokenizerJSON: whatever the bytes, a tokenizer that works or an error of bad input.
func FuzzTokenizerJSON(f *testing.F) {
	f.Add([]byte(smallJSON()))
	files, err := filepath.Glob(filepath.Join(malformedDir, "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds in ", malformedDir, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 1<<14 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := Parse("fuzz", data)
		useOrRefused(t, tok, err)
	})
}

// FuzzTiktoken: the same for the other form.
func FuzzTiktoken(f *testing.F) {
	var small strings.Builder
	for b := range 256 {
		small.WriteString(tiktokenLine([]byte{byte(b)}, b))
	}
	small.WriteString(tiktokenLine([]byte("th"), 256) + tiktokenLine([]byte("the"), 257))
	f.Add([]byte(small.String()))
	f.Add([]byte("IQ== 0\nIg== 1\n"))
	f.Add([]byte("IQ== 0"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := parseTiktoken("fuzz", data, tiktokenKind{"fuzz", qwen35Regex, []string{"<|x|>"}, qwenSpecial})
		useOrRefused(t, tok, err)
	})
}

func useOrRefused(t *testing.T, tok *Tokenizer, err error) {
	t.Helper()
	if err != nil {
		var bad *inputerr.Error
		if !errors.As(err, &bad) || bad.File != "fuzz" || len(err.Error()) > 2000 {
			t.Errorf("error without its file, or too long: %v", err)
		}
		return
	}
	for _, s := range []string{"the thing in\n e\u0301 <|im_end|> \xff", seedTexts[9]} {
		e := encode(t, tok, s, EncodeOptions{})
		if err := tok.CheckIDs(e.IDs); err != nil {
			t.Error(err)
		}
		tok.Decode(e.IDs, true)
	}
}
