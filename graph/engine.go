package graph

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
	"sibyl/internal/shown"
)

func init() { engine.Register("graph", driver{}) }

type driver struct{}

// Describe implements engine.Driver.
func (driver) Describe() string {
	return "executes a bundle's own graph, operation by operation: what was shipped; exact or coreai-cpu; needs a LanguageBundle or an .aimodel"
}

// Open implements engine.Driver. The contract defaults to the profile's, which exact arithmetic computes.
func (driver) Open(ctx context.Context, spec engine.Spec) (engine.Engine, error) {
	b, err := bundle.OpenBundle(ctx, spec.Model, bundle.BundleOptions{NoVerify: spec.NoVerify})
	if err != nil {
		return nil, err
	}
	p, err := b.Program()
	var e *Engine
	if err == nil {
		e, err = New(p, spec)
	}
	if err != nil {
		_ = b.Close() // the first error is the one to tell
		return nil, err
	}
	e.close, e.files = b.Close, b.Check
	e.info.WeightsSHA256 = b.Asset.MainHash()
	if b.Language != nil {
		e.info.MaxPositions = min(e.info.MaxPositions, b.Language.MaxContext)
	}
	return e, nil
}

// Engine executes the functions main and prefill of a program.
type Engine struct {
	m             *machine
	main, prefill *function // prefill is nil where the program has none: then main does its work
	profile       bundle.Profile
	layout        *layout
	taps          []*tap // by the names of package trace
	ops           []*tap // by number
	info          engine.Info
	close         func() error
	files         func() error // whether they are what was opened; nil for a program of none
	closed        bool
}

var _ engine.Stater = (*Engine)(nil)

const (
	// anyPositions bounds a graph whose caches have a dynamic length and whose bundle says no other bound: the longest
	// context of the family.
	anyPositions = 262144
	// foldBytes is what constants may take once they are dequantized; what has no room is made anew at each use.
	foldBytes = 2 << 30
)

// New makes an engine of a decoded program, which may have been changed in memory: this is where faults are injected.
// The program's bytes must stay valid until the engine is closed. Of spec it reads Model (for messages), Contract ("", the
// profile's, or coreai-cpu), Mode ("" or "exact") and Threads.
func New(p *aicode.Program, spec engine.Spec) (*Engine, error) {
	profile, states, err := bundle.Recognise(p)
	if err != nil {
		return nil, err
	}
	arith, contract, err := arithmeticOf(spec, profile)
	if err != nil {
		return nil, err
	}
	pool := kernels.NewPool(spec.Threads)
	m, err := newMachine(p, arith, pool, foldBytes)
	if err != nil {
		return nil, err
	}
	e := &Engine{m: m, main: m.public["main"], prefill: m.public["prefill"], profile: profile, close: func() error { return nil }}
	roles := bundle.RecoverRoles(p, e.main.g, profile)
	if e.layout, err = newLayout(p, e.main.g, states); err != nil {
		return nil, err
	}
	e.describe(spec, contract)
	if e.prefill != nil && !sameInputs(e.main.g, e.prefill.g) {
		return nil, &inputerr.Error{File: p.File, Field: "function prefill", Found: bundle.Signature(e.prefill.g), Want: "the inputs and states of main, " + bundle.Signature(e.main.g), Do: "export the model again"}
	}
	if e.layout.named() {
		e.info.Shows |= engine.Taps | engine.ReadState | engine.TakeState
		e.taps, e.ops = findTaps(p, e.main, roles, profile), opTaps(e.main, profile.Step)
	}
	return e, nil
}

