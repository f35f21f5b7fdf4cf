package oracle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"sibyl/engine"
	"sibyl/internal/inputerr"
)

// Prompt is one prompt of a gate, already tokenized.
type Prompt struct {
	Name string // for tables: "1", "opticks-rays"
	Text string // what was tokenized; may be empty
	IDs  []int32
}

// Setup is what a gate is run on. The engines stay the caller's to close.
type Setup struct {
	Ref, Test engine.Engine
	Controls  []Control
	Prompts   []Prompt
	Text      *Text    // scored beside the prompts; may be nil
	Warnings  []string // known before: "lm_head.weight holds 3 NaN"
	// Progress, if not nil, is told what is being done and how much of it is done.
	Progress func(stage string, done, total int)
}

// Gate asks whether TEST says what REF says. Its parts, in order: which positions REF alone is sure of; whether
// TEST's top-1 is REF's at each of them when both are fed the prompts and REF's greedy continuation; one decode
// step of TEST from REF's state; and TEST's own decode path, re-anchored on REF's ids after each token. Then the
// controls are asked about the flips, and every position is judged.
//
// The error is of bad input (inputerr) or of ctx; an engine that fails or cannot show what is needed makes
// the result INCONCLUSIVE instead. Every position keeps its evidence. See DESIGN section 6.
func Gate(ctx context.Context, s Setup, p Protocol) (*GateResult, error) {
	p.PathName = p.Path.String()
	if err := s.check(&p); err != nil {
		return nil, err
	}
	g := newGate(s, p)
	defer func() { g.noise.drop() }()
	for _, part := range []struct {
		name PartName
		run  func(context.Context) error
	}{
		{Qualification, g.qualify},
		{TeacherForced, g.teacherForce},
		{StateStep, g.stateStep},
		{Rollout, g.rollout},
	} {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("gate stopped before %s: %w", part.name, err)
		}
		if err := g.settle(ctx, part.name, part.run(ctx)); err != nil {
			return nil, err
		}
	}
	if err := g.settleNoise(ctx); err != nil {
		return nil, err
	}
	if err := g.runControls(ctx); err != nil {
		return nil, err
	}
	if err := g.scoreText(ctx); err != nil {
		return nil, err
	}
	g.res.Ref, g.res.Test = describe(s.Ref.Info()), describe(s.Test.Info()) // again: fallbacks were counted meanwhile
	g.judgeAll()
	g.count()
	g.decide()
	g.res.shown = g.shown()
	return g.res, nil
}

// Unavailable is the result of a gate whose engine could not be opened: INCONCLUSIVE, naming it.
func Unavailable(subject string, err error, p Protocol) *GateResult {
	p.PathName = p.Path.String()
	g := newGate(Setup{}, p)
	g.res.Reasons = append(g.res.Reasons, oneLine(fmt.Sprintf("%s is not available: %v", subject, err)))
	g.decide()
	return g.res
}

// check refuses what cannot be gated before anything is run.
func (s *Setup) check(p *Protocol) error {
	if err := p.check(); err != nil {
		return err
	}
	if len(s.Prompts) == 0 {
		return &inputerr.Error{File: "gate", Field: "--prompts", Found: "no prompt", Want: "at least one"}
	}
	for i, q := range s.Prompts {
		if len(q.IDs) == 0 {
			return &inputerr.Error{File: "gate", Field: fmt.Sprintf("prompt %d (%s)", i+1, inputerr.Clip(q.Name, 40)),
				Found: "no token", Want: "at least one", Do: "leave it out, or give it some text"}
		}
	}
	labels := map[string]bool{}
	for _, c := range s.Controls {
		switch c.Kind {
		case ControlQ, ControlC, ControlE, ControlNoise:
		default:
			return fmt.Errorf("gate: control %q has the unknown kind %q", c.Label, c.Kind)
		}
		if c.Engine == nil && c.Open == nil && c.Same == "" || labels[c.Label] {
			return fmt.Errorf("gate: control %q has no engine, or another's label", c.Label)
		}
		labels[c.Label] = true
	}
	return s.Text.Check()
}

