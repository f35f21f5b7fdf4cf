package engine

import (
	"fmt"
	"math"
	"slices"

	"sibyl/internal/inputerr"
)

// Limits are what a prompt is checked against.
type Limits struct {
	ConfigFile   string // named in the errors
	VocabSize    int
	MaxPositions int // max_position_embeddings
}

// Check refuses a prompt that cannot be run, before anything is: no ids, ids outside the vocabulary, positions that do
// not fit, a length beyond MaxPositions. have is the length of the state it continues from, generate how many tokens
// are asked for after it (the last one is never consumed). what names the prompt.
func (l Limits) Check(what string, p Prompt, path Path, have, generate int) error {
	bad := func(field, found, want, do string) error {
		return &inputerr.Error{File: what, Field: field, Found: found, Want: want, Do: do}
	}
	if len(p.IDs) == 0 {
		return bad("ids", "no token", "at least one", "give a text or ids that are not empty")
	}
	if path.Chunk < 0 {
		return bad("path", fmt.Sprintf("chunks of %d tokens", path.Chunk), PathSyntax, "choose one of them")
	}
	if have < 0 || have > l.MaxPositions {
		return bad("state", fmt.Sprintf("a length of %d tokens", have), fmt.Sprintf("0..%d", l.MaxPositions), "give a state of this model")
	}
	// Compared by subtraction: the sum of hostile lengths could overflow.
	if total := have + len(p.IDs); total > l.MaxPositions || max(0, generate-1) > l.MaxPositions-total {
		found := fmt.Sprintf("%d tokens", total)
		if generate > 1 {
			found += fmt.Sprintf(" and %d to generate", generate)
		}
		return bad("length", found, fmt.Sprintf("at most %d (max_position_embeddings of %s)", l.MaxPositions, l.ConfigFile),
			"shorten the prompt or generate fewer tokens")
	}
	if p.PositionIDs != nil && len(p.PositionIDs) != len(p.IDs) {
		return bad("position ids", fmt.Sprintf("%d of them", len(p.PositionIDs)), fmt.Sprintf("%d, one triple a token", len(p.IDs)),
			"give [3,T] positions for the same tokens")
	}
	for i, t := range p.PositionIDs {
		if low, high := slices.Min(t[:]), slices.Max(t[:]); low < 0 || int(high) >= l.MaxPositions {
			return bad(fmt.Sprintf("position ids[%d]", i), fmt.Sprint(t), fmt.Sprintf("0..%d", l.MaxPositions-1), "correct the positions")
		}
	}
	return l.CheckIDs(what, p.IDs)
}

// CheckChoice refuses to choose the next id from a row whose largest logit is NaN (which counts as the largest) or
// infinite, unless the id is forced or NonFinite asks to go on. subject names the model. Engines that show no logits
// pass: nothing is known there.
func (o *Options) CheckChoice(subject string, p *Position) error {
	if o.Force != nil || o.NonFinite || len(p.Top) == 0 {
		return nil
	}
	top := p.Top[0]
	if !math.IsNaN(top.Logit) && !math.IsInf(top.Logit, 0) {
		return nil
	}
	return &inputerr.Error{File: subject, Field: fmt.Sprintf("logits after position %d", p.Pos), Found: fmt.Sprintf("%v for id %d", top.Logit, top.ID),
		Want: "numbers to choose the next token by", Do: "`sibyl inspect` lists weights that hold NaN or Inf; `sibyl diff` names the tensor where they begin"}
}

// CheckIDs refuses ids outside the vocabulary.
func (l Limits) CheckIDs(what string, ids []int32) error {
	for i, id := range ids {
		if id < 0 || int(id) >= l.VocabSize {
			return &inputerr.Error{File: what, Field: fmt.Sprintf("ids[%d]", i), Found: fmt.Sprint(id),
				Want: fmt.Sprintf("0..%d (vocab_size of %s)", l.VocabSize-1, l.ConfigFile), Do: "use this model's tokenizer"}
		}
	}
	return nil
}
