// Package near guesses which word was meant by a mistyped one, for messages.
package near

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Words lists at most four of words that could have been meant by typed: those it is a prefix or a part of, and
// those few edits away, the nearest first. It is empty when nothing is near: a wrong guess misleads.
func Words(typed string, words []string) []string {
	type hit struct {
		word string
		dist int
	}
	typed = strings.ToLower(typed)
	var hits []hit
	for _, w := range words {
		d := editDistance(typed, strings.ToLower(w))
		switch limit := max(1, min(len(typed), len(w))/3); {
		case d == 0:
			return []string{w} // right but for its case
		case d <= limit:
		case len(typed) >= 3 && strings.Contains(strings.ToLower(w), typed):
			d = limit + 1 // behind a word that is only mistyped
		case len(w) >= 3 && strings.HasPrefix(typed, strings.ToLower(w)):
			d = limit + 2
		default:
			continue
		}
		hits = append(hits, hit{w, d})
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(a.dist, b.dist) })
	var out []string
	for _, h := range hits[:min(4, len(hits))] {
		out = append(out, h.word)
	}
	return out
}

// DidYouMean is the remedy of an error about typed: the near words, or else all of them.
func DidYouMean(typed string, words []string) string {
	quoted := func(list []string) string {
		var out []string
		for _, w := range list {
			out = append(out, fmt.Sprintf("%q", w))
		}
		return strings.Join(out, ", ")
	}
	switch hits := Words(typed, words); len(hits) {
	case 0:
		return "there is " + quoted(words)
	case 1:
		return "did you mean " + quoted(hits) + "?"
	default:
		return "did you mean one of " + quoted(hits) + "?"
	}
}

// editDistance counts the insertions, deletions, changes and swaps of neighbours that turn a into b (optimal
// string alignment). Words longer than 64 bytes are far from everything: no name here is.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var row [3][65]int // rows i-2, i-1, i of the table
	for j := range len(b) + 1 {
		row[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[2][0] = i
		for j := 1; j <= len(b); j++ {
			change := row[1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[2][j] = min(row[1][j]+1, row[2][j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[2][j] = min(row[2][j], row[0][j-2]+1)
			}
		}
		row[0], row[1] = row[1], row[2]
	}
	return row[1][len(b)]
}
