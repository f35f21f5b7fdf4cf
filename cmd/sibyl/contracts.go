package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/precision"
)

// Contracts prints contracts side by side: what is rounded where.
type Contracts struct {
	Names []string `arg:"" optional:"" name:"NAME" help:"Only these: names, or contract:FILE for one of your own."`
	Diff  bool     `help:"Only the rows in which the named ones differ." xor:"form"`
	YAML  bool     `name:"yaml" help:"The named one as YAML, to start your own from." xor:"form"`
	JSON
}

// Help is the part of the help below the flags.
func (*Contracts) Help() string {
	return `A contract says what is rounded where. A subject takes one by its name (@coreai-fp16), or
one of your own as @contract:FILE: YAML that starts from a named contract, changes settings,
and may do so in some layers or modules only. fp32 state in the first four layers:

  name: fp16-state32
  base: coreai-fp16
  at:
    - layers: 0-3
      set: {state: F32}

Examples:

    sibyl contracts
    sibyl contracts hf-fp32 coreai-fp16
    sibyl contracts --diff coreai-fp16 coreai-eager
    sibyl contracts --yaml coreai-fp16 > mine.yaml
    sibyl contracts --diff coreai-fp16 contract:mine.yaml --json`
}

// Run prints the table, or one contract as YAML.
func (v *Contracts) Run(a *App) error {
	list, err := chooseContracts(v.Names)
	if err != nil {
		return err
	}
	bad := &inputerr.Error{File: "contracts", Found: fmt.Sprintf("%d named", len(v.Names))}
	switch {
	case v.YAML && v.JSON.JSON:
		bad.Found, bad.Want = "--yaml and --json", "one of them"
		return bad
	case v.YAML && len(v.Names) != 1:
		bad.Field, bad.Want, bad.Do = "--yaml", "one", "for example: sibyl contracts --yaml coreai-fp16"
		return bad
	case v.Diff && len(v.Names) < 2:
		bad.Field, bad.Want, bad.Do = "--diff", "two or more", "for example: sibyl contracts --diff hf-fp32 coreai-fp16"
		return bad
	case v.YAML:
		text := list[0].YAML()
		if list[0].File == "" {
			text = precision.Template(list[0].Contract)
		}
		_, err := io.WriteString(a.Stdout, text)
		return err
	}
	t := newContractTable(list, v.Diff)
	return a.Emit(v.JSON.JSON, t.result(), t.write)
}

// chooseContracts looks names up; none is all that are built in.
func chooseContracts(names []string) (list []*precision.Custom, err error) {
	if len(names) == 0 {
		names = precision.Names()
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, &inputerr.Error{File: "contracts", Found: inputerr.Clip(name, 80) + " twice", Want: "each once"}
		}
		c, err := precision.Choose(name)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// contractTable is contracts side by side: a column for each, and one for each rule of a file.
type contractTable struct {
	list    []*precision.Custom
	columns []*precision.Contract
	rows    []precision.Setting
}

// newContractTable lists all settings, or those in which the columns differ.
func newContractTable(list []*precision.Custom, differ bool) *contractTable {
	t := &contractTable{list: list}
	for _, c := range list {
		t.columns = append(t.columns, c.Contract)
		for _, r := range c.At {
			t.columns = append(t.columns, r.Contract)
		}
	}
	for _, s := range precision.Settings() {
		same := func(c *precision.Contract) bool { return s.Value(c) == s.Value(t.columns[0]) }
		if !differ || slices.ContainsFunc(t.columns, func(c *precision.Contract) bool { return !same(c) }) {
			t.rows = append(t.rows, s)
		}
	}
	return t
}

// contractsResult is the JSON of contracts.
type contractsResult struct {
	Settings  []settingInfo  `json:"settings"`
	Contracts []contractInfo `json:"contracts"`
}

// settingInfo is one row.
type settingInfo struct {
	Name    string   `json:"name"`
	Group   string   `json:"group"`
	Where   []string `json:"where"` // the modules in which it has an effect
	Meaning string   `json:"meaning"`
}

// contractInfo is one column. Values are by the names of the rows: "F32", "F16", "BF16", true, false or a number.
type contractInfo struct {
	Name       string         `json:"name"`
	Meaning    string         `json:"meaning"`
	File       string         `json:"file,omitempty"`
	Digest     string         `json:"digest,omitempty"`     // sha256 of what a file says, however it is written
	Arithmetic string         `json:"arithmetic,omitempty"` // the only one that computes it
	Values     map[string]any `json:"values"`
	Rules      []ruleInfo     `json:"rules,omitempty"`
}

// ruleInfo is an exception of a contract from a file.
type ruleInfo struct {
	Layers  []string       `json:"layers,omitempty"`
	Modules []string       `json:"modules,omitempty"`
	Values  map[string]any `json:"values"`
}

// result is the table as JSON.
func (t *contractTable) result() *contractsResult {
	r := &contractsResult{Settings: []settingInfo{}}
	for _, s := range t.rows {
		r.Settings = append(r.Settings, settingInfo{s.Name, s.Group, strings.Split(s.Parts.String(), ", "), s.Meaning})
	}
	values := func(c *precision.Contract) map[string]any {
		out := map[string]any{}
		for _, s := range t.rows {
			out[s.Name] = s.Value(c)
		}
		return out
	}
	for _, c := range t.list {
		info := contractInfo{Name: c.Contract.Name, Meaning: c.Contract.Meaning, File: c.File, Arithmetic: c.Contract.Arithmetic, Values: values(c.Contract)}
		if c.File != "" {
			info.Digest = c.Digest()
		}
		for _, rule := range c.At {
			info.Rules = append(info.Rules, ruleInfo{rule.Layers, rule.Modules, values(rule.Contract)})
		}
		r.Contracts = append(r.Contracts, info)
	}
	return r
}
