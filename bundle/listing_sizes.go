package bundle

import (
	"slices"
	"strings"

	"sibyl/bundle/aicode"
	"sibyl/config"
)

// Group says where the weight is counted; false where neither a role nor its consumer tells.
func (w *Weight) Group() (Group, bool) {
	if len(w.Parts) > 0 {
		return GroupOf(w.Parts[0].Role), true
	}
	g, ok := map[string]Group{"embedding": Embedding, "embedding+head": Embedding, "experts": Experts, "norm": Norms}[w.Use]
	return g, ok
}

// Name is the weight's as the checkpoint has it, below the text model's prefix: of a fused one the port's name, of a tied table
// both. It is "" where no role was recognised.
func (w *Weight) Name() string {
	for _, u := range w.Parts {
		if len(u.Spans) > 0 {
			return strings.TrimPrefix(w.Parameter(), "model.")
		}
	}
	var names []string
	for _, u := range w.Parts {
		if n := u.Name(); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return strings.Join(names, " = ")
}

// has says whether the weight serves a role.
func (w *Weight) has(role config.Role) bool {
	return slices.ContainsFunc(w.Parts, func(u *Use) bool { return u.Role == role })
}

// PerToken is what decoding one token must read of the weight: one row of an embedding, the routed share of experts, all of
// everything else.
func (l *Listing) PerToken(w *Weight) int64 {
	n, dims := w.Bytes(), w.Data.Const.Type.Dims
	switch {
	case w.Use == "embedding" && len(dims) > 0 && dims[0] > 0:
		return n / dims[0]
	case w.Use == "experts" && len(dims) == 4 && dims[1] > 0:
		if r := l.Roles[w.Function]; r != nil && r.topK > 0 {
			return n / dims[1] * int64(r.topK)
		}
	}
	return n
}

// Totals are sums over the weights of one function. What two weights share is stored once.
type Totals struct {
	Sizes
	Other      int64 // stored bytes of weights of no known group: read for every token
	Parameters int64 // elements, of shared weights once
	Quantized  int   // weights
	Plain      int
}

// Bytes is all that is stored.
func (t *Totals) Bytes() int64 { return t.Total() + t.Other }

// Totals sums up a function. Nothing is read but shapes.
func (l *Listing) Totals(function string) *Totals {
	t := &Totals{}
	seen := map[int64]bool{}
	fresh := func(c *aicode.Const) int64 {
		if seen[c.Offset] {
			return 0
		}
		seen[c.Offset] = true
		return int64(len(c.Data))
	}
	for _, w := range l.Weights {
		if w.Function != function {
			continue
		}
		if w.Quant != nil {
			t.Quantized++
		} else {
			t.Plain++
		}
		if !seen[w.Data.Const.Offset] {
			t.Parameters += w.Data.Const.Len()
		}
		var stored int64
		_, consts := w.Constants()
		for _, c := range consts {
			stored += fresh(c)
		}
		g, ok := w.Group()
		if !ok {
			t.Other += stored
			continue
		}
		if g == Head && stored == 0 && w.Quant != nil { // a tied table, read once more as the head
			t.PerToken[Head] += w.Bytes()
			continue
		}
		t.Stored[g] += stored
		if g == Embedding && w.has(config.Head) {
			t.PerToken[Head] += l.PerToken(w)
			t.PerToken[Embedding] += w.Bytes() / max(1, w.Data.Const.Type.Dims[0])
			continue
		}
		t.PerToken[g] += l.PerToken(w)
	}
	return t
}
