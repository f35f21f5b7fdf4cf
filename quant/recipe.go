package quant

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"sibyl/internal/inputerr"
)

// A recipe is a scheme in YAML:
//
//	name: head-eight              # what it is called in output; optional
//	rest: fp16                    # what no rule matches, and what is never quantized: fp16, bf16 or stored
//	rules:                        # the first that matches a tensor wins
//	  - match: ["layers.0.*_proj*", "layers.1.*_proj*"]
//	    scheme: fp16
//	  - match: "*_proj*"
//	    scheme: int8              # fp16, bf16, stored, int8, int4 or u4-minval
//	    block: 32                 # elements that share a scale
//	    axis: 1                   # blocks run along the input (1) or the output (0) of [out, in]
//	    mode: clipping            # or symmetric; of int8 and int4
//
// A pattern matches a tensor's role ("self_attn.q_proj.weight", "lm_head.weight") or its name with the layer
// ("layers.3.self_attn.q_proj.weight"), each also without ".weight", with the wildcards of path.Match. Routed experts are matched by
// their packed names ("mlp.experts.gate_up_proj"). A tied head that no rule matches is the embedding's.

const (
	// The YAML parser takes quadratic time in nesting, within a line most of all ("[[[[", "- - - -"): these bounds
	// keep the worst text that passes them below a second.
	maxRecipe = 1 << 16
	maxLine   = 1 << 10
	maxOpen   = 1 << 11 // brackets and braces
	maxRules  = 1 << 10
	maxMatch  = 1 << 8  // bytes of a pattern
	maxBlock  = 1 << 20 // no axis of any model is longer
)

// recipeFile is the YAML. Absence is told from zero, because nothing here has a default.
type recipeFile struct {
	Name  string       `yaml:"name"`
	Rest  *string      `yaml:"rest"`
	Rules []recipeRule `yaml:"rules"`
}

type recipeRule struct {
	Match  patterns `yaml:"match"`
	Scheme *string  `yaml:"scheme"`
	Block  *int     `yaml:"block"`
	Axis   *int     `yaml:"axis"`
	Mode   *string  `yaml:"mode"`
}

// patterns is one glob or a list of them.
type patterns []string

// UnmarshalYAML accepts a string or a list of strings.
func (p *patterns) UnmarshalYAML(decode func(any) error) error {
	var one string
	if decode(&one) == nil {
		*p = patterns{one}
		return nil
	}
	var many []string
	err := decode(&many)
	*p = many
	return err
}

// rule is a recipe's rule once it is checked.
type rule struct {
	match patterns
	spec  Spec
}

// LoadRecipe reads a recipe's file. Bad input gives an *inputerr.Error.
func LoadRecipe(file string) (*Scheme, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, &inputerr.Error{File: file, Err: err, Do: "give the path of a recipe (YAML)"}
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxRecipe+1))
	if err != nil {
		return nil, &inputerr.Error{File: file, Err: err, Do: "give the path of a recipe (YAML)"}
	}
	return ParseRecipe(file, text)
}

// ParseRecipe reads a recipe; file is for messages. Unknown and repeated keys, anchors and aliases are errors, and
// nothing is defaulted. Bad input gives an *inputerr.Error.
func ParseRecipe(file string, text []byte) (*Scheme, error) {
	if err := bounded(file, text); err != nil {
		return nil, err
	}
	if err := plainYAML(file, text); err != nil {
		return nil, err
	}
	var r recipeFile
	err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&r)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &inputerr.Error{File: file, Found: yamlText(err), Want: "a recipe: name, rest, rules", Do: "quote patterns that begin with *"}
	}
	digest := sha256.Sum256(text)
	s := &Scheme{Name: r.Name, Meaning: "a recipe", File: file, SHA256: hex.EncodeToString(digest[:])}
	if s.Name == "" {
		s.Name = "recipe:" + filepath.Base(file)
	}
	if len(s.Name) > maxMatch || strings.ContainsFunc(s.Name, unicode.IsControl) {
		return nil, &inputerr.Error{File: file, Field: "name", Found: inputerr.Clip(s.Name, 60), Want: fmt.Sprintf("at most %d bytes on one line", maxMatch), Do: "choose a shorter name"}
	}
	if s.Rest, err = r.rest(file); err != nil {
		return nil, err
	}
	if len(r.Rules) == 0 || len(r.Rules) > maxRules {
		return nil, &inputerr.Error{File: file, Field: "rules", Found: fmt.Sprint(len(r.Rules)), Want: fmt.Sprintf("1 to %d rules", maxRules), Do: "add a rule: match, scheme, block, axis, mode"}
	}
	for i, rr := range r.Rules {
		checked, err := rr.check(file, fmt.Sprintf("rules[%d]", i))
		if err != nil {
			return nil, err
		}
		s.rules = append(s.rules, checked)
	}
	return s, nil
}

