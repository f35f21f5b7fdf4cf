package tokenizer

import "unicode/utf8"

// StreamDecoder decodes token by token and never splits a character: bytes that may still become one are held back. What
// Add and Flush return, joined, equals Decode of all the ids.
type StreamDecoder struct {
	t           *Tokenizer
	skipSpecial bool
	held        []byte // a proper prefix of one character, at most 3 bytes
}

// NewStreamDecoder begins a new text. With skipSpecial the tokens marked special give nothing.
func (t *Tokenizer) NewStreamDecoder(skipSpecial bool) *StreamDecoder {
	return &StreamDecoder{t: t, skipSpecial: skipSpecial}
}

// Add takes the next id and returns the text that is now certain, perhaps none. An id outside the vocabulary gives nothing.
func (d *StreamDecoder) Add(id int32) string {
	if !d.t.known(id) || d.skipSpecial && d.t.IsSpecial(id) {
		return ""
	}
	b := append(d.held, d.t.bytes[id]...)
	cut := len(b)
	// An unfinished character can only begin in the last three bytes.
	for i := max(0, len(b)-utf8.UTFMax+1); i < len(b); i++ {
		if !utf8.RuneStart(b[i]) {
			continue
		}
		if n, open := subpart(string(b[i:])); open && i+n == len(b) {
			cut = i
			break
		}
	}
	out := string(AppendLossy(nil, string(b[:cut])))
	d.held = append(d.held[:0], b[cut:]...)
	return out
}

// Flush ends the text: what was held back becomes U+FFFD. The decoder can then take a new text.
func (d *StreamDecoder) Flush() string {
	out := string(AppendLossy(nil, string(d.held)))
	d.held = d.held[:0]
	return out
}
