package tokenizer

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// The two regexes of the family. They are recognised by their exact text: a splitter for any other would be a guess.
const (
	// qwen35Regex: Qwen3.5 and 3.6. Marks belong to words.
	qwen35Regex = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	// qwen2Regex: Qwen2, 2.5 and 3. Marks are symbols.
	qwen2Regex = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// splitter returns the length in bytes of the first match at the start of s, which is valid UTF-8 and not empty. Every
// character is matched by some alternative, so the matches cover the text without holes.
type splitter func(s string) int

var splitters = map[string]splitter{
	qwen35Regex: func(s string) int { return splitWord(s, letter|mark) },
	qwen2Regex:  func(s string) int { return splitWord(s, letter) },
}

// class of a character as the regexes see it; no character is in two.
type class uint8

const (
	other   class = 1 << iota // symbols, punctuation, controls, unassigned
	letter                    // \p{L}
	mark                      // \p{M}
	number                    // \p{N}
	space                     // \s but not \r or \n
	newline                   // \r or \n
)

// planes holds the classes of the planes 0 and 1, filled on first use: a table is four times as fast as unicode.Is on CJK text.
var planes = sync.OnceValue(func() *[0x20000]class {
	var t [0x20000]class
	fill := func(r *unicode.RangeTable, c class) {
		for _, x := range r.R16 {
			for i := uint32(x.Lo); i <= uint32(x.Hi); i += uint32(x.Stride) {
				t[i] = c
			}
		}
		for _, x := range r.R32 {
			for i := x.Lo; i <= x.Hi && i < uint32(len(t)); i += x.Stride {
				t[i] = c
			}
		}
	}
	for i := range t {
		t[i] = other
	}
	fill(unicode.L, letter)
	fill(unicode.M, mark)
	fill(unicode.N, number)
	fill(unicode.White_Space, space)
	t['\r'], t['\n'] = newline, newline
	return &t
})

func classOf(r rune) class {
	if t := planes(); int(r) < len(t) {
		return t[r]
	}
	switch {
	case unicode.Is(unicode.L, r):
		return letter
	case unicode.Is(unicode.M, r):
		return mark
	case unicode.Is(unicode.N, r):
		return number
	}
	return other // no white space beyond plane 1
}

// run skips the characters from i on whose class is in set.
func run(s string, i int, set class) int {
	for i < len(s) {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		if classOf(r)&set == 0 {
			break
		}
		i += n
	}
	return i
}

// splitWord is both regexes: word is what may make up a word, letter or letter|mark. The alternatives in their order:
func splitWord(s string, word class) int {
	r, n := utf8.DecodeRuneInString(s)
	c := classOf(r)

	// (?i:'s|'t|'re|'ve|'m|'ll|'d)
	if r == '\'' {
		if e := contraction(s); e > 0 {
			return e
		}
	}
	// [^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+   The optional first character may itself be a mark; with or without it the match ends
	// at the same place.
	if c&(newline|letter|number) == 0 {
		if e := run(s, n, word); e > n {
			return e
		}
	}
	if c&word != 0 {
		return run(s, n, word)
	}
	// \p{N}
	if c == number {
		return n
	}
	//  ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*
	symbols := (other | mark) &^ word
	from := 0
	if r == ' ' {
		from = 1
	}
	if e := run(s, from, symbols); e > from {
		return run(s, e, newline)
	}
	return splitSpace(s)
}

// splitSpace is \s*[\r\n]+|\s+(?!\S)|\s+ at the start of s, which is white space.
func splitSpace(s string) int {
	end, lastNewline, lastStart := 0, -1, 0
	for end < len(s) {
		r, n := rune(s[end]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[end:])
		}
		c := classOf(r)
		if c&(space|newline) == 0 {
			break
		}
		if c == newline {
			lastNewline = end
		}
		lastStart, end = end, end+n
	}
	switch {
	case lastNewline >= 0: // \s*[\r\n]+ gives back what follows the last line end
		return lastNewline + 1
	case end == len(s): // \s+(?!\S) at the end of the text
		return end
	case lastStart > 0: // \s+(?!\S) leaves the last space to the word that follows
		return lastStart
	}
	return end // \s+
}

// contraction is the length of 's, 't, 're, 've, 'm, 'll or 'd in any case at the start of s, or 0. Under (?i) the long s,
// U+017F, is an s; no other character outside ASCII folds to one of these letters.
func contraction(s string) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] | 0x20 {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if len(s) > 2 && s[2]|0x20 == 'e' {
			return 3
		}
	case 'l':
		if len(s) > 2 && s[2]|0x20 == 'l' {
			return 3
		}
	}
	if len(s) >= 3 && s[1:3] == "ſ" {
		return 3
	}
	return 0
}
