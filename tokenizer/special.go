package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedSet finds added tokens in a text: leftmost first, of those that start together the longest. (AddedVocabulary of the
// Rust library: one Aho-Corasick automaton for the raw tokens, one for the normalized.)
type addedSet struct {
	tokens []addedEntry // longest first within one first byte
	first  [256][]int   // by first byte
	starts string       // the first bytes that occur, for IndexAny
}

type addedEntry struct {
	content string
	at      int // index in Tokenizer.added
}

func newAddedSet(tokens []addedEntry) addedSet {
	set := addedSet{tokens: slices.Clone(tokens)}
	slices.SortStableFunc(set.tokens, func(a, b addedEntry) int { return len(b.content) - len(a.content) })
	var starts []byte
	for i, x := range set.tokens {
		b := x.content[0]
		if set.first[b] == nil {
			starts = append(starts, b)
		}
		set.first[b] = append(set.first[b], i)
	}
	set.starts = string(starts)
	return set
}

// find returns the first match at or after from.
func (set *addedSet) find(s string, from int) (begin, end, at int, ok bool) {
	for i := from; i < len(s); i++ {
		if len(set.starts) == 1 {
			n := strings.IndexByte(s[i:], set.starts[0])
			if n < 0 {
				break
			}
			i += n
		}
		for _, k := range set.first[s[i]] {
			if x := set.tokens[k]; strings.HasPrefix(s[i:], x.content) {
				return i, i + len(x.content), x.at, true
			}
		}
	}
	return 0, 0, 0, false
}

// cut hands out s in order: added tokens with their id, the stretches between them with -1. It follows find_matches of
// tokenizers 0.23 (added_vocabulary.rs), also in this: a match that is passed over, being special under splitSpecial or no
// single word, is not searched again for shorter tokens inside it.
func (set *addedSet) cut(s string, splitSpecial bool, t *Tokenizer, emit func(id int32, part string)) {
	done := 0
	for from := 0; ; {
		begin, end, at, ok := set.find(s, from)
		if !ok {
			break
		}
		from = end
		x := &t.added[at]
		if splitSpecial && x.Special || x.SingleWord && (endsInWord(s[:begin]) || startsWithWord(s[end:])) {
			continue
		}
		if x.LStrip { // not into what an earlier token took
			begin = max(done, len(strings.TrimRightFunc(s[:begin], unicode.IsSpace)))
		}
		if x.RStrip {
			end = len(s) - len(strings.TrimLeftFunc(s[end:], unicode.IsSpace))
			from = end
		}
		if done < begin {
			emit(-1, s[done:begin])
		}
		emit(x.ID, s[begin:end])
		done = end
	}
	if done < len(s) {
		emit(-1, s[done:])
	}
}

func endsInWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && wordCharacter(r)
}

func startsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && wordCharacter(r)
}

// wordCharacter is \w of the Rust regex crate (UTS #18): Alphabetic, Mark, Decimal_Number, Connector_Punctuation, Join_Control.
func wordCharacter(r rune) bool {
	return unicode.In(r, unicode.L, unicode.Nl, unicode.Other_Alphabetic, unicode.M, unicode.Nd, unicode.Pc, unicode.Join_Control)
}
