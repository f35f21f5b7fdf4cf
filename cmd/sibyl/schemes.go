package main

import (
	"io"
	"slices"

	"sibyl/bundle"
	"sibyl/internal/inputerr"
	"sibyl/model"
	"sibyl/quant"
)

// Schemes explains the schemes: what becomes of which weight, and what it takes.
type Schemes struct {
	Names []string `arg:"" optional:"" name:"NAME" help:"Only these: names, or recipe:FILE for one of your own."`
	YAML  bool     `name:"yaml" help:"The named one as a recipe, to start your own from."`
	JSON
}

// Help is the part of the help below the flags.
func (*Schemes) Help() string {
	return `A scheme says how the weights are kept. A subject takes one by its name (@int8hu-sym): the
weights are then quantized as they are read, to the bits that sibyl quantize would write. One
of your own is a recipe, @recipe:FILE: YAML whose first rule that matches a tensor decides.

  name: careful-ends
  rest: fp16                    # what no rule matches: fp16, bf16 or stored
  rules:
    - match: ["layers.0.*_proj*", "*.down_proj"]
      scheme: int8              # fp16, bf16, stored, int8, int4 or u4-minval
      block: 32                 # elements that share a scale
      axis: 1                   # blocks run along the input (1) or the output (0)
      mode: clipping            # or symmetric; of int8 and int4
    - match: "*_proj*"
      scheme: int4
      block: 32
      axis: 1
      mode: clipping

A pattern matches a role (mlp.down_proj) or a tensor's name with its layer (layers.3.mlp.down_proj),
as inspect lists them. A tied head that no rule matches stays the embedding's table.

Examples:

    sibyl schemes
    sibyl schemes int8hu-sym
    sibyl schemes --yaml int8hu-sym > mine.yaml
    sibyl schemes recipe:mine.yaml
    sibyl schemes --json u4-minval`
}

// Run prints the tables, or one scheme as a recipe.
func (v *Schemes) Run(a *App) error {
	names := v.Names
	if len(names) == 0 {
		names = quant.Names()
	}
	var list []*quant.Scheme
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return &inputerr.Error{File: "schemes", Found: inputerr.Clip(name, 80) + " twice", Want: "each once"}
		}
		s, err := model.LookupScheme(name)
		if err != nil {
			return err
		}
		list = append(list, s)
	}
	switch {
	case v.YAML && v.JSON.JSON:
		return &inputerr.Error{File: "schemes", Found: "--yaml and --json", Want: "one of them"}
	case v.YAML && len(v.Names) != 1:
		return &inputerr.Error{File: "schemes", Field: "--yaml", Found: countText(int64(len(v.Names))) + " named", Want: "one", Do: "for example: sibyl schemes --yaml int8hu-sym"}
	case v.YAML:
		_, err := io.WriteString(a.Stdout, list[0].YAML())
		return err
	}
	return a.Emit(v.JSON.JSON, schemesJSON(list), func(w io.Writer) error { return writeSchemes(w, list) })
}

// noteScheme says which tensors a subject's scheme leaves as they are. c may be the checkpoint of the other subject:
// nothing is said then, and nothing of what is wrong with the scheme, which opening the engine does.
func (a *App) noteScheme(c bundle.Source, s Subject) {
	ref, err := bundle.Resolve(s.Model)
	if err != nil || ref.Path != c.Path() && (ref.Kind != bundle.Demo || ref.Name != c.Path()) {
		return
	}
	notes, err := schemeNotes(s, c)
	if err != nil {
		return
	}
	for _, n := range notes {
		a.Note("%s", n)
	}
}

// schemesResult is the JSON of schemes.
type schemesResult struct {
	Schemes []schemeInfo `json:"schemes"`
}

// schemeInfo is one scheme. A recipe has rules in place of body, head and embedding.
type schemeInfo struct {
	Name      string           `json:"name"`
	Meaning   string           `json:"meaning"`
	File      string           `json:"file,omitempty"`
	SHA256    string           `json:"sha256,omitempty"` // of a recipe's text
	Body      *specInfo        `json:"body,omitempty"`
	Head      *specInfo        `json:"head,omitempty"`
	Embedding *specInfo        `json:"embedding,omitempty"`
	Rules     []schemeRuleInfo `json:"rules,omitempty"`
	Rest      *specInfo        `json:"rest"`
}

// specInfo is how one kind of tensor is kept.
type specInfo struct {
	Format         string  `json:"format"`
	Mode           string  `json:"mode,omitempty"`
	Block          int     `json:"block,omitempty"`
	Axis           *int    `json:"axis,omitempty"`
	BytesPerWeight float64 `json:"bytes_per_weight,omitempty"` // scales included; none for "stored", which depends on the file
	*quant.Formula         // of quantized formats
}

// schemeRuleInfo is a rule of a recipe.
type schemeRuleInfo struct {
	Match []string `json:"match"`
	specInfo
}

func describeSpec(s quant.Spec) *specInfo {
	info := &specInfo{Format: s.Format.String(), Mode: s.Mode(), Block: s.Block, BytesPerWeight: s.BytesPerWeight()}
	if s.Format.Quantized() {
		formula := s.Formula()
		info.Axis, info.Formula = &s.Axis, &formula
	}
	return info
}

func schemesJSON(list []*quant.Scheme) *schemesResult {
	r := &schemesResult{}
	for _, s := range list {
		info := schemeInfo{Name: s.Name, Meaning: s.Meaning, File: s.File, SHA256: s.SHA256, Rest: describeSpec(s.Rest)}
		if s.File == "" {
			info.Body, info.Head, info.Embedding = describeSpec(s.Body), describeSpec(s.Head), describeSpec(s.Embed)
		}
		for _, rule := range s.Rules() {
			info.Rules = append(info.Rules, schemeRuleInfo{rule.Match, *describeSpec(rule.Spec)})
		}
		r.Schemes = append(r.Schemes, info)
	}
	return r
}
