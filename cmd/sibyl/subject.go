package main

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/model"
	"sibyl/precision"
	"sibyl/quant"
)

// Subject is what a verb works on: [MODEL][@part,part...]. Parts that were left out are "".
type Subject struct {
	Text     string // as typed
	Model    string // path or hub id; "" = the demo model, or, for a second subject, the first one's
	Engine   string // "cpu", "replay"
	Contract string // "hf-fp32", "contract:FILE"
	Scheme   string // "int8lin", "recipe:FILE"
	Mode     string // "exact", "fast" or "noise:SEED"
	File     string // of replay:FILE
	Side     string // whose view replay gives: "ref" or "test"; gate sets it by the place of the subject
	Trace    string // path of a trace file: then nothing else is set
	Bundle   bool   // MODEL is a LanguageBundle or an .aimodel folder
}

// partKind is what a part chooses.
type partKind string

const (
	partEngine   partKind = "engine"
	partContract partKind = "contract"
	partScheme   partKind = "scheme"
	partMode     partKind = "mode"
)

// part is one name that may stand after the @.
type part struct {
	name    string // "replay:" and its like take a file
	kind    partKind
	meaning string
}

// partTable lists every part of DESIGN section 7, built in or not: a known name that this build lacks is
// refused as such, not as a typing mistake. What is built in is asked of the packages (see missing).
var partTable = []part{
	{"cpu", partEngine, "the CPU engine (the default)"},
	{"fp64", partEngine, "the plain float64 engine: the oracle's own error bar"},
	{"graph", partEngine, "the bundle's own graph, op by op"},
	{"metal", partEngine, "sibyl's Metal kernels on an Apple GPU"},
	{"metal-cpu", partEngine, "the same kernels compiled for the CPU"},
	{"coreai", partEngine, "the production Core AI runtime"},
	{"replay:", partEngine, "what a transcript holds"},
	{"hf-fp32", partContract, "stored weights upcast exactly, everything fp32"},
	{"hf-bf16", partContract, "transformers in bf16, eager attention"},
	{"hf-bf16-sdpa", partContract, "transformers in bf16, its defaults"},
	{"hf-bf16-l2", partContract, "transformers 5.3 in bf16"},
	{"coreai-fp16", partContract, "what the published bundles' graph says"},
	{"coreai-eager", partContract, "the conversion code run eagerly"},
	{"coreai-eager-s32", partContract, "coreai-eager with fp32 state"},
	{"coreai-eager-s32o32", partContract, "coreai-eager with fp32 state and recurrence output"},
	{"coreai-eager-sdpa16", partContract, "coreai-eager with fp16 attention ops"},
	{"coreai-cpu", partContract, "Apple's CPU runtime for Linux, on a published bundle's graph"},
	{"coreai-bf16", partContract, "what the graph of Apple's own port says"},
	{"coreai-bf16-sdpa", partContract, "coreai-bf16 with attention in one kernel"},
	{"coreai-bf16-delta", partContract, "coreai-bf16 with the delta rule in one kernel"},
	{"coreai-bf16-fused", partContract, "coreai-bf16 with both"},
	{"coreai-cpu-bf16", partContract, "Apple's CPU runtime for Linux on that graph"},
	{"contract:", partContract, "a contract of your own (YAML)"},
	{"fp16", partScheme, "fp16 weights"},
	{"int8lin", partScheme, "int8 body, fp16 head"},
	{"int8hu", partScheme, "int8 body and untied int8 head"},
	{"int8hu-sym", partScheme, "int8 body, untied symmetric int8 head: the ship config"},
	{"int4lin", partScheme, "int4 body, fp16 head"},
	{"u4-minval", partScheme, "uint4 with minval, as Apple's own port"},
	{"recipe:", partScheme, "a recipe of your own (YAML)"},
	{"exact", partMode, "order-free arithmetic: the same bits on every machine"},
	{"fast", partMode, "fp32 in any order, within a measured bound"},
	{"noise:", partMode, "exact, but every rounding off by up to one unit (a seed)"},
}

// inBuild says whether this build serves p; contracts and recipes of one's own it always does.
func (p part) inBuild() bool {
	if p.kind != partEngine && strings.HasSuffix(p.name, ":") {
		return true
	}
	return slices.Contains(built()[p.kind], strings.TrimSuffix(p.name, ":"))
}

// partNames lists the names of partTable.
func partNames() []string {
	var out []string
	for _, p := range partTable {
		out = append(out, p.name)
	}
	return out
}

// ParseSubject reads one subject. exists says whether a string is an existing path: such a string is a MODEL
// whole, whatever @ it holds. Otherwise it is split at the last @.
func ParseSubject(text string, exists func(string) bool) (Subject, error) {
	s := Subject{Text: text, Model: text}
	if text == "" || exists(text) {
		return s, nil
	}
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return s, nil
	}
	s.Model = text[:at]
	for _, name := range strings.Split(text[at+1:], ",") {
		if err := s.add(name); err != nil {
			return Subject{}, err
		}
	}
	return s, nil
}

// add sets what one part chooses; a kind may be chosen once.
func (s *Subject) add(name string) error {
	p, file, err := findPart(s.Text, name)
	if err != nil {
		return err
	}
	slot := map[partKind]*string{
		partEngine: &s.Engine, partContract: &s.Contract, partScheme: &s.Scheme, partMode: &s.Mode,
	}[p.kind]
	if *slot != "" {
		return &inputerr.Error{
			File: "subject " + inputerr.Clip(s.Text, 80), Field: fmt.Sprintf("@%s", name),
			Found: fmt.Sprintf("a second %s beside %q", p.kind, *slot), Want: "at most one " + string(p.kind),
			Do: "leave one of them out",
		}
	}
	*slot = name
	if p.name == "replay:" {
		*slot, s.File = "replay", file
	}
	return nil
}

