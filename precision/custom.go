package precision

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"sibyl/internal/inputerr"
)

// Custom is a contract with exceptions: what a person's own file says (ReadContract). A named contract is one without
// a file and without rules.
type Custom struct {
	Contract *Contract // where no rule says otherwise
	File     string    // "" if it is a named one
	Base     string    // the named contract it starts from
	Set      []Value   // what it changes there
	At       []Rule    // the first that matches a place decides
}

// Value is a setting by its name, with its text.
type Value struct{ Name, Text string }

// Rule gives some layers' modules a contract of their own.
type Rule struct {
	Layers   []string // "3", "0-3", "1?", "all"; none is everywhere, also outside the layers
	Modules  []string // globs over the names of parts; none is all
	Base     string   // the named contract it starts from; "" is the file's own
	Set      []Value  // what it changes there
	Contract *Contract
}

// Place is one module of one layer; Layer is -1 for the embedding, the final norm and the head. Part is one part.
type Place struct {
	Layer int
	Part  Part
}

// Choose gives the contract a person asked for: a name, "contract:FILE", or "" for hf-fp32.
func Choose(text string) (*Custom, error) {
	if file, ok := strings.CutPrefix(text, "contract:"); ok {
		return ReadContract(file)
	}
	c := HFFP32
	if text != "" {
		var err error
		if c, err = Lookup(text); err != nil {
			return nil, err
		}
	}
	return &Custom{Contract: c, Base: c.Name}, nil
}

// Label is what output calls the contract. One that is read from a file says so, with the start of its Digest: two
// results under the same label were made under the same contract.
func (c *Custom) Label() string {
	if c.File == "" {
		return c.Contract.Name
	}
	return fmt.Sprintf("%s (contract file, sha256 %.12s)", c.Contract.Name, c.Digest())
}

// Digest is the sha256 of what the contract says: every setting of it and of its rules, with what they match. Name,
// meaning, comments and layout do not count.
func (c *Custom) Digest() string {
	h := sha256.New()
	say := func(c *Contract) {
		fmt.Fprintf(h, "arithmetic: %q\n", c.Arithmetic)
		for i := range settings {
			fmt.Fprintf(h, "%s: %s\n", settings[i].Name, settings[i].Text(c))
		}
	}
	say(c.Contract)
	for _, r := range c.At {
		fmt.Fprintf(h, "layers: %q modules: %q\n", r.Layers, r.Modules)
		say(r.Contract)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Map gives the contract of each of a model's places. Refused are a layer, a range or a glob that matches nothing
// there, a rule whose places earlier rules have all taken, and a setting that has no effect where its rule decides:
// each is a change its author believes in and nobody makes.
func (c *Custom) Map(places []Place) ([]*Contract, error) {
	out := make([]*Contract, len(places))
	for i := range out {
		out[i] = c.Contract
	}
	taken := make([]bool, len(places))
	for k := range c.At {
		r := &c.At[k]
		if err := r.check(c.File, k, places); err != nil {
			return nil, err
		}
		var parts Part
		matched := false
		for i, p := range places {
			if !r.matches(p) {
				continue
			}
			if matched = true; taken[i] {
				continue
			}
			taken[i], out[i], parts = true, r.Contract, parts|p.Part
		}
		fail := func(field, found, want, do string) error {
			return &inputerr.Error{File: c.File, Field: fmt.Sprintf("at[%d]%s", k, field), Found: found, Want: want, Do: do}
		}
		if !matched {
			return nil, fail("", "no module of this model that matches both layers and modules", "at least one",
				"embed, final_norm and head belong to no layer: leave layers out for them")
		}
		if parts == 0 {
			return nil, fail("", "only modules that earlier rules have taken", "at least one of its own", "the first rule that matches wins: put the narrower one first")
		}
		for _, v := range r.Set {
			if s := settingOf(v.Name); s.Parts&parts == 0 {
				return nil, fail(".set."+v.Name, "a setting without effect: it belongs to "+s.Parts.String()+", the rule decides "+parts.String(),
					"settings of these modules", "remove it, or widen the rule")
			}
		}
	}
	return out, nil
}

// check demands that every layer pattern and every module pattern by itself matches something of the model.
func (r *Rule) check(file string, k int, places []Place) error {
	for field, patterns := range map[string][]string{"layers": r.Layers, "modules": r.Modules} {
		for _, text := range patterns {
			some := slices.ContainsFunc(places, func(p Place) bool {
				return field == "layers" && matchLayer(text, p.Layer) || field == "modules" && matchPart(text, p.Part)
			})
			last := slices.MaxFunc(places, func(a, b Place) int { return a.Layer - b.Layer }).Layer
			if _, hi, ok := layerRange(text); field == "layers" && ok && hi > last {
				some = false
			}
			if !some {
				return &inputerr.Error{File: file, Field: fmt.Sprintf("at[%d].%s", k, field),
					Found: inputerr.Clip(text, 60) + ", which this model does not have",
					Want:  fmt.Sprintf("layers 0 to %d, and modules of the model", last), Do: "`sibyl inspect` shows the layers"}
			}
		}
	}
	return nil
}

func (r *Rule) matches(p Place) bool {
	layer := len(r.Layers) == 0 || slices.ContainsFunc(r.Layers, func(t string) bool { return matchLayer(t, p.Layer) })
	module := len(r.Modules) == 0 || slices.ContainsFunc(r.Modules, func(t string) bool { return matchPart(t, p.Part) })
	return layer && module
}

// layerRange reads "3" and "0-3".
func layerRange(text string) (lo, hi int, ok bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil || strconv.Itoa(n) != s || n > 1e6 {
			return -1
		}
		return n
	}
	lo, hi = number(first), number(last)
	return lo, hi, lo >= 0 && hi >= lo
}

// matchLayer: "all" is every place, also outside the layers; a glob is matched against the layer's number.
func matchLayer(text string, layer int) bool {
	if text == "all" || layer < 0 {
		return text == "all"
	}
	if lo, hi, ok := layerRange(text); ok {
		return lo <= layer && layer <= hi
	}
	ok, _ := path.Match(text, strconv.Itoa(layer)) // the glob was checked when it was read
	return ok
}

// matchPart matches a glob against every word for the part: an attention mixer is "mixer" and "self_attn".
func matchPart(text string, part Part) bool {
	for _, n := range partNames[1:] {
		if ok, _ := path.Match(text, n.name); ok && n.part&part != 0 {
			return true
		}
	}
	return false
}
