package oracle

import (
	"context"
	"fmt"
	"strings"

	"sibyl/engine"
	"sibyl/precision"
)

// Control is an engine run beside TEST that says what a correct engine would have chosen.
type Control struct {
	Kind  ControlKind
	Label string // unique among the controls: "Q hf-fp32, int8hu-sym"
	// Expected says that it is one realisation of the expected conversion: E always; C where TEST's weights are REF's,
	// and Q where TEST's contract is.
	Expected bool
	// One of three: an engine that is open; a way to open one when it is needed, which the gate then closes; or the side
	// (REF or TEST) that it would only repeat, whose view it has.
	Engine engine.Engine
	Open   func(context.Context) (engine.Engine, error)
	Same   Role
}

// Side is what the controls must know of REF or TEST: whose weights, read how, under which contract. The names are
// those of engine.Spec; "" is "hf-fp32", "stored" and "exact", and fp64's "float64" counts as hf-fp32.
type Side struct {
	Engine                        string // "cpu": a control may be the very same engine
	Model, Scheme, Contract, Mode string
}

// ControlSpec is a control before it is opened by the CPU engine.
type ControlSpec struct {
	Control // without an engine
	Spec    engine.Spec
}

func (s Side) normal() Side {
	if s.Contract == "" || s.Contract == "float64" {
		s.Contract = precision.HFFP32.Name
	}
	if s.Scheme == "" {
		s.Scheme = "stored"
	}
	if s.Mode == "" {
		s.Mode = "exact"
	}
	return s
}

// Controls derives the controls of DESIGN section 6: Q is REF's contract with TEST's weights, C TEST's contract with
// REF's weights, E both, in each realisation of TEST's contract: exact, fast, and what precision.Realisations lists.
// Where the weights are the same, C in each realisation is the expected conversion and there is no other; where the
// contract is, Q is. What REF or TEST itself is, is not run twice. The error is of a contract that cannot be read.
func Controls(ref, test Side) ([]ControlSpec, error) {
	ref, test = ref.normal(), test.normal()
	forms, err := realise(test)
	if err != nil {
		return nil, err
	}
	sameWeights := ref.Model == test.Model && ref.Scheme == test.Scheme
	b := &controlList{ref: ref, test: test}
	switch {
	case sameWeights:
		b.each(ControlC, forms)
	case ref.Contract == test.Contract:
		b.each(ControlQ, forms)
	default:
		b.add(ControlQ, false, Side{Engine: "cpu", Model: test.Model, Scheme: test.Scheme, Contract: ref.Contract, Mode: "exact"})
		b.add(ControlC, false, Side{Engine: "cpu", Model: ref.Model, Scheme: ref.Scheme, Contract: test.Contract, Mode: "exact"})
		b.each(ControlE, forms)
	}
	return b.out, nil
}

// realise lists the realisations of TEST's contract on TEST's weights, the exact one first.
func realise(test Side) ([]Side, error) {
	c, err := precision.Choose(test.Contract)
	if err != nil {
		return nil, err
	}
	one := Side{Engine: "cpu", Model: test.Model, Scheme: test.Scheme, Contract: test.Contract, Mode: "exact"}
	out := []Side{one}
	if c.Contract.Arithmetic == "" {
		one.Mode = "fast"
		out = append(out, one)
	}
	if c.File == "" {
		for _, name := range precision.Realisations(test.Contract) {
			one.Contract, one.Mode = name, "exact"
			out = append(out, one)
		}
	}
	return out, nil
}

type controlList struct {
	ref, test Side
	out       []ControlSpec
}

func (b *controlList) each(kind ControlKind, forms []Side) {
	for _, f := range forms {
		b.add(kind, true, f)
	}
}

func (b *controlList) add(kind ControlKind, expected bool, s Side) {
	c := ControlSpec{Control: Control{Kind: kind, Expected: expected}, Spec: engine.Spec{Model: s.Model, Contract: s.Contract}}
	name := s.Contract
	if s.Scheme != "stored" {
		c.Spec.Scheme = s.Scheme
		name += ", " + s.Scheme
	}
	if contract, err := precision.Choose(s.Contract); err == nil && contract.Contract.Arithmetic == "" {
		c.Spec.Mode = s.Mode // else the contract brings its own arithmetic
	}
	if s.Mode == "fast" {
		name += ", fast"
	}
	c.Label = string(kind) + " " + name
	switch s {
	case b.test:
		c.Same = RoleTest
	case b.ref:
		c.Same = RoleRef
	}
	b.out = append(b.out, c)
}

