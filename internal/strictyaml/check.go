package strictyaml

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"

	"sibyl/internal/inputerr"
)

// refusedTokens are forms that no file of ours needs.
var refusedTokens = map[token.Type]string{
	token.AnchorType: "an anchor (&)", token.AliasType: "an alias (*)", token.TagType: "a tag (!)",
	token.MergeKeyType: "a merge key (<<)", token.DirectiveType: "a directive (%)", token.MappingKeyType: "a key after ?",
}

// checkTokens judges the text before it is parsed. The lexer's time grows with the text alone; the parser's with the
// square of nesting, which brackets and "- - -" on one line can make deep. (Nesting by indentation costs its author
// the square of its depth in bytes.)
func checkTokens(file, text string) error {
	bad := func(t *token.Token, found, want, do string) error {
		return &inputerr.Error{File: At(file, t.Position.Line), Found: found, Want: want, Do: do}
	}
	depth, entries, line, headers, seen := 0, 0, 0, 0, false
	for _, t := range lexer.Tokenize(text) {
		if t.Position.Line != line {
			entries, line = 0, t.Position.Line
		}
		if what := refusedTokens[t.Type]; what != "" {
			return bad(t, what, "plain YAML", "quote text that begins with * & ! % or ?")
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			entries++
		case token.DocumentHeaderType:
			if headers++; headers > 1 || seen {
				return bad(t, "a second document (---)", "one", "put it into a file of its own")
			}
		case token.CommentType:
			continue
		}
		seen = seen || t.Type != token.DocumentHeaderType
		if depth > MaxDepth || entries > MaxDepth {
			return bad(t, fmt.Sprintf("lists more than %d deep", MaxDepth), "a few levels", "is this the file you mean?")
		}
	}
	return nil
}

// checkTree refuses doubled keys, keys that are no plain text, and keys and list items without a value.
func checkTree(file string, n ast.Node, depth int) error {
	if depth > 4*MaxDepth {
		return &inputerr.Error{File: At(file, lineOf(n)), Found: "deep nesting", Want: "a few levels", Do: "is this the file you mean?"}
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return checkMapping(file, n.Values, depth)
	case *ast.MappingValueNode:
		return checkMapping(file, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		for _, v := range n.Values {
			if v == nil || v.Type() == ast.NullType {
				return &inputerr.Error{File: At(file, lineOf(n)), Found: "a list item without a value", Want: "a value", Do: "write one or remove the item"}
			}
			if err := checkTree(file, v, depth+1); err != nil {
				return err
			}
		}
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.DirectiveNode, *ast.MergeKeyNode:
		return &inputerr.Error{File: At(file, lineOf(n)), Found: "an anchor, alias, tag or directive", Want: "plain YAML", Do: "quote text that begins with * & ! or %"}
	}
	return nil
}

func checkMapping(file string, values []*ast.MappingValueNode, depth int) error {
	first := make(map[string]int, len(values))
	for _, v := range values {
		key, line, ok := scalar(v.Key)
		if !ok {
			return &inputerr.Error{File: At(file, line), Found: "a key that is no plain text", Want: "key: value", Do: "correct the text"}
		}
		if at, doubled := first[key]; doubled {
			return &inputerr.Error{File: At(file, line), Field: inputerr.Clip(key, 60), Found: fmt.Sprintf("the key again, after line %d", at),
				Want: "each key once", Do: "remove one of them"}
		}
		first[key] = line
		if v.Value == nil || v.Value.Type() == ast.NullType {
			return &inputerr.Error{File: At(file, line), Field: inputerr.Clip(key, 60), Found: "no value", Want: "one after the colon",
				Do: "write a value or remove the key; inside { } a comma ends a value: quote it"}
		}
		if err := checkTree(file, v.Value, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// scalar gives the text of a plain or quoted value as it is written, and its line.
func scalar(n ast.Node) (text string, line int, ok bool) {
	line = lineOf(n)
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, line, true
	case *ast.LiteralNode:
		return n.Value.Value, line, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, line, true
	}
	return "", line, false
}

func lineOf(n ast.Node) int {
	if n == nil {
		return 0
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}