// arithmeticOf is the arithmetic of a spec and the name of the contract that it computes.
func arithmeticOf(spec engine.Spec, profile bundle.Profile) (*Arithmetic, string, error) {
	refuse := func(field, found, want string) error {
		return &inputerr.Error{File: spec.Model + "@graph", Field: field, Found: inputerr.Clip(found, 80), Want: want, Do: "the graph engine computes what the bundle's graph says: leave it out"}
	}
	own, runtime := profile.Contract, "coreai-cpu"
	if profile.Compute == aicode.BF16 {
		runtime = "coreai-cpu-bf16" // the same runtime: on such a bundle coreai-cpu means it
	}
	if own == "" {
		own = profile.Name + " as the graph says"
	}
	switch {
	case spec.Scheme != "":
		return nil, "", refuse("scheme", spec.Scheme, "none: weights are as the bundle stores them")
	case spec.Delta != "" && spec.Delta != "recurrent":
		return nil, "", refuse("delta", spec.Delta, "recurrent, the form that is in the graph")
	case (spec.Contract == "coreai-cpu" || spec.Contract == runtime) && spec.Mode == "":
		return CoreAICPU, runtime, nil
	case spec.Contract == "coreai-cpu" || spec.Contract == runtime:
		return nil, "", refuse("mode", spec.Mode, "none: "+runtime+" is defined by its own order of roundings")
	case spec.Contract != "" && spec.Contract != profile.Contract:
		return nil, "", refuse("contract", spec.Contract, own+" or "+runtime)
	case spec.Mode != "" && spec.Mode != "exact":
		return nil, "", refuse("mode", spec.Mode, "exact")
	}
	return Exact, own, nil
}

func sameInputs(a, b *aicode.Graph) bool {
	return slices.EqualFunc(a.Inputs, b.Inputs, func(x, y aicode.Arg) bool { return x.Name == y.Name && x.State == y.State && x.Type.Equal(y.Type) })
}

// describe fills in what Info says.
func (e *Engine) describe(spec engine.Spec, contract string) {
	g := e.main.g
	logits := g.Outputs[e.logitsAt()].Type
	mode := ""
	if e.m.arith == Exact {
		mode = "exact"
	}
	name := spec.Model + "@graph"
	if mode == "" {
		name += "," + contract
	}
	dtype := func(a arg) string { return grid(a.typ.Elem).String() }
	e.info = engine.Info{
		Engine: "graph", Subject: name, Contract: contract, Scheme: "stored", Mode: mode,
		Shows:     engine.IDs | engine.TopK | engine.Logits,
		VocabSize: int(logits.Dims[2]), MaxPositions: anyPositions, LogitsDType: grid(logits.Elem).String(),
		StateDTypes: engine.StateDTypes{Recurrent: dtype(e.layout.recurrent), Conv: dtype(e.layout.conv), KV: dtype(e.layout.key)},
		CallsMatter: !e.profile.Step && dtype(e.layout.recurrent) != "F32", // a call's end is where states are stored
		Threads:     e.m.pool.Threads(),
	}
	if n := e.layout.key.typ.Dims[3]; n != aicode.Dynamic {
		e.info.MaxPositions = int(n)
	}
}

// logitsAt is which of main's outputs the logits are. Recognise saw them.
func (e *Engine) logitsAt() int {
	return slices.IndexFunc(e.main.g.Outputs, func(a aicode.Arg) bool { return a.Name == "logits" })
}

// Info implements engine.Engine.
func (e *Engine) Info() engine.Info {
	info := e.info
	counts := map[string]int64{}
	if e.m.made > 0 {
		counts["weights made anew at a use"] = e.m.made
	}
	if e.m.traps > 0 {
		counts["operations run through their region"] = e.m.traps
	}
	if len(counts) > 0 {
		info.Fallbacks = counts
	}
	return info
}

// Close lets the program's file go. Every later call fails.
func (e *Engine) Close() error {
	if e.closed {
		return nil
	}
	e.closed = true
	return e.close()
}

var errClosed = errors.New("graph: the engine is closed")

func (e *Engine) limits() engine.Limits {
	return engine.Limits{ConfigFile: e.m.b.p.File, VocabSize: e.info.VocabSize, MaxPositions: e.info.MaxPositions}
}

// check refuses what cannot be run.
func (e *Engine) check(what string, p engine.Prompt, path engine.Path, st *engine.State, generate int) error {
	if e.closed {
		return errClosed
	}
	have := 0
	if st != nil {
		have = st.Len
	}
	if err := e.limits().Check(what, p, path, have, generate); err != nil {
		return err
	}
	for i, t := range p.PositionIDs {
		if t[0] != t[1] || t[0] != t[2] {
			return &inputerr.Error{File: what, Field: fmt.Sprintf("position ids[%d]", i), Found: fmt.Sprint(t), Want: "three equal axes: the graph takes one position a token", Do: "run images' positions on the checkpoint"}
		}
	}
	return nil
}