// Kinds keeps the controls of the kinds that text lists ("Q,C"); "all" and "" keep every one, "none" none.
func Kinds(specs []ControlSpec, text string) ([]ControlSpec, error) {
	if text == "" || text == "all" {
		return specs, nil
	}
	want := map[ControlKind]bool{}
	for _, k := range strings.Split(text, ",") {
		switch kind := ControlKind(strings.ToUpper(strings.TrimSpace(k))); kind {
		case ControlQ, ControlC, ControlE:
			want[kind] = true
		default:
			if text != "none" {
				return nil, fmt.Errorf("%q is none of Q, C and E", k)
			}
		}
	}
	var out []ControlSpec
	for _, c := range specs {
		// Where one kind stands for the expected conversion, asking for E asks for it.
		if want[c.Kind] || c.Expected && want[ControlE] {
			out = append(out, c)
		}
	}
	return out, nil
}

// runControls runs the controls over the texts that hold a flip, as far as its last one: elsewhere they have nothing
// to explain. A control that fails is a reason to doubt: a cause could be missed.
func (g *gate) runControls(ctx context.Context) error {
	if g.ref == nil {
		return nil
	}
	texts, prompts := g.flipped()
	for k, c := range g.Controls {
		if c.Kind == ControlNoise || c.Same != "" || len(texts) == 0 {
			continue
		}
		rows, err := g.runControl(ctx, k, texts)
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("gate stopped in the controls: %w", ctx.Err())
			}
			g.res.Controls[k].Note = oneLine(err.Error())
			g.res.Reasons = append(g.res.Reasons, "an engine is not available: "+g.res.Controls[k].Note)
			continue
		}
		g.ctls[k] = make([][]Seen, len(g.res.Prompts))
		for i, row := range rows {
			g.ctls[k][prompts[i]] = row
		}
		g.res.Controls[k].Positions = size(texts)
	}
	return nil
}

// runControl scores texts with control k, which it opens and closes if that is left to it.
func (g *gate) runControl(ctx context.Context, k int, texts [][]int32) (rows [][]Seen, err error) {
	c := &g.Controls[k]
	who, e := "control "+c.Label, c.Engine
	if e == nil {
		g.progress(who+": opening", 0, 1)
		if e, err = c.Open(ctx); err != nil {
			return nil, &breach{who, "opening it", err}
		}
		defer func() {
			if closeErr := e.Close(); err == nil && closeErr != nil {
				rows, err = nil, &breach{who, "closing it", closeErr}
			}
		}()
	}
	rows, err = g.scoreTexts(ctx, e, who, texts)
	g.res.Controls[k].Engine = describe(e.Info())
	return rows, err
}

// flipped gives the texts of prompts with a flip up to the last one, and which prompts they are; all texts in full if
// the protocol wants controls everywhere.
func (g *gate) flipped() (texts [][]int32, prompts []int) {
	upto := make([]int, len(g.res.Prompts))
	all := g.texts()
	for i := range g.tested {
		t := &g.tested[i]
		for k := range t.Seen {
			if ref := g.refAt(t.Part, t.Prompt, t.From+k); t.Seen[k].ID != ref.ID {
				upto[t.Prompt] = max(upto[t.Prompt], t.From+k+1)
			}
		}
	}
	for i, n := range upto {
		if g.p.Controls == ControlsEverywhere {
			n = len(all[i])
		}
		if n = min(n, len(all[i])); n > 0 {
			texts, prompts = append(texts, all[i][:n]), append(prompts, i)
		}
	}
	return texts, prompts
}

// controlAt is what control k showed at a position, if it was run there. Its view is that of its teacher-forced pass
// in every part: controls are definitions, whose decode path gives what their prefill gives.
func (g *gate) controlAt(k, prompt, pos int) (s Seen, ok bool) {
	var row []Seen
	switch c := &g.Controls[k]; {
	case c.Same == RoleRef:
		row = g.ref[prompt]
	case c.Same == RoleTest:
		for i := range g.tested {
			if t := &g.tested[i]; t.Part == TeacherForced && t.Prompt == prompt {
				row = t.Seen
				break
			}
		}
	case g.ctls[k] != nil:
		row = g.ctls[k][prompt]
	}
	if pos >= len(row) {
		return Seen{}, false
	}
	return row[pos], true
}
