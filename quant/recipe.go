package quant

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"sibyl/internal/inputerr"
	"sibyl/internal/near"
	"sibyl/internal/strictyaml"
	"sibyl/internal/userfile"
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
// ("layers.3.self_attn.q_proj.weight"), each also without ".weight", with the wildcards of path.Match. Routed experts
// are matched by their packed names ("mlp.experts.gate_up_proj"). A tied head that no rule matches is the embedding's.

const (
	maxRules = 1 << 10
	maxMatch = 1 << 8  // bytes of a pattern
	maxBlock = 1 << 20 // no axis of any model is longer
)

// recipeFile is the YAML. A value that is absent has no line: nothing here has a default.
type recipeFile struct {
	Name  strictyaml.Scalar `yaml:"name"`
	Rest  strictyaml.Scalar `yaml:"rest"`
	Rules []recipeRule      `yaml:"rules"`
}

type recipeRule struct {
	Match  strictyaml.List   `yaml:"match"`
	Scheme strictyaml.Scalar `yaml:"scheme"`
	Block  strictyaml.Scalar `yaml:"block"`
	Axis   strictyaml.Scalar `yaml:"axis"`
	Mode   strictyaml.Scalar `yaml:"mode"`
}

// rule is a recipe's rule once it is checked.
type rule struct {
	match strictyaml.List
	spec  Spec
}

// Rule is what a recipe says of the tensors that its patterns match.
type Rule struct {
	Match []string
	Spec  Spec
}

// Rules lists a recipe's rules, the first that matches a tensor wins; nil for a named scheme.
func (s *Scheme) Rules() []Rule {
	var out []Rule
	for _, r := range s.rules {
		var match []string
		for _, p := range r.match {
			match = append(match, p.Text)
		}
		out = append(out, Rule{match, r.spec})
	}
	return out
}

// Label is what output calls the scheme. A recipe's says which file, and the start of the sha256 of its text: two results
// under the same label were made by the same recipe.
func (s *Scheme) Label() string {
	if s.File == "" {
		return s.Name
	}
	name := s.Name + " (recipe " + filepath.Base(s.File)
	if s.Name == "recipe:"+filepath.Base(s.File) { // it has no name of its own
		name = s.Name + " ("
	} else {
		name += ", "
	}
	return fmt.Sprintf("%ssha256 %.12s)", name, s.SHA256)
}

