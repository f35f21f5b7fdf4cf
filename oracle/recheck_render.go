package oracle

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxProblems bounds the list printed; the JSON has all.
const maxProblems = 20

// Render writes the result for people, the decision in the first line.
func (r *RecheckResult) Render(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", ascii(r.Headline))
	rows := [][]string{{"", "part", "positions", "differ", "close", "tolerance", "logit gap", "prob gap", ""}}
	for _, c := range r.Checks {
		part := strings.ReplaceAll(string(c.Part), "_", " ")
		if c.Status == "not run" {
			rows = append(rows, []string{ascii(c.who()), part, "-", "-", "-", "-", "-", "-", "not run: " + ascii(c.Note)})
			continue
		}
		rows = append(rows, []string{ascii(c.who()), part, strconv.Itoa(c.Positions), strconv.Itoa(c.Differ), strconv.Itoa(c.Close),
			fmt.Sprintf("%.2g", c.Tolerance), number(c.WorstLogitGap, "%.2g"), number(c.WorstProbGap, "%.2g"), ascii(strings.TrimSpace(c.First + " " + c.Note))})
	}
	if len(rows) > 1 {
		columns(&b, "llrrrrrrl", rows)
	}
	for i, p := range r.Problems {
		if i == maxProblems {
			fmt.Fprintf(&b, "and %d more; --json lists them all\n", len(r.Problems)-i)
			break
		}
		fmt.Fprintf(&b, "contradiction: %s\n", ascii(p))
	}
	if len(r.Problems) > 0 {
		b.WriteByte('\n')
	}
	if r.Sentence != "" {
		fmt.Fprintf(&b, "recorded: %s\n", ascii(r.Sentence))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