// asked is what a run is to show.
type asked struct {
	from   int
	topK   int
	logits bool
	sink   engine.Sink
	seq    int
	each   func(*engine.Position) error
}

// unchanged makes a program that somebody wrote to meanwhile an error: what was computed is of neither.
func (e *Engine) unchanged(err *error) {
	if e.files != nil && !e.closed {
		bundle.Unchanged(err, e.files)
	}
}

// Score implements engine.Engine: prompts run one after the other, each in calls of the path's size, or a token a call
// where the graph takes one.
func (e *Engine) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) (err error) {
	defer e.unchanged(&err)
	if len(prompts) != 1 && (want.State != nil || want.FinalState != nil) {
		return &inputerr.Error{File: "prompts", Found: fmt.Sprintf("%d of them", len(prompts)), Want: "one, since a state goes in or out", Do: "score the prompts one at a time"}
	}
	if err := e.shows(want.Taps, want.State, want.FinalState); err != nil {
		return err
	}
	for i, p := range prompts {
		if err := e.check(fmt.Sprintf("prompt %d", i), p, want.Path, want.State, 0); err != nil {
			return err
		}
	}
	for i, p := range prompts {
		s, err := e.start(want.State)
		if err != nil {
			return err
		}
		if err := e.prompt(ctx, s, p, want.Path, asked{want.From, want.TopK, want.Logits, want.Taps, i, each}); err != nil {
			return err
		}
		if err := e.finish(s, i, want.Taps, want.FinalState); err != nil {
			return err
		}
	}
	return nil
}

// shows refuses what a graph of unrecognised layers cannot show.
func (e *Engine) shows(sink engine.Sink, in, out *engine.State) error {
	if !e.info.Shows.Has(engine.Taps) && (sink != nil || in != nil || out != nil) {
		return fmt.Errorf("graph: the layers of this graph were not recognised: %w", engine.ErrNotShown)
	}
	return nil
}

func (e *Engine) start(from *engine.State) (*sequence, error) {
	if from == nil {
		return e.layout.start(), nil
	}
	return e.layout.load(from)
}

// prompt consumes a prompt call by call.
func (e *Engine) prompt(ctx context.Context, s *sequence, p engine.Prompt, path engine.Path, a asked) error {
	if e.profile.Step {
		path = engine.Path{Chunk: 1}
	}
	for at, n := 0, 0; at < len(p.IDs); at += n {
		n = path.End(at, len(p.IDs)) - at
		var pos [][3]int32
		if p.PositionIDs != nil {
			pos = p.PositionIDs[at:][:n]
		}
		if err := e.feed(ctx, s, p.IDs[at:][:n], pos, a); err != nil {
			return err
		}
	}
	return nil
}

// feed is one call: it shows its positions. Where nothing of them is asked for, prefill is called instead of main.
func (e *Engine) feed(ctx context.Context, s *sequence, ids []int32, pos [][3]int32, a asked) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	total := s.len + len(ids)
	if err := s.reserve(e.layout, total); err != nil {
		return err
	}
	f := e.main
	if e.prefill != nil && a.from >= total && a.sink == nil {
		f = e.prefill
	}
	args := make([]value, len(f.g.Inputs))
	for i, in := range f.g.Inputs {
		switch {
		case in.State != "":
			args[i].h = s.states[slices.IndexFunc(e.layout.handles, func(h arg) bool { return h.at == i })]
		case in.Name == "input_ids":
			args[i].t = newInts(aicode.I32, []int{1, len(ids)}, widen(ids))
		default:
			args[i].t = newInts(aicode.I32, []int{1, total}, ramp(s.len, total, pos))
		}
	}
	s.before(e.layout)
	out, err := e.m.run(ctx, f, args, e.watch(s, len(ids), a))
	if err != nil {
		return err
	}
	first := s.len
	s.len = total
	if f != e.main {
		return nil
	}
	return e.report(out[e.logitsAt()].t, first, len(ids), a)
}

func widen(ids []int32) []int64 {
	out := make([]int64, len(ids))
	for i, id := range ids {
		out[i] = int64(id)
	}
	return out
}

// ramp is 0, 1, 2, ... of total positions, the last ones as pos says: the graph reads only those of the call's tokens.
func ramp(have, total int, pos [][3]int32) []int64 {
	out := make([]int64, total)
	for i := range out {
		out[i] = int64(i)
		if i >= have && pos != nil {
			out[i] = int64(pos[i-have][0])
		}
	}
	return out
}

