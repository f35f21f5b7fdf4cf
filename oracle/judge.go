package oracle

import (
	"sibyl/engine"
)

// judge compares one position and keeps all evidence of it. The controls' view is that of their teacher-forced
// pass in every part: controls are definitions, whose decode path gives what their prefill gives.
func (g *gate) judge(part PartName, prompt, pos int, ref, test Seen) {
	g.keep(part, prompt, pos, test)
	c := Case{Ref: ref, Test: test, TestShowsTies: g.test.Shows.Has(engine.TopK), Margin: g.p.margin(&ref), Floor: g.p.Margin}
	var chose map[string]int32
	for k, ctl := range g.Controls {
		s := g.ctls[k][prompt][pos]
		switch ctl.Kind {
		case ControlQ:
			c.Q = append(c.Q, s)
		case ControlC:
			c.C = append(c.C, s)
		case ControlE:
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
