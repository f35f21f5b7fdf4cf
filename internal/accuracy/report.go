package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// report collects the document: a summary, one row per promise, and the sections behind it.
type report struct {
	summary  [][]string
	sections bytes.Buffer
	failed   []string
}

// promise adds a row to the summary. ok says whether the figure meets its bound.
func (r *report) promise(what, bound, measured string, ok bool) {
	verdict := "met"
	if !ok {
		verdict = "**missed**"
		r.failed = append(r.failed, what+": "+measured)
	}
	r.summary = append(r.summary, []string{what, bound, measured, verdict})
}

// section opens a section with a paragraph.
func (r *report) section(title, text string) {
	fmt.Fprintf(&r.sections, "\n## %s\n\n%s\n", title, text)
}

// table writes a table of markdown; columns named with a leading ">" are aligned to the right.
func (r *report) table(head []string, rows [][]string) {
	r.sections.WriteString("\n" + table(head, rows))
}

// note adds a paragraph after a table.
func (r *report) note(format string, args ...any) {
	fmt.Fprintf(&r.sections, "\n"+format+"\n", args...)
}

func table(head []string, rows [][]string) string {
	var b strings.Builder
	rule := slices.Clone(head)
	head = slices.Clone(head)
	for i, h := range head {
		rule[i] = "---"
		if name, ok := strings.CutPrefix(h, ">"); ok {
			head[i], rule[i] = name, "--:"
		}
	}
	for _, row := range append([][]string{head, rule}, rows...) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

// document is the whole text.
func (r *report) document() []byte {
	head := table([]string{"case", "bound", "measured", "verdict"}, r.summary)
	return []byte(preface + machine() + head + r.sections.String())
}

// num prints a figure with two significant digits, as readers compare orders of magnitude.
func num(x float64) string { return fmt.Sprintf("%.2g", x) }

// worst keeps the largest share of a bound, and where it was.
type worst struct {
	share, abs float64
	at         string
	n          int
}

// see takes one difference. A NaN is the worst there is.
func (w *worst) see(diff, bound float64, at string) {
	w.n++
	w.abs = max(w.abs, diff)
	if s := diff / bound; !(s <= w.share) {
		w.share, w.at = s, at
	}
}

// join takes over another's findings.
func (w *worst) join(o worst) {
	w.n += o.n
	w.abs = max(w.abs, o.abs)
	if !(o.share <= w.share) {
		w.share, w.at = o.share, o.at
	}
}

func (w *worst) ok() bool { return w.n > 0 && w.share <= 1 }
