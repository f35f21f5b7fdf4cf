package oracle

import (
	"fmt"
	"strings"
)

// decide applies the pass rule: FAIL before INCONCLUSIVE before PASS, because a confident flip stands however
// little else was seen.
func (g *gate) decide() {
	r := g.res
	flips := r.ConfidentFlips()
	if len(flips) > 0 {
		r.Decision = Fail
		r.Headline = "DO NOT SHIP: " + explain(flips, r)
		r.Reasons = append([]string{explain(flips, r)}, r.Reasons...)
		r.Sentence = g.sentence(len(flips))
		return
	}
	r.Reasons = append(r.Reasons, g.doubts()...)
	if len(r.Reasons) > 0 {
		r.Decision = Inconclusive
		r.Headline = "INCONCLUSIVE: " + strings.Join(r.Reasons, "; ")
		r.Sentence = "sibyl could not decide whether " + g.name(r.Test, "the test engine") + " gives the tokens of " +
			g.name(r.Ref, "its reference") + ": " + strings.Join(r.Reasons, "; ") + "."
		return
	}
	r.Decision, r.Headline, r.Sentence = Pass, "SHIP", g.sentence(0)
}

// doubts lists why a run without confident flips still proves nothing.
func (g *gate) doubts() (why []string) {
	r := g.res
	if len(r.Reasons) > 0 {
		return nil // an engine broke: that is the reason, the rest follows from it
	}
	tf, ro := r.part(TeacherForced), r.part(Rollout)
	one := r.part(Qualification)
	switch {
	case one.Status != PartRan:
		return []string{"the reference shows too little: " + one.Note}
	case tf.Status != PartRan && ro.Status != PartRan:
		return []string{"nothing was judged: " + tf.Note + "; " + ro.Note}
	case tf.Status != PartRan:
		g.warn("teacher forcing was not judged (%s); the decision rests on the rollout", tf.Note)
	case ro.Status != PartRan && g.p.MaxTokens > 0:
		g.warn("the rollout was not judged (%s); the decision rests on teacher forcing", ro.Note)
	}
	if float64(one.Qualified) < g.p.MinQualified*float64(one.Positions) || one.Qualified == 0 {
		why = append(why, fmt.Sprintf("only %d of %d positions qualify (REF's %s >= %g), %.4g %% are needed",
			one.Qualified, one.Positions, g.p.Unit, g.p.Margin, 100*g.p.MinQualified))
	}
	if g.p.StrictPrompt {
		if below := g.belowStrict(); below != "" {
			why = append(why, "strict prompt: REF's margin is below the floor at "+below)
		}
	}
	return why
}

// belowStrict names the first position that breaks the strict rule and counts the rest. As in the field's own
// gate the rule is about the margins of generated tokens; without any, about those of the prompts.
func (g *gate) belowStrict() string {
	first, n := "", 0
	for i, row := range g.ref {
		from := 0
		if g.p.MaxTokens > 0 {
			from = len(g.res.Prompts[i].IDs) - 1
		}
		for pos := from; pos < len(row); pos++ {
			if g.p.margin(&row[pos]) >= g.p.Margin {
				continue
			}
			if n++; n == 1 {
				first = fmt.Sprintf("prompt %s, position %d", g.res.Prompts[i].Name, pos)
			}
		}
	}
	if n > 1 {
		first += fmt.Sprintf(" and %d more", n-1)
	}
	return first
}

// explain counts confident flips by cause: "3 confident flips, 2 explained by int8hu-sym, 1 unexplained".
func explain(flips []Evidence, r *GateResult) string {
	by := map[Verdict]int{}
	notFinite := 0
	for _, e := range flips {
		if e.TestFault != "" {
			notFinite++
			continue
		}
		by[e.Verdict]++
	}
	var parts []string
	if n := len(flips) - notFinite; n > 0 {
		parts = append(parts, plural(n, "confident flip"))
	}
	if notFinite > 0 {
		parts = append(parts, plural(notFinite, "position")+" with logits that are not finite")
	}
	for _, c := range []struct {
		v    Verdict
		text string
	}{
		{Quant, "explained by " + r.Test.Scheme},
		{Rounding, "explained by the rounding of " + r.Test.Contract},
		{QuantRounding, "explained by " + r.Test.Scheme + " and the rounding of " + r.Test.Contract + " together"},
		{Near, "within the expected conversion's own noise"},
		{Defect, "unexplained"},
	} {
		if n := by[c.v]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c.text))
		}
	}
	return strings.Join(parts, ", ")
}

// sentence is for a model card: what was compared, how much of it, and by what rule.
func (g *gate) sentence(flips int) string {
	r := g.res
	var how []string
	agree, of, generated := 0, 0, 0
	for _, part := range r.Parts[1:] {
		if part.Status != PartRan {
			continue
		}
		agree += part.Agree
		of += part.Qualified
		how = append(how, map[PartName]string{TeacherForced: "teacher-forced", StateStep: "stepping from the reference's state",
			Rollout: "along its own re-anchored decode"}[part.Name])
	}
	for _, q := range r.Prompts {
		generated += len(q.RefIDs)
	}
	says := "chooses the same greedy token as"
	switch {
	case flips > 0:
		says = "cannot be relied on to choose the greedy tokens of"
	case r.accepted() > 0:
		says = "chooses, but for causes that were accepted, the same greedy token as"
	}
	one := r.part(Qualification)
	s := fmt.Sprintf("%s %s %s: it agrees at %d of %d comparisons (%s) where the reference's %s is at least %g, over %s with %s; %.1f %% of %s qualified",
		g.name(r.Test, "TEST"), says, g.name(r.Ref, "REF"), agree, of, strings.Join(how, ", "), strings.ReplaceAll(string(g.p.Unit), "_", " "), g.p.Margin,
		plural(len(r.Prompts), "prompt"), plural(generated, "generated token"),
		100*float64(one.Qualified)/float64(max(1, one.Positions)), plural(one.Positions, "position"))
	if m := &r.Metrics; m.Positions > 0 && r.part(TeacherForced).Status == PartRan {
		s += fmt.Sprintf("; teacher-forced top-1 %d of %d", m.Top1, m.Positions)
		if m.KLMean != nil {
			s += fmt.Sprintf(", mean KL %.2g nats", *m.KLMean)
		}
	}
	if flips > 0 {
		s += "; " + r.Reasons[0]
	} else if notes := r.accepted(); notes > 0 {
		s += fmt.Sprintf("; %s accepted as %s", plural(notes, "flip"), joinVerdicts(g.p.Accept))
	}
	return s + " (sibyl gate)."
}

// accepted counts the qualified flips that the protocol accepts.
func (r *GateResult) accepted() (n int) {
	for i := range r.Positions {
		if e := &r.Positions[i]; e.Accepted && e.Qualified {
			n++
		}
	}
	return n
}

func joinVerdicts(vs []Verdict) string {
	s := make([]string, len(vs))
	for i, v := range vs {
		s[i] = string(v)
	}
	return strings.Join(s, " or ")
}

// name is the subject of an engine, or what else to call it. A subject without a MODEL is of the embedded demo.
func (g *gate) name(e EngineInfo, otherwise string) string {
	switch {
	case e.Subject == "":
		return otherwise
	case strings.HasPrefix(e.Subject, "@"):
		return "the demo model (" + e.Subject + ")"
	}
	return e.Subject
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