// bounded refuses what no recipe needs and the parser is slow at.
func bounded(file string, text []byte) error {
	e := &inputerr.Error{File: file, Want: "a recipe", Do: "is this the file you mean? long lists go one entry a line"}
	open := 0
	for i, line := range bytes.Split(text, []byte("\n")) {
		if open += bytes.Count(line, []byte("[")) + bytes.Count(line, []byte("{")); len(line) > maxLine {
			e.Found = fmt.Sprintf("%d bytes in line %d", len(line), i+1)
			e.Want = fmt.Sprintf("lines of at most %d", maxLine)
			return e
		}
	}
	if len(text) > maxRecipe || open > maxOpen {
		e.Found = fmt.Sprintf("more than %d bytes or %d brackets", maxRecipe, maxOpen)
		return e
	}
	return nil
}

// plainYAML refuses anchors and aliases: a pattern that begins with * and is not quoted is one, and they can make a
// small file large.
func plainYAML(file string, text []byte) error {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return &inputerr.Error{File: file, Found: yamlText(err), Want: "YAML", Do: "quote patterns that begin with *"}
	}
	var v refuseAliases
	for _, doc := range tree.Docs {
		if doc.Body != nil {
			ast.Walk(&v, doc.Body)
		}
	}
	switch {
	case v.found != "":
		return &inputerr.Error{File: file, Found: v.found, Want: "plain YAML", Do: "quote patterns that begin with * or &"}
	case len(tree.Docs) > 1:
		return &inputerr.Error{File: file, Found: fmt.Sprintf("%d documents", len(tree.Docs)), Want: "one", Do: "put each recipe into a file of its own"}
	}
	return nil
}

type refuseAliases struct{ found string }

// Visit implements ast.Visitor.
func (v *refuseAliases) Visit(n ast.Node) ast.Visitor {
	switch n.(type) {
	case *ast.AliasNode, *ast.AnchorNode, *ast.MergeKeyNode, *ast.TagNode:
		v.found = "an alias, an anchor or a tag"
		if t := n.GetToken(); t != nil && t.Position != nil {
			v.found += fmt.Sprintf(" in line %d", t.Position.Line)
		}
		return nil
	}
	return v
}

// yamlText is the parser's message in one line, without its drawing of the place.
func yamlText(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return inputerr.Clip(text, 200)
}

// rest reads what unmatched tensors get.
func (r *recipeFile) rest(file string) (Spec, error) {
	e := &inputerr.Error{File: file, Field: "rest", Found: "nothing", Want: "fp16, bf16 or stored", Do: "say what becomes of tensors that no rule matches"}
	if r.Rest == nil {
		return Spec{}, e
	}
	f, ok := parseFormat(*r.Rest)
	if !ok || f.Quantized() {
		e.Found = inputerr.Clip(*r.Rest, 40)
		return Spec{}, e
	}
	return Spec{Format: f}, nil
}

// check judges a rule by itself.
func (r *recipeRule) check(file, field string) (rule, error) {
	fail := func(key, found, want, do string) (rule, error) {
		return rule{}, &inputerr.Error{File: file, Field: field + "." + key, Found: found, Want: want, Do: do}
	}
	if len(r.Match) == 0 || len(r.Match) > maxRules {
		return fail("match", fmt.Sprintf("%d patterns", len(r.Match)), "one or more", `name a role or a tensor: "*.q_proj.weight"`)
	}
	for _, p := range r.Match {
		if _, err := path.Match(p, "x"); err != nil || p == "" || len(p) > maxMatch {
			return fail("match", inputerr.Clip(p, 60), "a pattern with * ? [a-z]", "see that brackets are closed")
		}
	}
	if r.Scheme == nil {
		return fail("scheme", "nothing", "fp16, bf16, stored, int8, int4 or u4-minval", "say what becomes of the tensors")
	}
	spec := Spec{}
	var ok bool
	if spec.Format, ok = parseFormat(*r.Scheme); !ok {
		return fail("scheme", inputerr.Clip(*r.Scheme, 40), "fp16, bf16, stored, int8, int4 or u4-minval", "a rule names a format; block, axis and mode make it a scheme")
	}
	if !spec.Format.Quantized() {
		if r.Block != nil || r.Axis != nil || r.Mode != nil {
			return fail("scheme", spec.Format.String()+" with block, axis or mode", spec.Format.String()+" alone", "remove them: it has no blocks")
		}
		return rule{r.Match, spec}, nil
	}
	if r.Block == nil || *r.Block < 1 || *r.Block > maxBlock {
		return fail("block", number(r.Block), fmt.Sprintf("1 to %d", maxBlock), "the named schemes have blocks of 32")
	}
	if r.Axis == nil || *r.Axis != 0 && *r.Axis != 1 {
		return fail("axis", number(r.Axis), "1 (input) or 0 (output)", "the named schemes have axis 1")
	}
	spec.Block, spec.Axis = *r.Block, *r.Axis
	mode := ""
	if r.Mode != nil {
		mode = *r.Mode
	}
	switch {
	case spec.Format == U4 && r.Mode != nil:
		return fail("mode", inputerr.Clip(mode, 40), "nothing", "u4-minval has one mode: remove it")
	case spec.Format == U4:
	case mode != "clipping" && mode != "symmetric":
		return fail("mode", inputerr.Clip(mode, 40), "clipping or symmetric", "the named schemes clip, but for the head of int8hu-sym")
	}
	spec.Symmetric = mode == "symmetric"
	return rule{r.Match, spec}, nil
}

func number(n *int) string {
	if n == nil {
		return "nothing"
	}
	return fmt.Sprint(*n)
}
