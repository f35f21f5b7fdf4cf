package oracle

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

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
	// Noisy says that it is a realisation whose roundings are off by up to one unit. It is asked only about positions that
	// nothing else explains.
	Noisy bool
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
	// Also are further contracts, comma separated, that the engine realises (engine.Info.Realises after its first).
	Also string
}

// ControlSpec is a control before it is opened by the CPU engine.
type ControlSpec struct {
	Control // without an engine
	Spec    engine.Spec
}

// is says whether two sides are one engine on one model.
func (s Side) is(o Side) bool {
	s.Also, o.Also = "", ""
	return s == o
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
// contract is, Q is. What REF or TEST itself is, is not run twice. Behind
// the realisations of a named contract stand the noisy ones. The error is of a contract that cannot be read.
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

// noisePrefix begins the CPU engine's noisy modes: model.NoisePrefix, which oracle does not import.
const noisePrefix = "noise:"

// noisyRealisations is how many there are, of seeds 1, 2, ...: RATIONALE.md says why this many.
const noisyRealisations = 8

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
		for _, name := range slices.Concat(strings.FieldsFunc(test.Also, func(r rune) bool { return r == ',' }), precision.Realisations(test.Contract)) {
			one.Contract, one.Mode = name, "exact"
			out = append(out, one)
		}
		one.Contract = test.Contract
		for seed := 1; c.Contract.Arithmetic == "" && seed <= noisyRealisations; seed++ {
			one.Mode = noisePrefix + strconv.Itoa(seed)
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
	c := ControlSpec{Control: Control{Kind: kind, Expected: expected, Noisy: strings.HasPrefix(s.Mode, noisePrefix)}, Spec: engine.Spec{Model: s.Model, Contract: s.Contract}}
	name := s.Contract
	if s.Scheme != "stored" {
		c.Spec.Scheme = s.Scheme
		name += ", " + s.Scheme
	}
	if contract, err := precision.Choose(s.Contract); err == nil && contract.Contract.Arithmetic == "" {
		c.Spec.Mode = s.Mode // else the contract brings its own arithmetic
	}
	if s.Mode == "fast" || c.Noisy {
		name += ", " + s.Mode
	}
	c.Label = string(kind) + " " + name
	switch {
	case s.is(b.test):
		c.Same = RoleTest
	case s.is(b.ref):
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
// to explain. What is then still unexplained is put to the noisy ones. A control that fails is a reason to doubt: a cause
// could be missed. Where the weights are streamed, all that are asked the same read them together.
func (g *gate) runControls(ctx context.Context) error {
	if g.ref == nil {
		return nil
	}
	together := g.Ref.Info().Streams
	for _, noisy := range []bool{false, true} {
		var ks []int
		for k, c := range g.Controls {
			if c.Noisy == noisy && c.Kind != ControlNoise && c.Same == "" {
				ks = append(ks, k)
			}
		}
		for len(ks) > 0 {
			n := 1
			if together {
				n = len(ks)
			}
			texts, prompts := g.flipped()
			if noisy {
				texts, prompts = g.unexplained()
			}
			if err := g.askControls(ctx, ks[:n], texts, prompts); err != nil {
				return err
			}
			ks = ks[n:]
		}
	}
	return nil
}

// askControls runs controls ks over texts of some prompts, through the layers together.
func (g *gate) askControls(ctx context.Context, ks []int, texts [][]int32, prompts []int) error {
	if len(texts) == 0 {
		return nil
	}
	t, rows, errs := newTurns(len(ks)), make([][][]Seen, len(ks)), make([]error, len(ks))
	var wg sync.WaitGroup
	for i, k := range ks {
		wg.Go(func() {
			defer t.leave(i)
			rows[i], g.res.Controls[k].Engine, errs[i] = g.runControl(ctx, k, texts, t.layer(i), g.progress, func(ctx context.Context, k int, e engine.Engine, who string) error {
				t.leave(i)
				return g.decodeControl(ctx, k, e, who)
			})
		})
	}
	wg.Wait()
	for i, k := range ks {
		if errs[i] != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("gate stopped in the controls: %w", ctx.Err())
			}
			g.res.Controls[k].Note = oneLine(errs[i].Error())
			g.res.Reasons = append(g.res.Reasons, "an engine is not available: "+g.res.Controls[k].Note)
			continue
		}
		g.ctls[k] = make([][]Seen, len(g.res.Prompts))
		for j, row := range rows[i] {
			g.ctls[k][prompts[j]] = row
		}
	}
	return nil
}

// runControl scores texts with control k, which it opens and closes if that is left to it; layer is engine.Want.Layer. Then,
// if not nil, is asked of it too. The info is what the engine says of itself afterwards, or what was known of it.
func (g *gate) runControl(ctx context.Context, k int, texts [][]int32, layer func(int), tell progressFunc,
	then func(ctx context.Context, k int, e engine.Engine, who string) error) (rows [][]Seen, info EngineInfo, err error) {
	c := &g.Controls[k]
	who, e := "control "+c.Label, c.Engine
	info = g.res.Controls[k].Engine
	if e == nil {
		tell(who+": opening", 0, 1)
		if e, err = c.Open(ctx); err != nil {
			return nil, info, &breach{who, "opening it", err}
		}
		defer func() {
			if closeErr := e.Close(); err == nil && closeErr != nil {
				rows, err = nil, &breach{who, "closing it", closeErr}
			}
		}()
	}
	rows, err = g.scoreTexts(ctx, e, who, texts, layer, tell)
	info = describe(e.Info())
	if err == nil && then != nil {
		err = then(ctx, k, e, who)
	}
	return rows, info, err
}

// decodeControl runs control k along TEST's decode path, if its results depend on where calls end: what it shows of a
// token in one pass over the text then says nothing of that token as a step.
func (g *gate) decodeControl(ctx context.Context, k int, e engine.Engine, who string) error {
	if !e.Info().CallsMatter {
		return nil
	}
	g.steps[k] = make([][]Seen, len(g.res.Prompts))
	var paths []decodePath
	var prompts []int
	for i := range g.res.Prompts {
		q := &g.res.Prompts[i]
		if n := g.flippedSteps(i); n > 0 {
			paths, prompts = append(paths, decodePath{name: q.Name, ids: q.IDs, force: q.RefIDs[:n]}), append(prompts, i)
		}
	}
	tick := g.ticks(who+": decode path", paths)
	return generate(ctx, e, who, paths, &g.p, func(i, _ int, s Seen) error {
		g.steps[k][prompts[i]] = append(g.steps[k][prompts[i]], s)
		tick()
		return nil
	})
}

// flippedSteps is how many tokens after prompt i there are up to TEST's last flip while decoding; all of them if the
// protocol wants controls everywhere.
func (g *gate) flippedSteps(i int) (n int) {
	q := &g.res.Prompts[i]
	if g.p.Controls == ControlsEverywhere {
		return len(q.RefIDs)
	}
	for _, t := range g.tested {
		for k := range t.Seen {
			if pos := t.From + k; t.Prompt == i && t.Part != TeacherForced && t.Seen[k].ID != g.refAt(t.Part, i, pos).ID {
				n = max(n, pos-(len(q.IDs)-1)+1)
			}
		}
	}
	return min(n, len(q.RefIDs))
}

// flipped gives the texts of prompts with a flip up to the last one, and which prompts they are; all texts in full if
// the protocol wants controls everywhere.
func (g *gate) flipped() (texts [][]int32, prompts []int) {
	return g.upTo(g.p.Controls == ControlsEverywhere, func(_ PartName, _, _ int, ref, test Seen) bool { return test.ID != ref.ID })
}

// unexplained gives the texts of prompts with a DEFECT whose logits are numbers, up to the last one.
func (g *gate) unexplained() (texts [][]int32, prompts []int) {
	return g.upTo(false, func(part PartName, prompt, pos int, ref, test Seen) bool {
		c, _ := g.caseAt(part, prompt, pos, ref, test)
		v, _ := c.Judge()
		return v == Defect && test.Fault == ""
	})
}

// upTo gives the texts of prompts as far as the last position of TEST's that is wanted, or in full.
func (g *gate) upTo(full bool, want func(part PartName, prompt, pos int, ref, test Seen) bool) (texts [][]int32, prompts []int) {
	upto := make([]int, len(g.res.Prompts))
	all := g.texts()
	for i := range g.tested {
		t := &g.tested[i]
		for k, s := range t.Seen {
			if want(t.Part, t.Prompt, t.From+k, g.refAt(t.Part, t.Prompt, t.From+k), s) {
				upto[t.Prompt] = max(upto[t.Prompt], t.From+k+1)
			}
		}
	}
	for i, n := range upto {
		if full || n > 0 && g.p.Path.Last {
			n = len(all[i]) // of the last, a shorter text would have another last call
		}
		if n = min(n, len(all[i])); n > 0 {
			texts, prompts = append(texts, all[i][:n]), append(prompts, i)
		}
	}
	return texts, prompts
}

// controlAt is what control k showed at a position, if it was run there. Its view is that of its teacher-forced pass
// in every part, since the decode path of a definition gives what its prefill gives; but where calls matter it is that of
// its own decode path in the parts that decode.
func (g *gate) controlAt(k int, part PartName, prompt, pos int) (s Seen, ok bool) {
	row, first := g.controlRow(k, part, prompt)
	if pos < first || pos-first >= len(row) {
		return Seen{}, false
	}
	return row[pos-first], true
}

// controlRow is the view of control k that counts in a part, and the position it begins at.
func (g *gate) controlRow(k int, part PartName, prompt int) (row []Seen, first int) {
	c, decoding := &g.Controls[k], part != TeacherForced
	step := len(g.res.Prompts[prompt].IDs) - 1
	switch {
	case c.Same == RoleRef && decoding && g.Ref.Info().CallsMatter:
		return g.gen[prompt], step
	case c.Same == RoleRef:
		return g.ref[prompt], 0
	case c.Same == RoleTest:
		want := TeacherForced
		if decoding && g.test.CallsMatter {
			want = Rollout
		}
		for i := range g.tested {
			if t := &g.tested[i]; t.Part == want && t.Prompt == prompt {
				return t.Seen, t.From
			}
		}
	case decoding && g.res.Controls[k].Engine.CallsMatter:
		if g.steps[k] != nil {
			return g.steps[k][prompt], step
		}
	case g.ctls[k] != nil:
		return g.ctls[k][prompt], 0
	}
	return nil, 0
}
