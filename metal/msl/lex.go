// Package msl makes Metal kernels run on a CPU: it checks that a kernel's source stays in the subset that both Apple's
// compiler and clang take with one meaning, finds the kernels and their parameters, and writes the C++ that clang turns into a
// library. It runs nothing and needs no compiler.
package msl

import (
	"regexp"
	"strings"
)

// File is one kernel source.
type File struct {
	Name string // shown in errors: "rmsnorm.metal"
	Text string
}

// token is a word of the source; a preprocessor line is one token.
type token struct {
	text       string
	line       int
	begin, end int // bytes of the file
}

var word = regexp.MustCompile(`^(?:[A-Za-z_]\w*|\.?\d(?:[eEpP][+-]|[\w.])*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\[\[|\]\]|::|->|<<=?|>>=?|[-+*/%&|^=!<>]=|&&|\|\||\+\+|--|.)`)

// lex cuts a text into words without comments. Preprocessor lines are kept whole.
func lex(text string) (out []token) {
	line, start := 1, true // start: only blanks so far on this line
	for i := 0; i < len(text); {
		rest := text[i:]
		switch {
		case rest[0] == '\n':
			line, start = line+1, true
			i++
		case rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r':
			i++
		case strings.HasPrefix(rest, "//"):
			i += lineLength(rest)
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				n = len(rest) - 4
			}
			line += strings.Count(rest[:n+4], "\n")
			i += n + 4
		case rest[0] == '#' && start:
			n := lineLength(rest)
			out = append(out, token{rest[:n], line, i, i + n})
			i += n
		default:
			w := word.FindString(rest)
			if w == "" { // a byte that is no character
				w = rest[:1]
			}
			out = append(out, token{w, line, i, i + len(w)})
			i, start = i+len(w), false
		}
	}
	return out
}

func lineLength(s string) int {
	if n := strings.IndexByte(s, '\n'); n >= 0 {
		return n
	}
	return len(s)
}

// closing gives the index of the token that closes the bracket at i, or len(ts).
func closing(ts []token, i int) int {
	depth := 0
	for ; i < len(ts); i++ {
		switch ts[i].text {
		case "(", "[", "{":
			depth++
		case "[[":
			depth += 2
		case ")", "]", "}":
			depth--
		case "]]":
			depth -= 2
		}
		if depth <= 0 {
			break
		}
	}
	return i
}
