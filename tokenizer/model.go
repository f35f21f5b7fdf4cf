package tokenizer

import (
	"bytes"
	"fmt"
	"slices"

	"sibyl/internal/inputerr"
)

// model reads the BPE model: vocab, merges, and the options, of which only the family's values are taken.
func (p *parser) model(raw []byte, base int) error {
	m, err := p.sections(raw, "model", base, "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
		"fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges")
	if err != nil {
		return err
	}
	for _, o := range []struct {
		key, want string
		ok        []string
	}{
		{"type", `"BPE"`, []string{`"BPE"`}},
		{"dropout", "null", []string{"", "null"}},
		{"unk_token", "null", []string{"", "null"}},
		{"continuing_subword_prefix", `null or ""`, []string{"", "null", `""`}},
		{"end_of_word_suffix", `null or ""`, []string{"", "null", `""`}},
		{"fuse_unk", "false", []string{"", "null", "false"}},
		{"byte_fallback", "false", []string{"", "null", "false"}},
		// true would look whole words up before merging, and so emit ids that no merge reaches (201 of Qwen3.5's).
		{"ignore_merges", "false", []string{"", "null", "false"}},
	} {
		if v := string(m[o.key]); !slices.Contains(o.ok, v) {
			if v == "" {
				v = "nothing"
			}
			return p.bad("model."+o.key, clip([]byte(v)), o.want, refused)
		}
	}
	for _, key := range []string{"vocab", "merges"} {
		if m[key] == nil {
			return p.bad("model."+key, "nothing", "the "+key, repair)
		}
	}
	if err := p.vocab(m["vocab"], base+offset(raw, m["vocab"])); err != nil {
		return err
	}
	return p.merges(m["merges"], base+offset(raw, m["merges"]))
}

func (p *parser) vocab(raw []byte, base int) error {
	p.build = builder{file: p.file, spell: make([]byte, 0, len(raw)/2), raw: make([]byte, 0, len(raw)/2)}
	s := scanner{data: raw}
	s.object(func(key []byte) {
		// The key is gone once the id is read if it had an escape, but ids have none.
		if id := s.id(); s.err == nil {
			p.build.add(id, key)
		}
	})
	if err := p.scanErr(&s, "model.vocab", base); err != nil {
		return err
	}
	if err := p.addAdded(); err != nil {
		return err
	}
	if err := p.build.index(p.t, "model.vocab"); err != nil {
		return err
	}
	p.build = builder{}
	if err := p.t.indexBytes("model.vocab"); err != nil {
		return err
	}
	return p.t.indexAdded(p.added)
}

// addAdded puts the added tokens beside the vocabulary. Some files repeat them there; then the ids must agree.
func (p *parser) addAdded() error {
	inVocab := map[string]int32{}
	for _, x := range p.added {
		inVocab[x.Content] = -1
	}
	for _, e := range p.build.entry {
		s := p.build.spell[e.spellFrom:e.spellEnd]
		if _, ok := inVocab[string(s)]; ok {
			inVocab[string(s)] = e.id
		}
	}
	for i, x := range p.added {
		switch id := inVocab[x.Content]; id {
		case -1:
			p.build.add(x.ID, []byte(x.Content))
		case x.ID:
		default:
			return p.bad(fmt.Sprintf("added_tokens[%d].id", i), fmt.Sprint(x.ID), fmt.Sprintf("%d, the id of %s in model.vocab", id, inputerr.Clip(x.Content, 40)), repair)
		}
	}
	return nil
}

