package tokenizer

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"sibyl/internal/inputerr"
)

// maxDepth bounds nesting; a real tokenizer.json has 5 levels.
const maxDepth = 64

// scanner reads JSON in one pass and in place. encoding/json takes about a second for the 400,000 strings of a
// tokenizer.json; this takes a tenth of that. It checks what it reads (RFC 8259, valid UTF-8, no lone surrogate), reports
// the byte where it fails, and allocates only for strings with escapes.
//
// The first error sticks: every method returns at once after it, so callers may check err at the end of a loop.
type scanner struct {
	data []byte
	at   int
	err  *inputerr.Error
	buf  []byte
}

func (s *scanner) fail(found, want string) {
	if s.err == nil {
		s.err = &inputerr.Error{Field: fmt.Sprintf("byte %d", s.at), Found: found, Want: want,
			Do: "the file is damaged or not JSON; fetch it again"}
	}
}

// peek skips white space and returns the next byte, 0 at the end or after an error.
func (s *scanner) peek() byte {
	if s.err != nil {
		return 0
	}
	for ; s.at < len(s.data); s.at++ {
		switch c := s.data[s.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// expect takes the byte c.
func (s *scanner) expect(c byte, where string) bool {
	if s.peek() != c || s.at == len(s.data) {
		s.fail(s.here(), fmt.Sprintf("%q %s", c, where))
		return false
	}
	s.at++
	return true
}

// here describes what is at the current place.
func (s *scanner) here() string {
	if s.at >= len(s.data) {
		return "the end of the file"
	}
	return inputerr.Clip(string(s.data[s.at:min(len(s.data), s.at+1)]), 8)
}

// object calls f for each key, with the scanner at its value. The key is valid until the next string is read.
func (s *scanner) object(f func(key []byte)) {
	if !s.expect('{', "to begin an object") {
		return
	}
	if s.peek() == '}' {
		s.at++
		return
	}
	for s.err == nil {
		if s.peek() != '"' {
			s.fail(s.here(), "a key in quotes")
			return
		}
		key := s.str()
		if !s.expect(':', "after a key") {
			return
		}
		f(key)
		if s.peek() == ',' {
			s.at++
			continue
		}
		s.expect('}', "or ',' after a member")
		return
	}
}

// array calls f for each element, with the scanner at it.
func (s *scanner) array(f func()) {
	if !s.expect('[', "to begin an array") {
		return
	}
	if s.peek() == ']' {
		s.at++
		return
	}
	for s.err == nil {
		f()
		if s.peek() == ',' {
			s.at++
			continue
		}
		s.expect(']', "or ',' after an element")
		return
	}
}

// str reads a string. The result is a slice of the file, or of a buffer that the next string with escapes overwrites.
func (s *scanner) str() []byte {
	if s.peek() != '"' || s.err != nil {
		s.fail(s.here(), "a string")
		return nil
	}
	s.at++
	begin := s.at
	high := false
	for ; s.at < len(s.data); s.at++ {
		switch c := s.data[s.at]; {
		case c == '"':
			out := s.data[begin:s.at]
			if high && !utf8.Valid(out) {
				s.at = begin
				s.fail("a string that is not UTF-8", "UTF-8")
				return nil
			}
			s.at++
			return out
		case c == '\\':
			return s.escaped(begin)
		case c < 0x20:
			s.fail(fmt.Sprintf("the control character 0x%02x in a string", c), "an escape")
			return nil
		case c >= utf8.RuneSelf:
			high = true
		}
	}
	s.fail("the end of the file", "the end of a string")
	return nil
}

// escaped goes on with a string whose first escape is at s.at.
func (s *scanner) escaped(begin int) []byte {
	s.buf = append(s.buf[:0], s.data[begin:s.at]...)
	for s.at < len(s.data) {
		c := s.data[s.at]
		switch {
		case c == '"':
			s.at++
			if !utf8.Valid(s.buf) {
				s.fail("a string that is not UTF-8", "UTF-8")
				return nil
			}
			return s.buf
		case c < 0x20:
			s.fail(fmt.Sprintf("the control character 0x%02x in a string", c), "an escape")
			return nil
		case c != '\\':
			s.buf = append(s.buf, c)
			s.at++
			continue
		}
		s.at++
		if s.at == len(s.data) {
			break
		}
		c = s.data[s.at]
		s.at++
		switch c {
		case '"', '\\', '/':
			s.buf = append(s.buf, c)
		case 'b':
			s.buf = append(s.buf, '\b')
		case 'f':
			s.buf = append(s.buf, '\f')
		case 'n':
			s.buf = append(s.buf, '\n')
		case 'r':
			s.buf = append(s.buf, '\r')
		case 't':
			s.buf = append(s.buf, '\t')
		case 'u':
			r := s.hex4()
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if s.at+1 < len(s.data) && s.data[s.at] == '\\' && s.data[s.at+1] == 'u' {
					s.at += 2
					low = s.hex4()
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					s.fail("half of a surrogate pair", "a character")
				}
			}
			if s.err != nil {
				return nil
			}
			s.buf = utf8.AppendRune(s.buf, r)
		default:
			s.at--
			s.fail("the escape \\"+string(rune(c)), `one of \" \\ \/ \b \f \n \r \t \u`)
			return nil
		}
	}
	s.fail("the end of the file", "the end of a string")
	return nil
}

func (s *scanner) hex4() rune {
	if s.at+4 > len(s.data) {
		s.fail("the end of the file", "four hexadecimal digits")
		return 0
	}
	n, err := strconv.ParseUint(string(s.data[s.at:s.at+4]), 16, 16)
	if err != nil {
		s.fail(inputerr.Clip(string(s.data[s.at:s.at+4]), 8), "four hexadecimal digits")
		return 0
	}
	s.at += 4
	return rune(n)
}

// id reads an integer from 0 to 2^31-1 and nothing else: no sign, fraction or exponent.
func (s *scanner) id() int32 {
	s.peek()
	begin, n := s.at, int64(0)
	for ; s.at < len(s.data) && s.data[s.at] >= '0' && s.data[s.at] <= '9' && s.at-begin < 11; s.at++ {
		n = n*10 + int64(s.data[s.at]-'0')
	}
	more := s.at < len(s.data) && (s.data[s.at] == '.' || s.data[s.at]|0x20 == 'e')
	if s.at == begin || n > 1<<31-1 || more || s.data[begin] == '0' && s.at > begin+1 {
		end := s.at + 1
		s.at = begin
		s.fail(inputerr.Clip(string(s.data[min(begin, len(s.data)):min(end, len(s.data))]), 16), "an id: an integer from 0 to 2147483647")
		return -1
	}
	return int32(n)
}

func (s *scanner) word(w string) {
	if len(s.data)-s.at < len(w) || string(s.data[s.at:s.at+len(w)]) != w {
		s.fail(s.here(), w)
		return
	}
	s.at += len(w)
}

// skip passes over one value of any kind, checking it, and returns its text.
func (s *scanner) skip(depth int) []byte {
	c := s.peek()
	begin := s.at
	if depth > maxDepth {
		s.fail(fmt.Sprintf("more than %d levels of nesting", maxDepth), "at most that")
		return nil
	}
	switch {
	case c == '{':
		s.object(func([]byte) { s.skip(depth + 1) })
	case c == '[':
		s.array(func() { s.skip(depth + 1) })
	case c == '"':
		s.str()
	case c == 't':
		s.word("true")
	case c == 'f':
		s.word("false")
	case c == 'n':
		s.word("null")
	case c == '-' || c >= '0' && c <= '9':
		s.number()
	default:
		s.fail(s.here(), "a value")
	}
	if s.err != nil {
		return nil
	}
	return s.data[begin:s.at]
}

func (s *scanner) number() {
	digits := func() bool {
		begin := s.at
		for s.at < len(s.data) && s.data[s.at] >= '0' && s.data[s.at] <= '9' {
			s.at++
		}
		return s.at > begin
	}
	at := func(set string) bool {
		for i := range len(set) {
			if s.at < len(s.data) && s.data[s.at] == set[i] {
				s.at++
				return true
			}
		}
		return false
	}
	at("-")
	ok := at("0") || digits()
	if ok && at(".") {
		ok = digits()
	}
	if ok && at("eE") {
		at("+-")
		ok = digits()
	}
	if !ok {
		s.fail(s.here(), "a number")
	}
}

// end checks that nothing follows the value.
func (s *scanner) end() {
	if s.peek(); s.err == nil && s.at < len(s.data) {
		s.fail(s.here(), "the end of the file after the value")
	}
}
