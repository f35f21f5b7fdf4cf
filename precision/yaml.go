package precision

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"sibyl/internal/inputerr"
	words "sibyl/internal/near"
	"sibyl/internal/strictyaml"
)

// A person's own contract is YAML:
//
//	name: fp16-but-state32       # letters, digits and . _ -
//	meaning: what it is a model of
//	base: coreai-fp16            # the named contract it starts from
//	set: {logits: F32}           # what it changes there, by the names `sibyl contracts` prints
//	at:                          # exceptions: the first rule that matches a module decides
//	  - layers: "0-3,7"          # numbers, ranges, globs ("1?") or all; left out, everywhere
//	    modules: [mixer]         # globs over embed, input_norm, mixer (linear_attn, self_attn), post_attn_norm,
//	                             # mlp (dense_mlp, moe), final_norm, head; left out, all
//	    contract: hf-fp32        # what the rule starts from; left out, the file's own
//	    set: {state: F32}        # what it changes there
//
// The residual stream is handed on as the module before has rounded it.

// maxContractRules bounds the rules of a file: more than a model has modules decides nothing.
const maxContractRules = 1000

type contractFile struct {
	Name    strictyaml.Scalar `yaml:"name"`
	Meaning strictyaml.Scalar `yaml:"meaning"`
	Base    strictyaml.Scalar `yaml:"base"`
	Set     strictyaml.Map    `yaml:"set"`
	At      []contractRule    `yaml:"at"`
}

type contractRule struct {
	Layers   strictyaml.List   `yaml:"layers"`
	Modules  strictyaml.List   `yaml:"modules"`
	Contract strictyaml.Scalar `yaml:"contract"`
	Set      strictyaml.Map    `yaml:"set"`
}

// ReadContract reads a person's own contract. Bad input gives an *inputerr.Error.
func ReadContract(file string) (*Custom, error) {
	var f contractFile
	if err := strictyaml.Read(file, "a contract", &f); err != nil {
		return nil, err
	}
	return f.custom(file)
}

// ParseContract reads the text of a contract; file is for messages and for Custom.File.
func ParseContract(file string, text []byte) (*Custom, error) {
	var f contractFile
	if err := strictyaml.Parse(file, "a contract", text, &f); err != nil {
		return nil, err
	}
	return f.custom(file)
}

// refuse is an error at a value's line.
func refuse(file, field string, s strictyaml.Scalar, want, do string) error {
	e := &inputerr.Error{File: file, Field: field, Found: inputerr.Clip(s.Text, 60), Want: want, Do: do}
	if s.Line > 0 {
		e.File = strictyaml.At(file, s.Line)
	} else {
		e.Found = "nothing"
	}
	return e
}

