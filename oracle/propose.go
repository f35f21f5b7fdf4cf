package oracle

import (
	"context"
	"slices"
)

// verify finds REF's greedy continuation of every prompt without decoding token by token, for a REF whose weights are
// read anew at every pass: TEST proposes, REF scores all proposals in one pass, its id replaces the first wrong one, and
// TEST goes on from there. It takes one pass more than the worst prompt has flips. What REF shows of a position when it
// scores it is what it would have shown when decoding: the same in exact arithmetic, and the definition here.
func (g *gate) verify(ctx context.Context) error {
	g.gen, g.said = make([][]Seen, len(g.res.Prompts)), make([][]int32, len(g.res.Prompts))
	for {
		texts, from, err := g.propose(ctx)
		if err != nil || texts == nil {
			return err
		}
		g.res.RefPasses++
		seen, err := g.scoreTexts(ctx, g.Ref, "the reference", texts, nil, g.progress)
		if err != nil {
			return err
		}
		k := 0
		for i := range g.res.Prompts {
			if g.complete(i) {
				continue
			}
			g.confirm(i, texts[k][from[k]:], seen[k][from[k]-1:])
			k++
		}
	}
}

// complete says whether REF's continuation of prompt i has all its tokens or ended.
func (g *gate) complete(i int) bool {
	ids := g.res.Prompts[i].RefIDs
	return len(ids) == g.p.MaxTokens || len(ids) > 0 && slices.Contains(g.p.Stop, ids[len(ids)-1])
}

// propose gives the texts of the prompts that are not complete, each with what REF has said and what TEST would say next,
// and where the proposals begin; nil when all are complete. A TEST that is read anew for every token is not asked: what
// costs nothing is proposed then, and REF says at least one more token of every prompt a pass.
func (g *gate) propose(ctx context.Context) (texts [][]int32, from []int, err error) {
	var paths []decodePath
	var asked []int // of each path, which text it goes on with
	for i := range g.res.Prompts {
		q := &g.res.Prompts[i]
		if g.complete(i) {
			continue
		}
		text := slices.Concat(q.IDs, q.RefIDs)
		from = append(from, len(text))
		n := g.p.MaxTokens - len(q.RefIDs)
		if n > 1 && g.test.Streams {
			text = append(text, guess(text, g.said[i], min(n-1, guessed))...)
		} else if n > 1 {
			paths, asked = append(paths, decodePath{name: q.Name, ids: text, n: n}), append(asked, len(texts))
		}
		texts = append(texts, text)
	}
	if len(paths) == 0 {
		return texts, from, nil
	}
	tick := g.ticks("test: proposing a continuation", paths)
	err = generate(ctx, g.Test, "the test engine", paths, &g.p, func(i, _ int, s Seen) error {
		texts[asked[i]] = append(texts[asked[i]], s.ID)
		tick()
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, k := range asked {
		texts[k] = texts[k][:len(texts[k])-1] // nothing follows the last one
	}
	return texts, from, nil
}

// guessed is how many ids are guessed at most: a row more a prompt costs little beside reading the weights, and guesses far
// ahead are seldom right.
const guessed = 16

// guess gives n ids that may follow text. Each is what followed the last two ids where they last stood together; else what
// REF said of that place when it last read it, which is right where its correction since changed nothing; else what followed
// the last id; else that id again.
func guess(text, said []int32, n int) []int32 {
	out := slices.Clone(text)
	for k := range n {
		next, ok := followed(out, 2)
		if !ok && k < len(said) {
			next, ok = said[k], true
		}
		if !ok {
			next, ok = followed(out, 1)
		}
		if !ok {
			next = out[len(out)-1]
		}
		out = append(out, next)
	}
	return out[len(text):]
}

// followed is what came after the last span ids of text where they last stood before.
func followed(text []int32, span int) (next int32, ok bool) {
	for at := len(text) - span - 1; at >= 0; at-- {
		if slices.Equal(text[at:at+span], text[len(text)-span:]) {
			return text[at+span], true
		}
	}
	return 0, false
}

// confirm adds to REF's continuation of prompt i what REF said where the proposed ids were right, and its own id where the
// first one was not. seen[0] is what REF shows before proposed[0].
func (g *gate) confirm(i int, proposed []int32, seen []Seen) {
	q := &g.res.Prompts[i]
	for k, s := range seen {
		q.RefIDs = append(q.RefIDs, s.ID)
		q.RefLogitGap = append(q.RefLogitGap, shown(s.LogitGap))
		q.RefProbGap = append(q.RefProbGap, shown(s.ProbGap))
		g.gen[i] = append(g.gen[i], s)
		if g.complete(i) || k < len(proposed) && proposed[k] != s.ID {
			g.said[i] = g.said[i][:0]
			for _, later := range seen[k+1:] {
				g.said[i] = append(g.said[i], later.ID)
			}
			return
		}
	}
	g.said[i] = g.said[i][:0]
}
