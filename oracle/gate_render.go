package oracle

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxFlipRows bounds the table of flips; the JSON has them all.
const maxFlipRows = 40

// Render writes the result for people: the decision in the first line, the sentence for a model card in the last.
// It is plain ASCII of aligned columns. text turns ids into text; it may be nil.
func (r *GateResult) Render(w io.Writer, text func(ids []int32) string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", ascii(r.Headline))
	r.renderSetup(&b)
	r.renderParts(&b)
	r.renderFlips(&b, text)
	for _, warning := range r.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", ascii(warning))
	}
	if len(r.Warnings) > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s\n", ascii(r.Sentence))
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *GateResult) renderSetup(b *strings.Builder) {
	rows := [][]string{engineRow("REF", r.Ref), engineRow("TEST", r.Test)}
	for _, c := range r.Controls {
		rows = append(rows, engineRow(string(c.Kind), c.Engine))
	}
	columns(b, "lllll", rows)
	prompts, generated := 0, 0
	for _, q := range r.Prompts {
		prompts += len(q.IDs)
		generated += len(q.RefIDs)
	}
	p := r.Protocol
	fmt.Fprintf(b, "%s of %s, %s; path %s\n", plural(len(r.Prompts), "prompt"), plural(prompts, "token"),
		plural(generated, "generated token"), p.PathName)
	fmt.Fprintf(b, "a position qualifies when REF's %s >= %g", p.Unit, p.Margin)
	if p.StrictPrompt {
		b.WriteString("; strict: every generated token's must")
	}
	if len(p.Accept) > 0 {
		fmt.Fprintf(b, "; flips accepted as notes: %s", joinVerdicts(p.Accept))
	}
	fmt.Fprintf(b, "\nREF's own fp32-to-fp64 noise: %s\n\n", ascii(r.noise()))
}

func engineRow(role string, e EngineInfo) []string {
	if e.Subject == "" {
		return []string{role, "-"}
	}
	weights := "weights " + e.Scheme
	if e.Mode != "" {
		weights += ", " + e.Mode
	}
	return []string{role, ascii(e.Subject), ascii(e.Contract), ascii(weights), "logits " + ascii(e.LogitsDType)}
}

func (r *GateResult) noise() string {
	if r.Noise.LogitRMS == nil {
		return r.Noise.Source
	}
	return fmt.Sprintf("%.2g (%s)", *r.Noise.LogitRMS, r.Noise.Source)
}

var partTitles = map[PartName]string{
	Qualification: "1 qualification, REF alone",
	TeacherForced: "2 teacher-forced top-1",
	StateStep:     "3 one step from REF's state",
	Rollout:       "4 greedy rollout, re-anchored",
}

func (r *GateResult) renderParts(b *strings.Builder) {
	rows := [][]string{{"part", "positions", "qualify", "agree", "ties", "flips", "confident", ""}}
	for _, p := range r.Parts {
		row := []string{partTitles[p.Name]}
		switch {
		case p.Status == PartNotShown || p.Status == PartNotRun:
			row = append(row, "-", "-", "-", "-", "-", "-")
		case p.Name == Qualification:
			row = append(row, strconv.Itoa(p.Positions), percent(p.Qualified, p.Positions), "-", "-", "-", "-")
		default:
			row = append(row, strconv.Itoa(p.Positions), strconv.Itoa(p.Qualified), fmt.Sprintf("%d/%d", p.Agree, p.Qualified),
				strconv.Itoa(p.Ties), strconv.Itoa(p.Flips), strconv.Itoa(p.Confident))
		}
		status := ""
		if p.Status != PartRan {
			status = string(p.Status) + ": " + ascii(p.Note)
		}
		rows = append(rows, append(row, status))
	}
	columns(b, "lrrrrrrl", rows)
	b.WriteString("verdicts")
	for _, v := range Verdicts {
		// A verdict that needs controls is not listed as a zero when there were none to give it.
		if n := r.Verdicts[v]; n > 0 || v == Identical || v == Tie || v == Near || v == Defect {
			fmt.Fprintf(b, "  %s %d", v, n)
		}
	}
	b.WriteString("\n\n")
}

// renderFlips lists every flip; those of REF's below the floor are reported, not judged.
func (r *GateResult) renderFlips(b *strings.Builder, text func([]int32) string) {
	rows := [][]string{{"prompt", "pos", "part", "REF -> TEST", "text", "logit gap", "prob gap", "ULPs", "noise", "verdict"}}
	left := 0
	for i := range r.Positions {
		e := &r.Positions[i]
		if !e.Verdict.Flip() {
			continue
		}
		if len(rows) > maxFlipRows {
			left++
			continue
		}
		verdict := string(e.Verdict) + ": " + ascii(e.Why)
		switch {
		case e.Accepted && e.Qualified:
			verdict += " (accepted)"
		case !e.Qualified && e.Verdict != Defect:
			verdict += " (not judged)"
		}
		rows = append(rows, []string{ascii(r.Prompts[e.Prompt].Name), strconv.Itoa(e.Pos), string(e.Part),
			fmt.Sprintf("%d -> %d", e.RefID, e.TestID), pieces(text, e.RefID, e.TestID),
			number(e.LogitGap, "%.4f"), number(e.ProbGap, "%.4f"), number(e.GapULPs, "%.3g"), number(e.GapNoise, "%.3g"), verdict})
	}
	if len(rows) == 1 {
		return
	}
	if text == nil {
		rows[0][4] = ""
	}
	columns(b, "lrlllrrrrl", rows)
	if left > 0 {
		fmt.Fprintf(b, "and %d more flips; --json lists them all\n\n", left)
	}
}

// pieces is the text of both ids, quoted in ASCII.
func pieces(text func([]int32) string, ref, test int32) string {
	if text == nil {
		return ""
	}
	return strconv.QuoteToASCII(text([]int32{ref})) + " -> " + strconv.QuoteToASCII(text([]int32{test}))
}

func number(x *float64, format string) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf(format, *x)
}

func percent(n, of int) string {
	if of == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%.1f %%)", n, 100*float64(n)/float64(of))
}

// ascii replaces what a plain terminal may not show: control characters and everything beyond ASCII are escaped.
func ascii(s string) string {
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`), `\\`, `\`)
}

// columns writes rows aligned, two spaces apart; align holds l or r for each column. Trailing blanks are cut.
func columns(b *strings.Builder, align string, rows [][]string) {
	width := make([]int, len(align))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			switch {
			case width[i] == 0:
				continue
			case align[i] == 'r':
				fmt.Fprintf(&line, "%*s  ", width[i], cell)
			default:
				fmt.Fprintf(&line, "%-*s  ", width[i], cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
}
