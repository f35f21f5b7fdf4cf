package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Jinja's tojson in transformers is Python's json.dumps(x, ensure_ascii=False): keys in their order, ", " and ": " between,
// numbers as Python writes them. encoding/json would sort keys, escape < > & and keep the spelling of numbers.

// pyObject keeps the order of its keys, as a Python dict: a key that comes again changes the value at its first place.
type pyObject []pyMember

type pyMember struct {
	key   string
	value any // pyObject, []any, string, json.Number, bool, nil
}

// pythonJSON is json.dumps(json.loads(raw), ensure_ascii=False).
func pythonJSON(raw []byte) (string, error) {
	v, err := parsePython(raw)
	if err != nil {
		return "", err
	}
	return string(appendPython(nil, v)), nil
}

func parsePython(raw []byte) (any, error) {
	if !json.Valid(raw) { // Decoder.Token alone is lenient
		return nil, errors.New("it is not valid")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return pyValue(d, 0)
}

func pyValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels of nesting", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := pyValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	case json.Delim('{'):
		object := pyObject{}
		place := map[string]int{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := pyValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			k := key.(string)
			if i, ok := place[k]; ok {
				object[i].value = v
				continue
			}
			place[k] = len(object)
			object = append(object, pyMember{k, v})
		}
		_, err = d.Token()
		return object, err
	}
	return token, nil
}

func appendPython(b []byte, v any) []byte {
	switch v := v.(type) {
	case pyObject:
		b = append(b, '{')
		for i, m := range v {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(appendPyString(b, m.key), ": "...)
			b = appendPython(b, m.value)
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, x := range v {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendPython(b, x)
		}
		return append(b, ']')
	case string:
		return appendPyString(b, v)
	case json.Number:
		return append(b, pyNumber(v, false)...)
	case bool:
		return strconv.AppendBool(b, v)
	}
	return append(b, "null"...)
}

func appendPyString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		default:
			if c < 0x20 {
				b = fmt.Appendf(b, `\u%04x`, c)
			} else {
				b = append(b, c)
			}
		}
	}
	return append(b, '"')
}

// pyNumber is the number as Python holds it: an int keeps its digits, a float gets repr's shortest form, with an exponent
// from 1e16 on and below 1e-4. display is str() rather than json.dumps: they differ for infinity only.
func pyNumber(n json.Number, display bool) string {
	s := string(n)
	if !strings.ContainsAny(s, ".eE") {
		if s == "-0" {
			return "0"
		}
		return s
	}
	f, _ := strconv.ParseFloat(s, 64) // out of range gives an infinity, as in Python
	if math.IsInf(f, 0) {
		text := "Infinity"
		if display {
			text = "inf"
		}
		if f < 0 {
			return "-" + text
		}
		return text
	}
	e := strconv.FormatFloat(f, 'e', -1, 64)
	exp, _ := strconv.Atoi(e[strings.IndexByte(e, 'e')+1:])
	if exp < -4 || exp >= 16 {
		return e
	}
	s = strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
