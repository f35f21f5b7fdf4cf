package strictjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// skip reads one value and the end.
func skip(text []byte) error {
	s, err := New(text)
	if err != nil {
		return err
	}
	if err := s.Skip(); err != nil {
		return err
	}
	return s.End()
}

// Values that encoding/json takes and this package refuses are marked strict.
var texts = []struct {
	in     string
	ok     bool
	strict bool
}{
	{in: `{}`, ok: true}, {in: ` [ ] `, ok: true}, {in: `{"a":[1,-2.5e+3,"x",null,true,false,{}]}`, ok: true},
	{in: `"\"\\\/\b\f\n\r\t\u00fc\ud83d\ude00"`, ok: true}, {in: `-0`, ok: true}, {in: `0.0`, ok: true}, {in: `1E5`, ok: true},
	{in: ``}, {in: `{`}, {in: `[`}, {in: `[1,]`}, {in: `{"a":1,}`}, {in: `{"a" 1}`}, {in: `{a:1}`}, {in: `[1 2]`}, {in: `01`}, {in: `-`},
	{in: `1.`}, {in: `.5`}, {in: `+1`}, {in: `1e`}, {in: `"a`}, {in: `"\x"`}, {in: `"\u12g4"`}, {in: `"\u12"`}, {in: "\"\x01\""},
	{in: `nul`}, {in: `truefalse`}, {in: `1 1`}, {in: `NaN`}, {in: `[-Infinity]`}, {in: `"\`},
	{in: `{"a":1,"a":1}`, strict: true}, {in: `"\ud800"`, strict: true}, {in: `"\ude00\ud800"`, strict: true}, {in: "\"\xff\"", strict: true},
}

func TestSkipAgreesWithEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range texts {
		err := skip([]byte(tt.in))
		if (err == nil) != tt.ok {
			t.Errorf("Skip(%q) = %v, want ok = %v", tt.in, err, tt.ok)
		}
		if valid := json.Valid([]byte(tt.in)); valid != (tt.ok || tt.strict) {
			t.Errorf("encoding/json says %v of %q: this table is wrong", valid, tt.in)
		}
	}
}

func TestStringsDecodeAsEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range texts {
		if !tt.ok || tt.in[0] != '"' {
			continue
		}
		var want string
		if err := json.Unmarshal([]byte(tt.in), &want); err != nil {
			t.Fatal(err)
		}
		s, err := New([]byte(tt.in))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.String(); err != nil || got != want {
			t.Errorf("String(%s) = %q, %v, want %q", tt.in, got, err, want)
		}
	}
}

func TestOffsets(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in     string
		offset int
	}{
		{`{"a":1,  "a":2}`, 9}, {"\"ab\xff\"", 3}, {`[1,x]`, 3}, {`[1] x`, 4}, {strings.Repeat("[", 1000), MaxDepth},
		{`{"` + strings.Repeat("k", 40) + `":1,` + manyKeys(40) + `"k7":2}`, len(`{"`+strings.Repeat("k", 40)+`":1,`) + len(manyKeys(40))},
	}
	for _, tt := range tests {
		var e *Error
		if err := skip([]byte(tt.in)); !errors.As(err, &e) || e.Offset != tt.offset {
			t.Errorf("Skip(%.40q) = %v, want an error at byte %d", tt.in, err, tt.offset)
		}
	}
}

// manyKeys makes enough members that duplicates are looked up in a map.
func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"k` + string(rune('0'+i/10)) + string(rune('0'+i%10)) + `":0,`)
	}
	return strings.ReplaceAll(b.String(), `"k0`, `"k`)
}

func TestUint64(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]uint64{"0": 0, "18446744073709551615": 1<<64 - 1} {
		s, _ := New([]byte(in))
		if got, err := s.Uint64(); err != nil || got != want {
			t.Errorf("Uint64(%s) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"18446744073709551616", "-1", "1.0", "1e3", "01", `"1"`, "NaN", ""} {
		s, _ := New([]byte(in))
		if got, err := s.Uint64(); err == nil {
			t.Errorf("Uint64(%s) = %d, want an error", in, got)
		}
	}
}

// FuzzSkip: no panic, and what is accepted is JSON to encoding/json too.
func FuzzSkip(f *testing.F) {
	for _, tt := range texts {
		f.Add([]byte(tt.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if skip(b) == nil && !json.Valid(b) {
			t.Fatalf("%q is accepted and is no JSON", b)
		}
	})
}