// LoadRecipe reads a recipe's file. Bad input gives an *inputerr.Error.
func LoadRecipe(file string) (*Scheme, error) {
	bad := func(err error) error {
		return &inputerr.Error{File: file, Err: err, Do: "give the path of a recipe (YAML)"}
	}
	f, err := userfile.Open(file)
	if err != nil {
		return nil, userfile.Fault(file, "give the path of a recipe (YAML)", err)
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if err != nil {
		return nil, bad(err)
	}
	return ParseRecipe(file, text)
}

// ParseRecipe reads a recipe; file is for messages. Unknown and repeated keys, anchors and aliases are errors, and
// nothing is defaulted. Bad input gives an *inputerr.Error.
func ParseRecipe(file string, text []byte) (*Scheme, error) {
	var r recipeFile
	if err := strictyaml.Parse(file, "a recipe", text, &r); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(text)
	s := &Scheme{Name: r.Name.Text, Meaning: "a recipe", File: file, SHA256: hex.EncodeToString(digest[:])}
	if r.Name.Line == 0 {
		s.Name = "recipe:" + filepath.Base(file)
	}
	if s.Name == "" || len(s.Name) > maxMatch || strings.ContainsFunc(s.Name, unicode.IsControl) || slices.Contains(Names(), s.Name) {
		return nil, refuse(file, "name", strictyaml.Scalar{Text: s.Name, Line: r.Name.Line}, fmt.Sprintf("one line of at most %d bytes, not a named scheme's", maxMatch),
			"choose another: results carry it")
	}
	rest, ok := parseFormat(r.Rest.Text)
	if !ok || rest.Quantized() {
		return nil, refuse(file, "rest", r.Rest, "fp16, bf16 or stored", "say what becomes of tensors that no rule matches")
	}
	s.Rest = Spec{Format: rest}
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

// refuse is an error at a value's line, or about its absence.
func refuse(file, field string, s strictyaml.Scalar, want, do string) error {
	e := &inputerr.Error{File: file, Field: field, Found: "nothing", Want: want, Do: do}
	if s.Line > 0 {
		e.File, e.Found = strictyaml.At(file, s.Line), inputerr.Clip(s.Text, 60)
	}
	return e
}

// line is where a rule stands, 0 if it says nothing.
func (r *recipeRule) line() int {
	for _, s := range append(r.Match, r.Scheme, r.Block, r.Axis, r.Mode) {
		if s.Line > 0 {
			return s.Line
		}
	}
	return 0
}

// check judges a rule by itself.
func (r *recipeRule) check(file, field string) (rule, error) {
	fail := func(key string, s strictyaml.Scalar, want, do string) (rule, error) {
		if s.Line == 0 && r.line() > 0 { // a value that is not there: where the rule begins
			return rule{}, &inputerr.Error{File: strictyaml.At(file, r.line()), Field: field + "." + key, Found: "nothing", Want: want, Do: do}
		}
		return rule{}, refuse(file, field+"."+key, s, want, do)
	}
	if len(r.Match) == 0 || len(r.Match) > maxRules {
		return fail("match", strictyaml.Scalar{}, fmt.Sprintf("1 to %d patterns", maxRules), `name a role or a tensor: "*.q_proj.weight"`)
	}
	for _, p := range r.Match {
		if _, err := path.Match(p.Text, "x"); err != nil || p.Text == "" || len(p.Text) > maxMatch {
			return fail("match", p, "a pattern with * ? [a-z]", "see that brackets are closed")
		}
	}
	const formats = "fp16, bf16, stored, int8, int4 or u4-minval"
	spec := Spec{}
	var ok bool
	switch spec.Format, ok = parseFormat(r.Scheme.Text); {
	case r.Scheme.Line == 0:
		return fail("scheme", r.Scheme, formats, "say what becomes of the tensors")
	case slices.Contains(Names(), r.Scheme.Text) && !ok:
		return fail("scheme", r.Scheme, formats, "a rule names a format; block, axis and mode make it a scheme")
	case !ok:
		return fail("scheme", r.Scheme, formats, near.DidYouMean(r.Scheme.Text, formatNames()))
	case !spec.Format.Quantized():
		for i, s := range []strictyaml.Scalar{r.Block, r.Axis, r.Mode} {
			if s.Line > 0 {
				return fail([]string{"block", "axis", "mode"}[i], s, "nothing", spec.Format.String()+" has no blocks: remove it")
			}
		}
		return rule{r.Match, spec}, nil
	}
	var err error
	if spec.Block, err = strconv.Atoi(r.Block.Text); err != nil || spec.Block < 1 || spec.Block > maxBlock {
		return fail("block", r.Block, fmt.Sprintf("1 to %d", maxBlock), "the named schemes have blocks of 32")
	}
	if spec.Axis, err = strconv.Atoi(r.Axis.Text); err != nil || spec.Axis != 0 && spec.Axis != 1 {
		return fail("axis", r.Axis, "1 (input) or 0 (output)", "the named schemes have axis 1")
	}
	switch mode := r.Mode.Text; {
	case spec.Format == U4 && r.Mode.Line > 0:
		return fail("mode", r.Mode, "nothing", "u4-minval has one mode: remove it")
	case spec.Format == U4:
	case mode != "clipping" && mode != "symmetric":
		return fail("mode", r.Mode, "clipping or symmetric", "the named schemes clip, but for the head of int8hu-sym")
	default:
		spec.Symmetric = mode == "symmetric"
	}
	return rule{r.Match, spec}, nil
}

// YAML writes a scheme as a recipe that does the same to every model, to start one's own from. A recipe's file is
// lost: what is written has its rules, not its comments.
func (s *Scheme) YAML() string {
	var b strings.Builder
	entry := func(match string, spec Spec) {
		fmt.Fprintf(&b, "  - match: %s\n    scheme: %s\n", match, spec.Format)
		if spec.Format.Quantized() {
			fmt.Fprintf(&b, "    block: %d\n    axis: %d\n", spec.Block, spec.Axis)
			if mode := spec.Mode(); mode != "" {
				fmt.Fprintf(&b, "    mode: %s\n", mode)
			}
		}
	}
	fmt.Fprintf(&b, "rest: %s\nrules:\n", s.Rest.Format)
	if s.rules == nil {
		entry(`"*_proj*"`, s.Body)
		// The head that no rule matches is the embedding's, if it is tied, as both of a kind are.
		if s.Head != s.Rest || s.Embed != s.Rest {
			entry("lm_head", s.Head)
			entry("embed_tokens", s.Embed)
		}
		return b.String()
	}
	for _, r := range s.Rules() {
		for i, p := range r.Match {
			r.Match[i] = strconv.Quote(p)
		}
		entry("["+strings.Join(r.Match, ", ")+"]", r.Spec)
	}
	return b.String()
}
