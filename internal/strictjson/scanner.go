// Package strictjson reads JSON that somebody else wrote. It differs from encoding/json where that is too kind for
// files whose meaning must not be guessed: a duplicate key, invalid UTF-8, a lone surrogate, NaN and trailing bytes
// are errors, every error says at which byte, and nothing is allocated beyond what the caller asks to keep.
package strictjson

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// MaxDepth is how deeply arrays and objects may nest; real headers and configs stay below ten.
const MaxDepth = 64

// Error says what was found at which byte (0-based) of the text.
type Error struct {
	Offset      int
	Found, Want string
}

// Error prints "byte N: found F, want W".
func (e *Error) Error() string {
	if e.Want == "" {
		return fmt.Sprintf("byte %d: found %s", e.Offset, e.Found)
	}
	return fmt.Sprintf("byte %d: found %s, want %s", e.Offset, e.Found, e.Want)
}

// Kind is what the next value is, judged by its first byte.
type Kind uint8

// The kinds of values. NonFinite is NaN, Infinity or -Infinity, which Python's json module writes although JSON
// does not know them: a kind of its own, so that a caller can name the field.
const (
	Invalid Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
	NonFinite
)

// String names the kind as a reader of a message would: "an object", "a number".
func (k Kind) String() string {
	return [...]string{"no value", "null", "true or false", "a number", "a string", "a list", "an object", "NaN or Infinity"}[k]
}

// Scanner reads one JSON text from front to back. It holds no tree.
type Scanner struct {
	b     []byte
	i     int
	depth int
}

// New starts at the first byte of b, after checking that all of b is UTF-8.
func New(b []byte) (*Scanner, error) {
	if !utf8.Valid(b) {
		i := 0
		for i < len(b) {
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			i += n
		}
		return nil, &Error{Offset: i, Found: fmt.Sprintf("the byte 0x%02x", b[i]), Want: "UTF-8"}
	}
	return &Scanner{b: b}, nil
}

// Offset is the byte the scanner stands at, after white space.
func (s *Scanner) Offset() int {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\r' || s.b[s.i] == '\t') {
		s.i++
	}
	return s.i
}

// Kind looks at the next value without consuming it.
func (s *Scanner) Kind() Kind {
	i := s.Offset()
	if i == len(s.b) {
		return Invalid
	}
	rest := s.b[i:]
	switch c := rest[0]; {
	case c == '{':
		return Object
	case c == '[':
		return Array
	case c == '"':
		return String
	case c == 'n':
		return Null
	case c == 't', c == 'f':
		return Bool
	case c == 'N', c == 'I', bytes.HasPrefix(rest, []byte("-I")):
		return NonFinite
	case c == '-', c >= '0' && c <= '9':
		return Number
	}
	return Invalid
}

// fail describes the next byte against what was wanted.
func (s *Scanner) fail(want string) error {
	i := s.Offset()
	if i == len(s.b) {
		return &Error{Offset: i, Found: "the end of the text", Want: want}
	}
	r, _ := utf8.DecodeRune(s.b[i:])
	return &Error{Offset: i, Found: strconv.QuoteRune(r), Want: want}
}

// byte consumes c or fails.
func (s *Scanner) byte(c byte, want string) error {
	if i := s.Offset(); i == len(s.b) || s.b[i] != c {
		return s.fail(want)
	}
	s.i++
	return nil
}

// is consumes c if it is next.
func (s *Scanner) is(c byte) bool {
	if i := s.Offset(); i < len(s.b) && s.b[i] == c {
		s.i++
		return true
	}
	return false
}

// enter counts one more level of nesting.
func (s *Scanner) enter() error {
	if s.depth++; s.depth > MaxDepth {
		return &Error{Offset: s.i - 1, Found: fmt.Sprintf("more than %d levels of nesting", MaxDepth), Want: "fewer"}
	}
	return nil
}

// Object reads an object. each is called with every key and must consume exactly its value. A key that comes
// twice is an error at its second place.
func (s *Scanner) Object(each func(key string) error) error {
	if err := s.byte('{', "an object"); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer func() { s.depth-- }()
	if s.is('}') {
		return nil
	}
	var seen keySet
	for {
		at := s.Offset()
		key, err := s.String()
		if err != nil {
			return err
		}
		if !seen.add(key) {
			return &Error{Offset: at, Found: "the key " + clip(key) + " a second time", Want: "each key once"}
		}
		if err := s.byte(':', "a colon"); err != nil {
			return err
		}
		if err := each(key); err != nil {
			return err
		}
		if s.is('}') {
			return nil
		}
		if err := s.byte(',', "a comma or }"); err != nil {
			return err
		}
	}
}

// Array reads a list. each is called with every index and must consume exactly that element.
func (s *Scanner) Array(each func(i int) error) error {
	if err := s.byte('[', "a list"); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer func() { s.depth-- }()
	if s.is(']') {
		return nil
	}
	for i := 0; ; i++ {
		if err := each(i); err != nil {
			return err
		}
		if s.is(']') {
			return nil
		}
		if err := s.byte(',', "a comma or ]"); err != nil {
			return err
		}
	}
}

// End checks that only white space is left.
func (s *Scanner) End() error {
	if s.Offset() != len(s.b) {
		return s.fail("the end of the text")
	}
	return nil
}

// keySet finds duplicates: a short list is searched, a long one becomes a map.
type keySet struct {
	list []string
	set  map[string]struct{}
}

func (k *keySet) add(key string) bool {
	if k.set == nil {
		for _, have := range k.list {
			if have == key {
				return false
			}
		}
		if k.list = append(k.list, key); len(k.list) < 32 {
			return true
		}
		k.set = make(map[string]struct{}, 64)
		for _, have := range k.list {
			k.set[have] = struct{}{}
		}
		return true
	}
	if _, dup := k.set[key]; dup {
		return false
	}
	k.set[key] = struct{}{}
	return true
}

// clip quotes a string for a message, shortened to 60 bytes.
func clip(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q...", s[:60])
	}
	return strconv.Quote(s)
}