// gate is a run in progress.
type gate struct {
	Setup
	p    Protocol
	res  *GateResult
	test engine.Info // as it was at the start

	ref  [][]Seen   // REF over prompt and continuation, [prompt][pos]; nil until qualified
	gen  [][]Seen   // REF's decode path, [prompt][generated token]
	said [][]int32  // what REF said beyond its last correction, [prompt]: a guess of what it will say
	ctls [][][]Seen // the same for each control, [control][prompt][pos]: as far as it was run
	// steps is the decode path of each control whose calls matter, [control][prompt][generated token].
	steps [][][]Seen

	telling sync.Mutex // Progress

	noise *noiseRun // beside the parts, until settleNoise

	tested []Shown // what TEST showed, by part and prompt
	forced error   // how TEST's teacher forcing ended, which is run beside REF's
}

func newGate(s Setup, p Protocol) *gate {
	r := &GateResult{Schema: gateSchema, Reasons: []string{}, Warnings: append([]string{}, s.Warnings...), Protocol: p,
		Controls: []ControlInfo{}, Verdicts: map[Verdict]int{}, Positions: []Evidence{}, Prompts: []PromptResult{},
		Noise: Noise{Source: "not measured: no control runs the reference in the other of fp32 and fp64"}}
	for _, name := range []PartName{Qualification, TeacherForced, StateStep, Rollout} {
		r.Parts = append(r.Parts, Part{Name: name, Status: PartNotRun})
	}
	g := &gate{Setup: s, p: p, res: r, ctls: make([][][]Seen, len(s.Controls)), steps: make([][][]Seen, len(s.Controls))}
	if s.Ref == nil || s.Test == nil {
		return g
	}
	g.test = s.Test.Info()
	r.Ref, r.Test = describe(s.Ref.Info()), describe(g.test)
	for _, c := range s.Controls {
		info := ControlInfo{Kind: c.Kind, Label: c.Label, Expected: c.Expected || c.Kind == ControlE, Noisy: c.Noisy, Same: c.Same}
		if c.Engine != nil {
			info.Engine = describe(c.Engine.Info())
		}
		r.Controls = append(r.Controls, info)
	}
	for i, q := range s.Prompts {
		if q.Name == "" {
			q.Name = fmt.Sprint(i + 1)
		}
		r.Prompts = append(r.Prompts, PromptResult{Name: q.Name, Text: q.Text, IDs: q.IDs})
	}
	return g
}

// breach is an engine's failure: who failed, in doing what.
type breach struct {
	who, doing string
	err        error
}

func (b *breach) Error() string { return b.who + ", " + b.doing + ": " + b.err.Error() }
func (b *breach) Unwrap() error { return b.err }

// skip is why a part is left out; it says nothing against TEST.
type skip struct{ why string }

func (s skip) Error() string { return s.why }

// settle records how a part ended. It returns only the errors that end the gate.
func (g *gate) settle(ctx context.Context, name PartName, err error) error {
	part := g.res.part(name)
	var bad *inputerr.Error
	var left skip
	switch {
	case err == nil:
		part.Status = PartRan
	case ctx.Err() != nil:
		return fmt.Errorf("gate stopped in %s: %w", name, ctx.Err())
	case errors.As(err, &left):
		part.Note = left.why
	case errors.Is(err, engine.ErrNotShown):
		part.Status, part.Note = PartNotShown, oneLine(err.Error())
	case errors.As(err, &bad):
		return err
	default:
		part.Status, part.Note = PartBroke, oneLine(err.Error())
		g.res.Reasons = append(g.res.Reasons, "an engine is not available: "+part.Note)
	}
	return nil
}

// settleNoise ends the run beside the parts. If it failed, the first part did, before the others.
func (g *gate) settleNoise(ctx context.Context) error {
	err := g.endNoise()
	if err == nil {
		return nil
	}
	later := g.res.Reasons
	g.res.Reasons = []string{}
	err = g.settle(ctx, Qualification, err)
	g.res.Reasons = append(g.res.Reasons, later...)
	return err
}

// progressFunc is Setup.Progress.
type progressFunc = func(stage string, done, total int)

// oneLine keeps an engine's message from breaking the first line, which is the decision.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// progress may be called from several goroutines.
func (g *gate) progress(stage string, done, total int) {
	g.telling.Lock()
	defer g.telling.Unlock()
	if g.Progress != nil {
		g.Progress(stage, done, total)
	}
}

// ticks gives what is called after each token of the paths.
func (g *gate) ticks(stage string, paths []decodePath) func() {
	done, total := 0, 0
	for _, d := range paths {
		total += d.steps()
	}
	g.progress(stage, 0, total)
	return func() {
		done++
		g.progress(stage, done, total)
	}
}