// report shows the rows of a call's logits [1, n, vocab].
func (e *Engine) report(logits *Tensor, first, n int, a asked) error {
	v := e.info.VocabSize
	if logits == nil || logits.Len() != n*v {
		return fmt.Errorf("graph: main gave logits %v for %d tokens of %d ids", logits, n, v)
	}
	rows := logits.floats()
	if err := put(a.sink, logitsName, a.seq, first, n, rows); err != nil {
		return err
	}
	for i := max(0, a.from-first); i < n; i++ {
		if err := a.each(shown.Position(a.seq, first+i, rows[i*v:][:v:v], a.topK, a.logits)); err != nil {
			return err
		}
	}
	return nil
}

// finish hands over the states, to the taps and to the caller.
func (e *Engine) finish(s *sequence, seq int, sink engine.Sink, final *engine.State) error {
	if sink == nil && final == nil {
		return nil
	}
	st := e.layout.export(s)
	if final != nil {
		*final = *st
	}
	for _, name := range sortedNames(st) {
		if err := put(sink, name, seq, 0, 1, st.Tensors[name].Data); err != nil {
			return err
		}
	}
	return nil
}

// Generate implements engine.Engine. The last token is emitted and not consumed.
func (e *Engine) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) (err error) {
	defer e.unchanged(&err)
	n := opt.Tokens()
	if err := e.shows(opt.Taps, opt.State, opt.FinalState); err != nil {
		return err
	}
	if err := e.check("prompt", prompt, opt.Path, opt.State, n); err != nil {
		return err
	}
	if err := e.limits().CheckIDs("forced ids", opt.Force); err != nil {
		return err
	}
	s, err := e.start(opt.State)
	if err != nil {
		return err
	}
	var last *engine.Position
	a := asked{from: s.len + len(prompt.IDs) - 1, topK: opt.TopK, logits: true, sink: opt.Taps, each: func(p *engine.Position) error { last = p; return nil }}
	if err := e.prompt(ctx, s, prompt, opt.Path, a); err != nil {
		return err
	}
	next := int32(s.len)
	for _, p := range prompt.PositionIDs {
		next = max(next, p[0]+1)
	}
	a.from = 0
	for i := range n {
		tok, err := e.choose(opt, i, last)
		if err != nil {
			return err
		}
		if err := each(tok); err != nil {
			return err
		}
		if i == n-1 || opt.Force == nil && slices.Contains(opt.Stop, tok.ID) {
			break
		}
		if err := e.feed(ctx, s, []int32{tok.ID}, [][3]int32{{next, next, next}}, a); err != nil {
			return err
		}
		next++
	}
	return e.finish(s, 0, opt.Taps, opt.FinalState)
}

// choose is the token that follows a position.
func (e *Engine) choose(opt engine.Options, i int, last *engine.Position) (*engine.Token, error) {
	if err := opt.CheckChoice(e.info.Subject, last); err != nil {
		return nil, err
	}
	tok := &engine.Token{Index: i, ID: last.ID, Position: *last}
	switch {
	case opt.Force != nil:
		tok.ID = opt.Force[i]
	case opt.Choose != nil:
		tok.ID = opt.Choose(last.Logits)
		if err := e.limits().CheckIDs("chosen id", []int32{tok.ID}); err != nil {
			return nil, err
		}
	}
	if !opt.Logits {
		tok.Logits = nil
	}
	return tok, nil
}

// Prefill implements engine.Stater.
func (e *Engine) Prefill(ctx context.Context, prompt engine.Prompt, path engine.Path) (*engine.State, error) {
	st := new(engine.State)
	return st, e.Score(ctx, []engine.Prompt{prompt}, engine.Want{From: math.MaxInt, Path: path, FinalState: st}, nil)
}

// Step implements engine.Stater.
func (e *Engine) Step(ctx context.Context, st *engine.State, id int32, topK int) (p *engine.Position, err error) {
	err = e.Score(ctx, []engine.Prompt{{IDs: []int32{id}}}, engine.Want{TopK: topK, Logits: true, State: st},
		func(shown *engine.Position) error { p = shown; return nil })
	return p, err
}
