package oracle

import (
	"math"

	"sibyl/engine"
)

// judgeAll judges every position that TEST showed, by part, prompt and position.
func (g *gate) judgeAll() {
	if g.ref == nil {
		return
	}
	for i := range g.tested {
		for k, s := range g.tested[i].Seen {
			t := &g.tested[i]
			g.judge(t.Part, t.Prompt, t.From+k, g.refAt(t.Part, t.Prompt, t.From+k), s)
		}
	}
}

// refAt is what REF showed at a position: in decode along its own path, else in teacher forcing.
func (g *gate) refAt(part PartName, prompt, pos int) Seen {
	if part == TeacherForced {
		return g.ref[prompt][pos]
	}
	return g.gen[prompt][pos-(len(g.res.Prompts[prompt].IDs)-1)]
}

// caseAt gathers what the table may ask of a position, and the id that each control chose there.
func (g *gate) caseAt(part PartName, prompt, pos int, ref, test Seen) (c Case, chose map[string]int32) {
	c = Case{Ref: ref, Test: test, TestShowsTies: g.test.Shows.Has(engine.TopK), Margin: g.p.margin(&ref), Floor: g.p.Margin}
	for k, ctl := range g.Controls {
		s, ok := g.controlAt(k, part, prompt, pos)
		if !ok || ctl.Kind == ControlNoise {
			continue
		}
		switch {
		case ctl.Noisy:
			c.Noisy = append(c.Noisy, s)
		case ctl.Kind == ControlQ:
			c.Q = append(c.Q, s)
		case ctl.Kind == ControlC:
			c.C = append(c.C, s)
		}
		if !ctl.Noisy && (ctl.Kind == ControlE || ctl.Expected) {
			c.E = append(c.E, s)
		}
		if chose == nil {
			chose = make(map[string]int32, len(g.Controls))
		}
		chose[ctl.Label] = s.ID
	}
	return c, chose
}

// judge compares one position and keeps all evidence of it.
func (g *gate) judge(part PartName, prompt, pos int, ref, test Seen) {
	c, chose := g.caseAt(part, prompt, pos, ref, test)
	verdict, why := c.Judge()
	e := Evidence{Part: part, Prompt: prompt, Pos: pos, Verdict: verdict, Why: why,
		Qualified: c.Qualified(), Accepted: g.p.accepts(verdict),
		RefID: ref.ID, TestID: test.ID, RefTies: ref.Ties, TestTies: test.Ties,
		LogitGap: shown(ref.LogitGap), ProbGap: shown(ref.ProbGap),
		TestLogitGap: shown(test.LogitGap), TestProbGap: shown(test.ProbGap),
		TestOverRef: shown(test.between(test.ID, ref.ID)),
		TestFault:   test.Fault, Controls: chose}
	if len(ref.Top) > 0 {
		e.GapULPs = shown(ref.LogitGap / ulp(g.test.LogitsDType, ref.Top[0].Logit))
	}
	if rms := g.res.Noise.LogitRMS; rms != nil {
		e.GapNoise = shown(ref.LogitGap / *rms)
	}
	g.res.Positions = append(g.res.Positions, e)
}

// compareControls says of each control that ran how often it chose what REF and TEST chose in teacher forcing, and how far
// it is from REF.
func (g *gate) compareControls() {
	tested := make([][]Seen, len(g.res.Prompts))
	for i := range g.tested {
		if t := &g.tested[i]; t.Part == TeacherForced {
			tested[t.Prompt] = t.Seen
		}
	}
	for k := range g.ctls {
		c := &g.res.Controls[k]
		if c.Kind == ControlNoise {
			continue
		}
		var kl mean
		c.Positions = 0
		for i, row := range g.ctls[k] {
			for pos := range min(len(row), len(g.ref[i])) { // a transcript may say more than there is
				c.Positions++
				if row[pos].ID == g.ref[i][pos].ID {
					c.AsRef++
				}
				if pos < len(tested[i]) && row[pos].ID == tested[i][pos].ID {
					c.AsTest++
				}
				if d := klAtLeast(&g.ref[i][pos], &row[pos]); finite(d) {
					kl.add(d)
				}
			}
		}
		if kl.n > 0 {
			c.KLMean = shown(kl.sum / float64(kl.n))
		}
	}
}

// mean is a sum and how many went into it.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(x float64) { m.sum, m.n = m.sum+x, m.n+1 }

// klAtLeast is the KL divergence of q from p with all ids that one of them does not show taken as one: by the log-sum
// inequality no more than that over the vocabulary. NaN if a log-sum-exp is not shown.
func klAtLeast(p, q *Seen) float64 {
	kl, restP, restQ := 0.0, 1.0, 1.0
	for _, c := range p.Top {
		l, ok := q.logit(c.ID)
		if !ok {
			continue
		}
		lp, lq := c.Logit-p.LSE, l-q.LSE
		kl += math.Exp(lp) * (lp - lq)
		restP -= math.Exp(lp)
		restQ -= math.Exp(lq)
	}
	if restP > 1e-12 && restQ > 1e-12 { // below that it is the rounding of the sums
		kl += restP * math.Log(restP/restQ)
	}
	if restP == 1 { // no id is shown by both
		return math.NaN()
	}
	return max(kl, 0) // keeps NaN
}

// count fills in the parts and the verdicts. Part 1 counts the reference's own margins; positions above the
// floor are those of all distinct positions, since the later parts meet the same ones again.
func (g *gate) count() {
	g.compareControls()
	one := g.res.part(Qualification)
	for _, row := range g.ref {
		for pos := range row {
			one.Positions++
			if g.p.margin(&row[pos]) >= g.p.Margin {
				one.Qualified++
			}
		}
	}
	for i := range g.res.Positions {
		e := &g.res.Positions[i]
		part := g.res.part(e.Part)
		part.Positions++
		g.res.Verdicts[e.Verdict]++
		flip := e.Verdict.Flip()
		if e.Qualified {
			part.Qualified++
			if !flip {
				part.Agree++
			}
		}
		if e.Verdict == Tie {
			part.Ties++
		}
		if flip {
			part.Flips++
		}
		if e.Confident() {
			part.Confident++
		}
	}
}
