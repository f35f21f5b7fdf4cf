package strictjson

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// String reads a string and decodes its escapes. An unpaired surrogate is an error: it has no UTF-8.
func (s *Scanner) String() (string, error) {
	if err := s.byte('"', "a string"); err != nil {
		return "", err
	}
	start := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return string(s.b[start : s.i-1]), nil
		case c == '\\':
			return s.escaped(start)
		case c < 0x20:
			return "", &Error{Offset: s.i, Found: fmt.Sprintf("the control character 0x%02x in a string", c), Want: "an escape"}
		}
		s.i++
	}
	return "", &Error{Offset: s.i, Found: "the end of the text", Want: "a closing quote"}
}

// escaped is String from its first backslash on; text since start is already checked.
func (s *Scanner) escaped(start int) (string, error) {
	out := append([]byte(nil), s.b[start:s.i]...)
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return string(out), nil
		case c == '\\':
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		case c < 0x20:
			return "", &Error{Offset: s.i, Found: fmt.Sprintf("the control character 0x%02x in a string", c), Want: "an escape"}
		default:
			out = append(out, c)
			s.i++
		}
	}
	return "", &Error{Offset: s.i, Found: "the end of the text", Want: "a closing quote"}
}

// escape reads one escape, or two that form a surrogate pair.
func (s *Scanner) escape() (rune, error) {
	at := s.i
	if at+1 >= len(s.b) {
		return 0, &Error{Offset: at, Found: "the end of the text", Want: "an escape"}
	}
	c := s.b[at+1]
	s.i += 2
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, ok := s.hex4()
		if ok && utf16.IsSurrogate(r) && s.i+1 < len(s.b) && s.b[s.i] == '\\' && s.b[s.i+1] == 'u' {
			s.i += 2
			low, lowOK := s.hex4()
			r, ok = utf16.DecodeRune(r, low), lowOK
			ok = ok && r != utf8.RuneError
		}
		if ok && !utf16.IsSurrogate(r) {
			return r, nil
		}
		return 0, &Error{Offset: at, Found: `a \u escape that is no character`, Want: "four hex digits, surrogates in pairs"}
	}
	return 0, &Error{Offset: at, Found: strconv.Quote(string([]byte{'\\', c})), Want: "an escape that JSON knows"}
}

func (s *Scanner) hex4() (rune, bool) {
	if s.i+4 > len(s.b) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s.b[s.i:s.i+4]), 16, 16)
	s.i += 4
	return rune(n), err == nil
}

// Number reads a number and gives its text, which is valid JSON.
func (s *Scanner) Number() (string, error) {
	if s.Kind() != Number {
		return "", s.fail("a number")
	}
	start := s.i
	if s.b[s.i] == '-' {
		s.i++
	}
	first := s.i
	if s.digits() == 0 || s.b[first] == '0' && s.i > first+1 {
		s.i = start
		return "", s.fail("a number without leading zeros")
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		if s.i++; s.digits() == 0 {
			return "", s.fail("a digit")
		}
	}
	if s.i < len(s.b) && (s.b[s.i] == 'e' || s.b[s.i] == 'E') {
		if s.i++; s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		if s.digits() == 0 {
			return "", s.fail("a digit")
		}
	}
	return string(s.b[start:s.i]), nil
}

func (s *Scanner) digits() int {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i - start
}

// Uint64 reads a number that is written as a natural number below 2^64.
func (s *Scanner) Uint64() (uint64, error) {
	if s.Kind() != Number {
		return 0, s.fail("a natural number")
	}
	at := s.i
	text, err := s.Number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, &Error{Offset: at, Found: clipText(text), Want: "a natural number below 2^64"}
	}
	return n, nil
}

// Bool reads true or false.
func (s *Scanner) Bool() (bool, error) {
	switch {
	case s.literal("true"):
		return true, nil
	case s.literal("false"):
		return false, nil
	}
	return false, s.fail("true or false")
}

// Null reads null.
func (s *Scanner) Null() error {
	if s.literal("null") {
		return nil
	}
	return s.fail("null")
}

// NonFinite reads NaN, Infinity or -Infinity and gives that word.
func (s *Scanner) NonFinite() (string, error) {
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if s.literal(word) {
			return word, nil
		}
	}
	return "", s.fail("a value")
}

// literal consumes word if it is next. What may follow it is checked by whoever reads on: a comma, a bracket.
func (s *Scanner) literal(word string) bool {
	if i := s.Offset(); len(s.b)-i >= len(word) && string(s.b[i:i+len(word)]) == word {
		s.i += len(word)
		return true
	}
	return false
}

// Skip reads one value of any kind, checks it, and keeps nothing. NaN and its kin are errors.
func (s *Scanner) Skip() error {
	var err error
	switch s.Kind() {
	case Null:
		err = s.Null()
	case Bool:
		_, err = s.Bool()
	case Number:
		_, err = s.Number()
	case String:
		_, err = s.String()
	case Array:
		err = s.Array(func(int) error { return s.Skip() })
	case Object:
		err = s.Object(func(string) error { return s.Skip() })
	default:
		err = s.fail("a value")
	}
	return err
}

func clipText(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}