// indexAdded builds the two matching sets.
func (t *Tokenizer) indexAdded(added []AddedToken) error {
	t.added = slices.Clone(added)
	slices.SortStableFunc(t.added, func(a, b AddedToken) int { return int(a.ID) - int(b.ID) })
	t.addedAt = make(map[int32]int, len(added))
	var raw, normalized []addedEntry
	for i, x := range t.added {
		if j, dup := t.addedAt[x.ID]; dup {
			return &inputerr.Error{File: t.file, Field: "added_tokens", Found: fmt.Sprintf("the id %d twice, for %s and %s", x.ID,
				inputerr.Clip(t.added[j].Content, 40), inputerr.Clip(x.Content, 40)), Want: "each id once", Do: repair}
		}
		t.addedAt[x.ID] = i
		if !x.Normalized {
			raw = append(raw, addedEntry{x.Content, i})
			continue
		}
		content := x.Content
		if t.nfc {
			content, _ = composeNFC(content, false)
			// Such a token also reads as its normalized text (Rust library 0.23, id_to_token).
			t.tokens[x.ID], t.bytes[x.ID] = content, string(appendBytes(nil, []byte(content)))
		}
		normalized = append(normalized, addedEntry{content, i})
	}
	t.raw, t.normalized = newAddedSet(raw), newAddedSet(normalized)
	return nil
}

// merges reads ["a", "b"] or, as older files have it, "a b". The rank is the place in the list.
func (p *parser) merges(raw []byte, base int) error {
	t := p.t
	// The number of merges cannot exceed the number of tokens they make, but that is known only at the end; the number of
	// quotes is at most four a merge, so this bounds the table by the file's own size.
	table := newMergeTable(min(len(t.tokens), bytes.Count(raw, []byte{'"'})/2+1))
	s := scanner{data: raw}
	rank := int32(0)
	var bad *inputerr.Error
	var pair [2][]byte
	var joined []byte
	s.array(func() {
		if !s.mergePair(&pair) || bad != nil {
			return
		}
		at := fmt.Sprintf // only on failure
		joined = append(append(joined[:0], pair[0]...), pair[1]...)
		a, okA := t.ids[string(pair[0])]
		b, okB := t.ids[string(pair[1])]
		id, ok := t.ids[string(joined)]
		switch {
		case !okA || !okB || !ok:
			unknown := joined
			if !okA {
				unknown = pair[0]
			} else if !okB {
				unknown = pair[1]
			}
			bad = p.bad(at("model.merges[%d]", rank), at("%s, a token that is not in model.vocab", inputerr.Clip(string(unknown), 40)),
				"both parts and what they make in the vocabulary", repair)
		case int(rank) >= len(t.tokens):
			bad = p.bad("model.merges", "more merges than tokens", at("at most %d", len(t.tokens)), repair)
		case !table.add(a, b, merge{rank, id}):
			bad = p.bad(at("model.merges[%d]", rank), at("the pair %s %s a second time", inputerr.Clip(string(pair[0]), 40), inputerr.Clip(string(pair[1]), 40)),
				"each pair once", repair)
		}
		rank++
	})
	if err := p.scanErr(&s, "model.merges", base); err != nil {
		return err
	}
	if bad != nil {
		return bad
	}
	t.merges = table
	return nil
}

// mergePair reads one merge. The two parts are valid until the next call.
func (s *scanner) mergePair(pair *[2][]byte) bool {
	if s.peek() == '"' {
		both := s.str()
		a, b, ok := bytes.Cut(both, []byte{' '})
		if s.err == nil && (!ok || bytes.IndexByte(b, ' ') >= 0) {
			s.fail(inputerr.Clip(string(both), 40), "two tokens with one space between them")
		}
		pair[0], pair[1] = a, b
		return s.err == nil
	}
	n := 0
	s.array(func() {
		x := s.str()
		switch {
		case n > 1:
			s.fail("a third part", "two tokens")
		case n == 0 && len(x) > 0 && len(s.buf) > 0 && &x[0] == &s.buf[0]:
			pair[0] = append([]byte(nil), x...) // had escapes: the second string would overwrite it
		default:
			pair[n] = x
		}
		n++
	})
	if s.err == nil && n != 2 {
		s.fail(fmt.Sprintf("%d parts", n), "two tokens")
	}
	return s.err == nil
}
