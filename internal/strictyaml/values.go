package strictyaml

import (
	"github.com/goccy/go-yaml/ast"

	"sibyl/internal/inputerr"
)

// Scalar is a value as it is written ("010" stays "010"), with its line for messages.
type Scalar struct {
	Text string
	Line int
}

// UnmarshalYAML accepts text, numbers, true and false.
func (s *Scalar) UnmarshalYAML(n ast.Node) error {
	text, line, ok := scalar(n)
	if !ok {
		return wrong(n, "one value")
	}
	*s = Scalar{text, line}
	return nil
}

// List is one value or a list of them.
type List []Scalar

// UnmarshalYAML accepts a value or a list of values.
func (l *List) UnmarshalYAML(n ast.Node) error {
	items := []ast.Node{n}
	if seq, ok := n.(*ast.SequenceNode); ok {
		items = seq.Values
	}
	*l = make(List, 0, len(items))
	for _, item := range items {
		text, line, ok := scalar(item)
		if !ok {
			return wrong(item, "a value or a list of values")
		}
		*l = append(*l, Scalar{text, line})
	}
	return nil
}

// Pair is a key with its value.
type Pair struct{ Key, Value Scalar }

// Map is keys with values in the order of the file, whatever the keys are.
type Map []Pair

// UnmarshalYAML accepts keys with values that are no lists.
func (m *Map) UnmarshalYAML(n ast.Node) error {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = append(values, n)
	default:
		return wrong(n, "keys with values")
	}
	*m = make(Map, 0, len(values))
	for _, v := range values {
		key, line, _ := scalar(v.Key) // checkTree has refused other keys
		text, valueLine, ok := scalar(v.Value)
		if !ok {
			return wrong(v.Value, "one value for "+inputerr.Clip(key, 60))
		}
		*m = append(*m, Pair{Scalar{key, line}, Scalar{text, valueLine}})
	}
	return nil
}

func wrong(n ast.Node, want string) error {
	return &lineError{lineOf(n), inputerr.Error{Found: found(n), Want: want, Do: "correct the text"}}
}

func found(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	}
	text, _, _ := scalar(n)
	return inputerr.Clip(text, 60)
}
