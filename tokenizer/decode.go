package tokenizer

import "unicode/utf8"

// Decode turns ids into text. Bytes that are not UTF-8 become U+FFFD, one for each maximal subpart, as in Rust's
// from_utf8_lossy and Python's errors="replace". Ids outside the vocabulary are left out, as in the Rust library: a model's
// padded head may emit them. Use DecodeChecked where that must not pass unseen.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	var b []byte
	for _, id := range ids {
		if t.known(id) && !(skipSpecial && t.IsSpecial(id)) {
			b = append(b, t.bytes[id]...)
		}
	}
	return string(AppendLossy(nil, string(b)))
}

// DecodeChecked is Decode, but an id outside the vocabulary is an error that names it.
func (t *Tokenizer) DecodeChecked(ids []int32, skipSpecial bool) (string, error) {
	if err := t.CheckIDs(ids); err != nil {
		return "", err
	}
	return t.Decode(ids, skipSpecial), nil
}

// AppendLossy appends s to dst with U+FFFD in place of each maximal subpart of an ill-formed sequence (The Unicode
// Standard, 3.9, "U+FFFD Substitution of Maximal Subparts"). Go's own conversions put one for each byte, or for each run.
func AppendLossy(dst []byte, s string) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r != utf8.RuneError || n > 1 {
			dst = append(dst, s[:n]...)
			s = s[n:]
			continue
		}
		n, _ = subpart(s)
		dst = append(dst, "\uFFFD"...)
		s = s[n:]
	}
	return dst
}

// subpart is the length of the maximal subpart at the start of s, which begins with an ill-formed sequence: the longest
// prefix some well-formed character begins with, at least one byte. open says that s ends there, so that more bytes could
// still complete the character.
func subpart(s string) (n int, open bool) {
	var need int
	lo, hi := byte(0x80), byte(0xBF) // of the second byte (table 3-7 of the standard)
	switch b := s[0]; {
	case b >= 0xC2 && b <= 0xDF:
		need = 2
	case b >= 0xE0 && b <= 0xEF:
		need = 3
		if b == 0xE0 {
			lo = 0xA0
		} else if b == 0xED {
			hi = 0x9F
		}
	case b >= 0xF0 && b <= 0xF4:
		need = 4
		if b == 0xF0 {
			lo = 0x90
		} else if b == 0xF4 {
			hi = 0x8F
		}
	default:
		return 1, false
	}
	for n = 1; n < need; n++ {
		if n == len(s) {
			return n, true
		}
		if s[n] < lo || s[n] > hi {
			return n, false
		}
		lo, hi = 0x80, 0xBF
	}
	return n, false
}
