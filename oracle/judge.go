package oracle

import (
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

// judge compares one position and keeps all evidence of it.
func (g *gate) judge(part PartName, prompt, pos int, ref, test Seen) {
	c := Case{Ref: ref, Test: test, TestShowsTies: g.test.Shows.Has(engine.TopK), Margin: g.p.margin(&ref), Floor: g.p.Margin}
	var chose map[string]int32
	for k, ctl := range g.Controls {
		s, ok := g.controlAt(k, part, prompt, pos)
		if !ok || ctl.Kind == ControlNoise {
			continue
		}
		switch ctl.Kind {
		case ControlQ:
			c.Q = append(c.Q, s)
		case ControlC:
			c.C = append(c.C, s)
		}
		if ctl.Kind == ControlE || ctl.Expected {
			c.E = append(c.E, s)
		}
		if chose == nil {
			chose = make(map[string]int32, len(g.Controls))
		}
		chose[ctl.Label] = s.ID
	}
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

// count fills in the parts and the verdicts. Part 1 counts the reference's own margins; positions above the
// floor are those of all distinct positions, since the later parts meet the same ones again.
func (g *gate) count() {
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