// addEngine sets the engine that --engine names.
func (s *Subject) addEngine(name string) error {
	bad := &inputerr.Error{File: "--engine", Found: inputerr.Clip(name, 40), Want: "an engine"}
	switch p, _, err := findPart(s.Text, name); {
	case err != nil:
		var engines []string
		for _, p := range partTable {
			if p.kind == partEngine {
				engines = append(engines, p.name)
			}
		}
		bad.Do = didYouMean(name, engines)
		return bad
	case p.kind != partEngine:
		bad.Found, bad.Do = fmt.Sprintf("%s, a %s", bad.Found, p.kind), "write it behind the model: MODEL@"+name
		return bad
	}
	return s.add(name)
}

// findPart looks a part up by its name; file is what follows "replay:", "contract:" or "recipe:".
func findPart(subject, name string) (p part, file string, err error) {
	bad := &inputerr.Error{File: "subject " + inputerr.Clip(subject, 80)}
	if name == "" {
		bad.Found, bad.Want = "an empty part", "a name after @ and between commas"
		bad.Do = "for example MODEL@cpu,exact"
		return part{}, "", bad
	}
	for _, p := range partTable {
		rest, found := strings.CutPrefix(name, p.name)
		takesFile := strings.HasSuffix(p.name, ":")
		switch {
		case !found || !takesFile && rest != "":
		case takesFile && rest == "":
			bad.Field, bad.Found, bad.Want = "@"+name, "no file name", p.name+"FILE"
			if p.kind == partMode {
				bad.Found, bad.Want = "no seed", p.name+"SEED"
			}
			return part{}, "", bad
		default:
			return p, rest, nil
		}
	}
	bad.Field, bad.Found = "part "+inputerr.Clip(name, 40), "an unknown name"
	bad.Want = "an engine, a contract, a scheme, exact or fast"
	bad.Do = didYouMean(name, partNames())
	return part{}, "", bad
}

// String writes the subject so that ParseSubject reads it back.
func (s Subject) String() string {
	var parts []string
	for _, p := range []string{s.Engine, s.Contract, s.Scheme, s.Mode} {
		if p == "replay" {
			p = "replay:" + s.File
		}
		if p != "" {
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		return s.Model
	}
	return s.Model + "@" + strings.Join(parts, ",")
}

// missingError says that a subject names something sibyl knows but this build does not hold. For gate an
// absent engine makes the result inconclusive; elsewhere it is bad input.
type missingError struct {
	cause *inputerr.Error
	kind  partKind
}

// Error is the cause's text.
func (e *missingError) Error() string { return e.cause.Error() }

// Unwrap gives the input error.
func (e *missingError) Unwrap() error { return e.cause }

// What of partTable's contracts and schemes this build serves, held to its goldens. Engines say so themselves.
var builtContracts, builtSchemes = precision.Names(), quant.Names()

// built is what this build serves of each kind.
func built() map[partKind][]string {
	return map[partKind][]string{
		partEngine:   engine.Names(),
		partContract: builtContracts,
		partScheme:   builtSchemes,
		partMode:     {"exact", "fast"},
	}
}

// ofUser says whether a chosen name carries a file or a number of the user's, which its reader judges.
func ofUser(name string) bool {
	return strings.HasPrefix(name, "contract:") || strings.HasPrefix(name, "recipe:") || strings.HasPrefix(name, model.NoisePrefix)
}

// missing says what of s is not in this build, nil if nothing.
func (s Subject) missing() error {
	have := built()
	for _, chosen := range []struct {
		kind partKind
		name string
	}{{partEngine, s.Engine}, {partContract, s.Contract}, {partScheme, s.Scheme}, {partMode, s.Mode}} {
		kind, name := chosen.kind, chosen.name
		if name == "" || slices.Contains(have[kind], name) || ofUser(name) {
			continue
		}
		want, do := "one of "+strings.Join(have[kind], ", "), "choose one of these or leave it out"
		return &missingError{kind: kind, cause: &inputerr.Error{
			File: "subject " + inputerr.Clip(s.Text, 80), Field: "@" + name,
			Found: article(string(kind)) + " that is not in this build yet", Want: want, Do: do,
		}}
	}
	if s.Engine == "fp64" && s.Mode+s.Contract+s.Scheme != "" {
		return &inputerr.Error{
			File: "subject " + inputerr.Clip(s.Text, 80), Field: "@fp64",
			Found: "a mode, contract or scheme beside it", Want: "fp64 alone",
			Do: "float64 has one arithmetic and takes the weights as stored",
		}
	}
	return nil
}

// pathExists says whether text names something on disk.
func pathExists(text string) bool {
	_, err := os.Stat(text)
	return err == nil
}

// regularFile says whether text names a regular file.
func regularFile(text string) bool {
	info, err := os.Stat(text)
	return err == nil && info.Mode()&fs.ModeType == 0
}

// article puts "a" or "an" before a word.
func article(word string) string {
	if strings.ContainsRune("aeiou", rune(word[0])) {
		return "an " + word
	}
	return "a " + word
}
