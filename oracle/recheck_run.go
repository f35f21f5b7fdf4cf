package oracle

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"sibyl/engine"
)

// recheck is one side in one part, run again.
type recheck struct {
	t        *Transcript
	c        *RecheckCheck
	recorded []Shown
	e, ref   engine.Engine
	progress func(stage string, done, total int)

	worstLogit, worstProb float64
}

// part runs the part again and compares it.
func (r *recheck) part(ctx context.Context) error {
	r.worstLogit, r.worstProb = -1, -1
	info := r.e.Info()
	r.c.Tolerance = tolerance(info, r.t.Sibyl == nil)
	err := r.run(ctx, info)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("recheck stopped: %w", ctx.Err())
	case err != nil:
		if r.c.Note = oneLine(err.Error()); r.c.Differ == 0 {
			return nil
		}
		// What differs before an engine fails, differs.
	}
	r.c.Status = "agrees"
	if r.c.Differ > 0 {
		r.c.Status = "differs"
	}
	if r.worstLogit >= 0 {
		r.c.WorstLogitGap = &r.worstLogit
	}
	if r.worstProb >= 0 {
		r.c.WorstProbGap = &r.worstProb
	}
	return nil
}

// tolerance is how far an engine's logits may be from what it showed before, in units of max(1, the largest of them).
// Exact arithmetic promises bits. float64's and fast fp32's bounds are those of the engines' conformance suite: what
// two paths of one engine may be apart. An engine that promises neither gets two ulps of fp16. The field's oracle is
// fp32 in another program: 2e-4, what our own fp32 may be from transformers'.
func tolerance(i engine.Info, foreign bool) float64 {
	switch {
	case foreign:
		return 2e-4
	case i.Mode == "exact", strings.HasPrefix(i.Mode, noisePrefix): // noise is a function of exact values
		return 0
	case i.Contract == "float64":
		return 0x1p-23
	case i.Mode == "fast":
		return 2e-5
	}
	return 0x1p-9
}

// protocol is how the texts reach the engine.
func (r *recheck) protocol() *Protocol {
	if r.t.Sibyl != nil {
		return &r.t.Sibyl.Result.Protocol
	}
	p := DefaultProtocol()
	return &p
}

// prompt gives prompt number i with the ids its decode path consumed.
func (r *recheck) prompt(i int) PromptResult {
	if r.t.Sibyl != nil {
		return r.t.Sibyl.Result.Prompts[i]
	}
	q := PromptResult{Name: "input_ids", IDs: r.t.InputIDs, RefIDs: r.t.Oracle.GenIDs}
	if r.c.By == RoleTest {
		q.RefIDs = r.t.Engine.GenIDs // it ran freely
	}
	return q
}

func (r *recheck) run(ctx context.Context, info engine.Info) error {
	p, total, who := r.protocol(), 0, r.c.who()
	for _, s := range r.recorded {
		total += len(s.Seen)
	}
	tick := func() {
		if r.progress != nil {
			r.progress(who+" again: "+strings.ReplaceAll(string(r.c.Part), "_", " "), r.c.Positions, total)
		}
	}
	if r.c.Part == TeacherForced {
		texts := make([][]int32, len(r.recorded))
		for i := range r.recorded {
			texts[i] = r.t.text(&r.recorded[i])
		}
		return score(ctx, r.e, who, texts, p, nil, func(seq, pos int, s Seen) error {
			r.compare(r.recorded[seq], pos, s)
			tick()
			return nil
		})
	}
	if r.c.Part == StateStep {
		for _, rec := range r.recorded {
			q := r.prompt(rec.Prompt)
			s, err := r.step(ctx, &q, p, info)
			if err != nil {
				return err
			}
			r.compare(rec, 0, s)
			tick()
		}
		return nil
	}
	var paths []decodePath
	var recs []Shown
	for _, rec := range r.recorded {
		if q := r.prompt(rec.Prompt); len(rec.Seen) > 0 {
			paths, recs = append(paths, decodePath{name: q.Name, ids: q.IDs, force: q.RefIDs[:len(rec.Seen)]}), append(recs, rec)
		}
	}
	// Compared prompt by prompt, in whatever order tokens come: the first difference is told.
	now, at, next := make([][]Seen, len(paths)), 0, 0
	return generate(ctx, r.e, who, paths, p, func(i, _ int, s Seen) error {
		for now[i] = append(now[i], s); at < len(paths) && next < len(now[at]); {
			r.compare(recs[at], next, now[at][next])
			tick()
			if next++; next == len(recs[at].Seen) {
				at, next = at+1, 0
			}
		}
		return nil
	})
}

