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
	r.renderMetrics(&b)
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
		if c.Kind == ControlNoise {
			rows = append(rows, engineRow(string(c.Kind), c.Engine))
		}
	}
	columns(b, "lllll", rows)
	r.renderControls(b)
	prompts, generated := 0, 0
	for _, q := range r.Prompts {
		prompts += len(q.IDs)
		generated += len(q.RefIDs)
	}
	p := r.Protocol
	fmt.Fprintf(b, "%s of %s, %s; path %s\n", plural(len(r.Prompts), "prompt"), plural(prompts, "token"),
		plural(generated, "generated token"), p.PathName)
	if r.RefPasses > 0 {
		fmt.Fprintf(b, "REF is read layer by layer: %s of its weights found its tokens among what was proposed\n", plural(r.RefPasses, "reading"))
	}
	fmt.Fprintf(b, "a position qualifies when REF's %s >= %g", p.Unit, p.Margin)
	if p.StrictPrompt {
		b.WriteString("; strict: every generated token's must")
	}
	if len(p.Accept) > 0 {
		fmt.Fprintf(b, "; flips accepted as notes: %s", joinVerdicts(p.Accept))
	}
	fmt.Fprintf(b, "\nREF's own fp32-to-fp64 noise: %s\n\n", ascii(r.noise()))
}

// renderControls says what could explain a flip, and which of it was run.
func (r *GateResult) renderControls(b *strings.Builder) {
	var rows [][]string
	ran := false
	for _, c := range r.Controls {
		if c.Kind == ControlNoise {
			continue
		}
		state := "not needed: no flip"
		switch {
		case c.Note != "":
			state = "failed: " + c.Note
		case c.Same != "":
			state = "is " + string(c.Same) + " itself"
		case c.Positions > 0:
			state, ran = c.agreement(), true
		case c.Noisy:
			continue // it was not asked
		}
		failed := c.Note != ""
		ran = ran || failed
		rows = append(rows, []string{"control", ascii(c.Label), ascii(state)})
	}
	switch {
	case len(rows) == 0:
	case !ran && r.flips() == 0:
		fmt.Fprintf(b, "%s at hand to explain a flip, none was needed\n\n", plural(len(rows), "control"))
	default:
		columns(b, "lll", rows)
	}
}

// agreement says what a control that ran showed: "run over 38 positions: REF's id at 36, TEST's at 37, KL from REF >= 0.0012".
func (c *ControlInfo) agreement() string {
	s := fmt.Sprintf("run over %s: REF's id at %d, TEST's at %d", plural(c.Positions, "position"), c.AsRef, c.AsTest)
	if c.KLMean != nil {
		s += fmt.Sprintf(", KL from REF >= %.2g", *c.KLMean)
	}
	return s
}

