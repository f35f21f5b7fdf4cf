// Package strictyaml reads YAML that a person wrote by hand: a contract, a recipe, tolerances, a sweep. What could be
// misread is refused and named with its line: unknown and doubled keys, keys without a value, anchors, aliases and
// tags, a second document.
//
// goccy/go-yaml 1.19.2 panics on some malformed text, and its time grows with the square of nesting (64 KiB of open
// brackets: 17 s). So the text is bounded, its tokens are judged before they are parsed, and a panic is bad input.
package strictyaml

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"sibyl/internal/inputerr"
	"sibyl/internal/near"
	"sibyl/internal/userfile"
)

// MaxBytes bounds a text: a rule for every tensor of a 64-layer model fits. MaxDepth bounds its nesting.
const (
	MaxBytes = 64 << 10
	MaxDepth = 32
)

// At is the name of a line of a file in messages.
func At(file string, line int) string { return fmt.Sprintf("%s:%d", file, line) }

// Read reads a file into the struct that to points at, as Parse does. what says what the file holds: "a contract".
func Read(file, what string, to any) error {
	bad := func(err error) error {
		return &inputerr.Error{File: file, Err: err, Do: "give the path of a YAML file with " + what}
	}
	f, err := userfile.Open(file)
	if err != nil {
		return userfile.Fault(file, "give the path of a YAML file with "+what, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return bad(err)
	}
	return Parse(file, what, text, to)
}

// Parse reads a text into the struct that to points at, whose fields carry yaml tags and may be Scalar, List and Map.
// An empty text changes nothing. Bad input gives an *inputerr.Error that begins with file and line.
func Parse(file, what string, text []byte, to any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &inputerr.Error{File: file, Found: "malformed YAML", Want: what, Do: "correct the text",
				Err: errors.New(inputerr.Clip(fmt.Sprint(p), 100))}
		}
	}()
	if err := readable(file, what, text); err != nil {
		return err
	}
	if err := checkTokens(file, string(text)); err != nil {
		return err
	}
	tree, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey()) // checkTree names the doubled key better
	if err != nil {
		return explain(file, err, nil)
	}
	for _, doc := range tree.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.NullType {
			continue
		}
		if err := checkTree(file, doc.Body, 0); err != nil {
			return err
		}
		if err := yaml.NodeToValue(doc.Body, to, yaml.Strict()); err != nil {
			return explain(file, err, to)
		}
	}
	return nil
}

// readable refuses what is no text, before any of it is parsed.
func readable(file, what string, text []byte) error {
	bad := &inputerr.Error{File: file, Want: what + " in YAML, UTF-8, at most " + fmt.Sprint(MaxBytes>>10) + " KiB", Do: "is this the file you mean?"}
	if len(text) > MaxBytes {
		bad.Found = fmt.Sprintf("more than %d KiB", MaxBytes>>10)
		return bad
	}
	if !utf8.Valid(text) {
		bad.Found = "bytes that are not UTF-8"
		return bad
	}
	for i, r := range string(text) {
		if r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f {
			bad.File = At(file, 1+strings.Count(string(text[:i]), "\n"))
			bad.Found = fmt.Sprintf("the control character %U", r)
			return bad
		}
	}
	return nil
}

// lineError is an error of an UnmarshalYAML of this package, which does not know the file.
type lineError struct {
	line int
	text inputerr.Error
}

func (e *lineError) Error() string { return e.text.Error() }

// explain makes an error of the library one of ours: the line, what is there, what was expected.
func explain(file string, err error, to any) error {
	var own *lineError
	if errors.As(err, &own) {
		own.text.File = At(file, own.line)
		return &own.text
	}
	out := &inputerr.Error{File: file, Do: "correct the text"}
	var from yaml.Error
	if !errors.As(err, &from) {
		out.Err = errors.New(firstLine(err.Error()))
		return out
	}
	value := ""
	if t := from.GetToken(); t != nil {
		value = inputerr.Clip(t.Value, 60)
		if t.Position != nil {
			out.File = At(file, t.Position.Line)
		}
	}
	var unknown *yaml.UnknownFieldError
	var wrong *yaml.TypeError
	var tooBig *yaml.OverflowError
	var kind *yaml.UnexpectedNodeTypeError
	switch {
	case errors.As(err, &unknown):
		out.Found, out.Do = "the unknown key "+value, near.DidYouMean(unknown.Token.Value, keys(reflect.TypeOf(to), nil))
	case errors.As(err, &wrong):
		out.Found, out.Want = value, kindOf(wrong.DstType)
	case errors.As(err, &tooBig):
		out.Found, out.Want = inputerr.Clip(tooBig.SrcNum, 60), "a smaller number"
	case errors.As(err, &kind):
		out.Found, out.Want = "a "+kind.Actual.YAMLName(), "a "+kind.Expected.YAMLName()
	default:
		out.Err = errors.New("malformed YAML: " + firstLine(from.GetMessage()))
		out.Do = "quote text that begins with one of * & ! [ { | > % @ or holds a colon"
	}
	return out
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "")
	}
	return s
}

// kindOf names a type as a writer of YAML would.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return kindOf(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Struct, reflect.Map:
		return "keys with values"
	}
	return "a whole number"
}

// keys lists the yaml names of a type and of the types in it, for near names.
func keys(t reflect.Type, out []string) []string {
	for t != nil && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice) {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return out
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
		out = keys(t.Field(i).Type, out)
	}
	return out
}