var contractName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$`)

// custom checks what was read.
func (f *contractFile) custom(file string) (*Custom, error) {
	if !contractName.MatchString(f.Name.Text) || slices.Contains(Names(), f.Name.Text) {
		return nil, refuse(file, "name", f.Name, "a name of its own, up to 60 letters, digits and . _ -", "it must not be a built-in contract's: results carry it")
	}
	if strings.ContainsFunc(f.Meaning.Text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(f.Meaning.Text) > 200 {
		return nil, refuse(file, "meaning", f.Meaning, "one line of at most 200 bytes", "shorten it")
	}
	c := &Custom{File: file, Base: f.Base.Text}
	var err error
	if c.Contract, err = startFrom(file, "base", f.Base, f.Name.Text); err != nil {
		return nil, err
	}
	c.Contract.Meaning = f.Meaning.Text
	if c.Set, err = change(file, "set", f.Set, c.Contract); err != nil {
		return nil, err
	}
	if len(f.At) > maxContractRules {
		return nil, &inputerr.Error{File: file, Field: "at", Found: fmt.Sprintf("%d rules", len(f.At)), Want: fmt.Sprintf("at most %d", maxContractRules), Do: "use ranges and globs"}
	}
	for i := range f.At {
		r, err := f.At[i].rule(file, fmt.Sprintf("at[%d]", i), c.Contract)
		if err != nil {
			return nil, err
		}
		c.At = append(c.At, r)
	}
	return c, nil
}

// startFrom copies a named contract.
func startFrom(file, field string, base strictyaml.Scalar, name string) (*Contract, error) {
	i := slices.Index(Names(), base.Text)
	if i < 0 {
		return nil, refuse(file, field, base, "a built-in contract", words.DidYouMean(base.Text, Names()))
	}
	c := *named[i]
	c.Name = name
	return &c, nil
}

// change applies a set to c.
func change(file, field string, set strictyaml.Map, c *Contract) (out []Value, err error) {
	for _, p := range set {
		s := settingOf(p.Key.Text)
		if s == nil {
			return nil, refuse(file, field, p.Key, "a name that `sibyl contracts` prints", words.DidYouMean(p.Key.Text, SettingNames()))
		}
		if !s.set(c, p.Value.Text) {
			return nil, refuse(file, field+"."+s.Name, p.Value, s.Want(), "it is: "+s.Meaning)
		}
		out = append(out, Value{s.Name, s.Text(c)})
	}
	return out, nil
}

// rule checks one rule by itself; Custom.Map checks it against a model.
func (r *contractRule) rule(file, field string, own *Contract) (out Rule, err error) {
	for _, s := range r.Layers {
		for _, item := range strings.Split(s.Text, ",") {
			item = strings.TrimSpace(item)
			_, globErr := path.Match(item, "0")
			if _, _, ok := layerRange(item); !ok && item != "all" && (globErr != nil || !strings.ContainsAny(item, "*?[")) {
				return out, refuse(file, field+".layers", strictyaml.Scalar{Text: item, Line: s.Line},
					"a layer (3), a range (0-3), a glob over their numbers (1?) or all", "separate several by commas and quote them")
			}
			out.Layers = append(out.Layers, item)
		}
	}
	for _, s := range r.Modules {
		if _, err := path.Match(s.Text, "x"); err != nil || !matchPart(s.Text, partEverywhere) {
			var names []string
			for _, n := range partNames[1:] {
				names = append(names, n.name)
			}
			return out, refuse(file, field+".modules", s, "a glob over the modules' names", words.DidYouMean(s.Text, names))
		}
		out.Modules = append(out.Modules, s.Text)
	}
	c := *own
	out.Contract = &c
	if r.Contract.Line > 0 {
		if out.Contract, err = startFrom(file, field+".contract", r.Contract, ""); err != nil {
			return out, err
		}
		out.Base = r.Contract.Text
	}
	out.Contract.Name, out.Contract.Meaning = own.Name+" "+field, "a rule of "+own.Name
	if out.Contract.Arithmetic != own.Arithmetic {
		return out, refuse(file, field+".contract", r.Contract, "a contract computed in the same arithmetic as "+own.Name,
			"a runtime that rounds inside its sums has an arithmetic of its own: it cannot be mixed with others")
	}
	if out.Set, err = change(file, field+".set", r.Set, out.Contract); err != nil {
		return out, err
	}
	if out.Base == "" && len(out.Set) == 0 {
		return out, &inputerr.Error{File: file, Field: field, Found: "neither contract nor set", Want: "what its modules get", Do: "add one of them or remove the rule"}
	}
	return out, nil
}

// YAML writes the contract so that ParseContract reads the same back.
func (c *Custom) YAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\n", quote(c.Contract.Name))
	if c.Contract.Meaning != "" {
		fmt.Fprintf(&b, "meaning: %s\n", quote(c.Contract.Meaning))
	}
	fmt.Fprintf(&b, "base: %s\n", c.Base)
	writeSet(&b, "", c.Set)
	if len(c.At) > 0 {
		b.WriteString("at:\n")
	}
	for _, r := range c.At {
		var lines strings.Builder
		if len(r.Layers) > 0 {
			fmt.Fprintf(&lines, "    layers: %s\n", quote(strings.Join(r.Layers, ",")))
		}
		if len(r.Modules) > 0 {
			var globs []string
			for _, m := range r.Modules {
				globs = append(globs, quote(m))
			}
			fmt.Fprintf(&lines, "    modules: [%s]\n", strings.Join(globs, ", "))
		}
		if r.Base != "" {
			fmt.Fprintf(&lines, "    contract: %s\n", r.Base)
		}
		writeSet(&lines, "    ", r.Set)
		b.WriteString("  - " + strings.TrimPrefix(lines.String(), "    "))
	}
	return b.String()
}

func writeSet(b *strings.Builder, indent string, set []Value) {
	if len(set) == 0 {
		return
	}
	b.WriteString(indent + "set:\n")
	for _, v := range set {
		fmt.Fprintf(b, "%s  %s: %s\n", indent, v.Name, v.Text)
	}
}

// quote writes printable text in double quotes: JSON's form is YAML's too.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string always marshals
	return string(b)
}

// Template is a named contract as the start of a person's own: every setting with its meaning, to be changed or left
// out. Read as it is, it says what c says.
func Template(c *Contract) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: my-%s\nmeaning: %s\nbase: %s\nset: # lines that stay as they are may go\n", c.Name, quote(c.Meaning), c.Name)
	for i := range settings {
		s := &settings[i]
		fmt.Fprintf(&b, "  %-24s # %s\n", s.Name+": "+s.Text(c), s.Meaning)
	}
	b.WriteString("# at: # exceptions; the first rule that matches a module decides\n" +
		"#   - layers: 0-3\n#     modules: linear_attn\n#     set: {state: F32}\n")
	return b.String()
}