// step is one step of TEST from the state REF has now after the prompt.
func (r *recheck) step(ctx context.Context, q *PromptResult, p *Protocol, info engine.Info) (Seen, error) {
	from, ok := r.ref.(engine.Stater)
	if !ok || !r.ref.Info().Shows.Has(engine.ReadState) {
		return Seen{}, fmt.Errorf("REF, whose state it starts from, is not at hand or shows none: %w", engine.ErrNotShown)
	}
	to, ok := r.e.(engine.Stater)
	if !ok || !info.Shows.Has(engine.TakeState) {
		return Seen{}, fmt.Errorf("it takes no state: %w", engine.ErrNotShown)
	}
	state, err := from.Prefill(ctx, engine.Prompt{IDs: q.IDs}, p.Path)
	if err != nil {
		return Seen{}, err
	}
	if state, _, err = roundState(state, info.StateDTypes); err != nil {
		return Seen{}, err
	}
	pos, err := to.Step(ctx, state, q.RefIDs[0], p.candidates(info.Shows))
	if err != nil {
		return Seen{}, err
	}
	return see(pos, info.Shows), nil
}

// compare holds one position against the recorded one. If every logit is within b, a gap of logits moves by at most
// 2b; every probability is then within a factor exp(2b), so a gap of probabilities moves by about 2b at most.
func (r *recheck) compare(rec Shown, i int, now Seen) {
	was := &rec.Seen[i]
	scale := 1.0
	if len(now.Top) > 0 && finite(now.Top[0].Logit) {
		scale = max(1, math.Abs(now.Top[0].Logit))
	}
	b := 2 * r.c.Tolerance * scale
	r.c.Positions++
	why := ""
	switch {
	case was.Fault != now.Fault:
		why = fmt.Sprintf("recorded %q, now %q", was.Fault, now.Fault)
	case was.ID != now.ID && !(now.between(now.ID, was.ID) <= b):
		why = fmt.Sprintf("recorded id %d, now %d", was.ID, now.ID)
	case was.ID != now.ID:
		r.c.Close++
	case b == 0 && len(was.Top) > 0 && !slices.Equal(was.Ties, now.Ties):
		why = fmt.Sprintf("recorded ties %v, now %v", was.Ties, now.Ties)
	}
	for _, m := range []struct {
		name     string
		was, now float64
		bound    float64
		worst    *float64
	}{{"logit gap", was.LogitGap, now.LogitGap, b, &r.worstLogit}, {"prob gap", was.ProbGap, now.ProbGap, max(b, probNoise), &r.worstProb}} {
		if !finite(m.was) || !finite(m.now) {
			continue
		}
		d := math.Abs(m.was - m.now)
		*m.worst = max(*m.worst, d)
		if d > m.bound && why == "" {
			why = fmt.Sprintf("recorded %s %.9g, now %.9g, more than %.2g apart", m.name, m.was, m.now, m.bound)
		}
	}
	if why == "" {
		return
	}
	if r.c.Differ++; r.c.First == "" {
		r.c.First = fmt.Sprintf("prompt %d, position %d: %s", rec.Prompt, rec.From+i, why)
	}
}