// flips counts the positions, by part, that are flips.
func (r *GateResult) flips() (n int) {
	for v, count := range r.Verdicts {
		if v.Flip() {
			n += count
		}
	}
	return n
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
		if p.Status == PartRan {
			status = ascii(p.Note)
		} else {
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

// renderMetrics says how far TEST's distribution is from REF's.
func (r *GateResult) renderMetrics(b *strings.Builder) {
	if r.Metrics.Positions == 0 && r.Text == nil {
		return
	}
	rows := [][]string{{"beside REF", "positions", "same top-1", "mean KL (nats)", "worst KL", "at", "perplexity", "to REF's", "tokens", ""}}
	add := func(what string, m *Metrics, at string) {
		note := ascii(m.Note)
		if m.KLInfinite > 0 {
			note = strings.TrimPrefix(note+"; KL infinite at "+plural(m.KLInfinite, "position"), "; ")
		}
		tokens := "-"
		if m.Predicted > 0 {
			tokens = strconv.Itoa(m.Predicted)
		}
		rows = append(rows, []string{what, strconv.Itoa(m.Positions), percent(m.Top1, m.Positions), number(m.KLMean, "%.3g"),
			number(m.KLWorst, "%.3g"), at, number(m.TestPPL, "%.4f"), change(m.PPLChange), tokens, note})
	}
	if m := &r.Metrics; m.Positions > 0 {
		at := "-"
		if len(m.KLWorstAt) == 2 && m.KLWorstAt[0] < len(r.Prompts) {
			at = fmt.Sprintf("%s %d", ascii(r.Prompts[m.KLWorstAt[0]].Name), m.KLWorstAt[1])
		}
		add("prompts", m, at)
	}
	if t := r.Text; t != nil {
		at := "-"
		if k := t.Metrics.KLWorstAt; len(k) == 2 {
			at = fmt.Sprintf("token %d", k[0]*t.Window+k[1])
		}
		add(fmt.Sprintf("%s, windows of %d", ascii(t.Name), t.Window), &t.Metrics, at)
	}
	columns(b, "lrrrrlrrrl", rows)
}

// change is a ratio's distance from 1, in percent.
func change(x *float64) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf("%+.3f %%", 100**x)
}

// partNumbers are how the parts are called in the table of flips.
var partNumbers = map[PartName]string{TeacherForced: "2", StateStep: "3", Rollout: "4"}

// renderFlips lists every flip, once for all parts that met it alike; those of REF's below the floor are reported, not
// judged.
func (r *GateResult) renderFlips(b *strings.Builder, text func([]int32) string) {
	rows := [][]string{{"prompt", "pos", "part", "REF -> TEST", "text", "logit gap", "prob gap", "ULPs", "noise", "explained by", "verdict"}}
	type flip struct {
		prompt, pos int
		id          int32
		verdict     Verdict
		why         string
	}
	seen := map[flip]int{}
	left := 0
	for i := range r.Positions {
		e := &r.Positions[i]
		if !e.Verdict.Flip() {
			continue
		}
		f := flip{e.Prompt, e.Pos, e.TestID, e.Verdict, e.Why}
		if at, ok := seen[f]; ok {
			if at > 0 {
				rows[at][2] += "," + partNumbers[e.Part]
			}
			continue
		}
		if len(rows) > maxFlipRows {
			seen[f] = 0
			left++
			continue
		}
		seen[f] = len(rows)
		verdict := string(e.Verdict) + ": " + ascii(e.Why)
		switch {
		case e.Accepted && e.Qualified:
			verdict += " (accepted)"
		case !e.Qualified && e.Verdict != Defect:
			verdict += " (not judged)"
		}
		rows = append(rows, []string{ascii(r.Prompts[e.Prompt].Name), strconv.Itoa(e.Pos), partNumbers[e.Part],
			fmt.Sprintf("%d -> %d", e.RefID, e.TestID), pieces(text, e.RefID, e.TestID),
			number(e.LogitGap, "%.4f"), number(e.ProbGap, "%.4f"), number(e.GapULPs, "%.3g"), number(e.GapNoise, "%.3g"), r.explainers(e), verdict})
	}
	if len(rows) == 1 {
		return
	}
	if text == nil {
		rows[0][4] = ""
	}
	columns(b, "lrlllrrrrll", rows)
	if left > 0 {
		fmt.Fprintf(b, "and %d more flips; --json lists them all\n\n", left)
	}
}

// explainers counts the controls that give TEST's id, by kind: "Q 1/1 C 0/1 E 6/6 noise 1/4".
func (r *GateResult) explainers(e *Evidence) string {
	var out []string
	count := func(name string, counts func(c *ControlInfo) bool) {
		give, of := 0, 0
		for i := range r.Controls {
			c := &r.Controls[i]
			if id, ok := e.Controls[c.Label]; ok && counts(c) {
				of++
				if id == e.TestID {
					give++
				}
			}
		}
		if of > 0 {
			out = append(out, fmt.Sprintf("%s %d/%d", name, give, of))
		}
	}
	for _, kind := range []ControlKind{ControlQ, ControlC, ControlE} {
		count(string(kind), func(c *ControlInfo) bool { return c.Kind == kind && !c.Noisy })
	}
	count("noise", func(c *ControlInfo) bool { return c.Noisy })
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, " ")
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
