package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Write writes t as JSON for people: indented, but for lists of numbers and words, which take one line each.
func (t *Transcript) Write(w io.Writer) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(t); err != nil {
		return fmt.Errorf("writing a transcript: %w", err)
	}
	_, err := w.Write(flatLists(b.Bytes()))
	return err
}

// flatLists puts every list that holds no object on one line.
func flatLists(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		end := 0
		switch b[i] {
		case '"':
			end = stringEnd(b, i)
		case '[':
			end = flatEnd(b, i)
		}
		switch {
		case end == 0:
			out = append(out, b[i])
			i++
		case b[i] == '"':
			out = append(out, b[i:end]...)
			i = end
		default:
			for i < end {
				switch c := b[i]; c {
				case '"':
					stop := stringEnd(b, i)
					out = append(out, b[i:stop]...)
					i = stop
					continue
				case '\n', ' ':
				case ',':
					out = append(out, ", "...)
				default:
					out = append(out, c)
				}
				i++
			}
		}
	}
	return out
}

// stringEnd is where the string that begins at i ends; b is valid JSON.
func stringEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// flatEnd is where the list that begins at i ends, 0 if it holds an object or another list.
func flatEnd(b []byte, i int) int {
	for i++; b[i] != ']'; i++ {
		switch b[i] {
		case '{', '[':
			return 0
		case '"':
			i = stringEnd(b, i) - 1
		}
	}
	return i + 1
}
