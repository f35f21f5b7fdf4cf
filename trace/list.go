package trace

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"sibyl/config"
	"sibyl/internal/inputerr"
)

// Entry is one tensor of one model: a tap, its layer (-1 at top level) and its name.
type Entry struct {
	Tap   Tap
	Layer int
	Name  string
	Width int // of an OpResult: elements of a token's row
}

// Shape is the entry's shape for a sequence of tokens tokens.
func (e Entry) Shape(c *config.Config, tokens int) []int {
	if e.Tap == OpResult {
		return []int{tokens, e.Width}
	}
	return e.Tap.Shape(c, tokens)
}

// All lists every tensor of a model in the order of the math: input_ids, embed, layer by layer, final_norm,
// logits, then the states layer by layer.
func All(c *config.Config) []Entry {
	out := []Entry{{Tap: InputIDs, Layer: -1, Name: InputIDs.Name(-1)}, {Tap: Embed, Layer: -1, Name: Embed.Name(-1)}}
	perLayer := func(from, to Tap) {
		for l := range c.NumLayers {
			for t := from; t <= to; t++ {
				if t.In(c, l) {
					out = append(out, Entry{Tap: t, Layer: l, Name: t.Name(l)})
				}
			}
		}
	}
	perLayer(InputNorm, LayerOut)
	out = append(out, Entry{Tap: FinalNorm, Layer: -1, Name: FinalNorm.Name(-1)}, Entry{Tap: Logits, Layer: -1, Name: Logits.Name(-1)})
	perLayer(CacheConvState, CacheValue)
	return out
}

// Select lists the entries of a model whose names match any of the globs, in the order of the math; no globs
// means all of them. In a glob * stands for any run of characters, dots included, ? for one, [0-3] for a class.
// A glob that matches nothing is an error that names the nearest taps. ops are the operations' results that the engine
// shows besides; they are chosen by name only.
func Select(c *config.Config, globs []string, ops ...Entry) ([]Entry, error) {
	all := All(c)
	if len(globs) == 0 {
		return all, nil
	}
	all = append(all, ops...)
	keep := make([]bool, len(all))
	for _, g := range globs {
		hits := 0
		for i, e := range all {
			ok, err := path.Match(g, e.Name)
			if err != nil {
				return nil, &inputerr.Error{File: "--taps", Field: inputerr.Clip(g, 80), Found: "a malformed glob",
					Want: "names with *, ? and [a-z]", Do: "`sibyl taps` lists the names"}
			}
			if ok {
				keep[i] = true
				hits++
			}
		}
		if hits == 0 {
			return nil, noMatch(c, g, all)
		}
	}
	out := make([]Entry, 0, len(all))
	for i, e := range all {
		if keep[i] {
			out = append(out, e)
		}
	}
	return out, nil
}

// noMatch explains a glob without a match: either the tap exists, but not in this model or layer, or the name is
// misspelt and the nearest ones are given.
func noMatch(c *config.Config, glob string, all []Entry) error {
	e := &inputerr.Error{File: "--taps", Field: inputerr.Clip(glob, 80), Found: "no tap of that name in this model"}
	if t, layer, ok := Parse(glob); ok {
		switch {
		case layer >= c.NumLayers:
			e.Found, e.Want = fmt.Sprintf("layer %d", layer), fmt.Sprintf("a layer from 0 to %d", c.NumLayers-1)
		case t.Where() == MoELayer:
			e.Found, e.Want = "an MoE tap", "a tap of a dense model"
		default:
			e.Found, e.Want = fmt.Sprintf("layer %d, which is %s", layer, c.Layers[layer]), "one of the "+t.Where().String()
		}
	}
	e.Do = "did you mean " + strings.Join(nearest(glob, all, 3), ", ") + "? `sibyl taps` lists the names"
	return e
}

// nearest gives the n names closest to a misspelt glob, by edits; ties keep the order of the math. The glob is
// clipped first: the distance costs length times length.
func nearest(glob string, all []Entry, n int) []string {
	glob = glob[:min(len(glob), 80)]
	plain := strings.NewReplacer("*", "", "?", "").Replace(glob)
	type scored struct {
		name  string
		edits int
	}
	var s []scored
	for _, e := range all {
		s = append(s, scored{e.Name, min(edits(plain, e.Name), edits(plain, e.Tap.Short()))})
	}
	slices.SortStableFunc(s, func(a, b scored) int { return cmp.Compare(a.edits, b.edits) })
	var out []string
	for _, x := range s[:min(n, len(s))] {
		out = append(out, x.name)
	}
	return out
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
