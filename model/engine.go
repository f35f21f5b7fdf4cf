package model

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/gdn"
	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
	"sibyl/internal/memlimit"
	"sibyl/internal/ragged"
	"sibyl/internal/shown"
	"sibyl/precision"
	"sibyl/trace"
)

func init() { engine.Register("cpu", driver{}) }

type driver struct{}

// Describe implements engine.Driver.
func (driver) Describe() string {
	return "the oracle: pure Go, exact (order-free) or fast, every rounding point named; needs nothing"
}

// Open implements engine.Driver. Contract defaults to hf-fp32, for a bundle to its profile's, mode to exact, delta to recurrent.
func (driver) Open(ctx context.Context, spec engine.Spec) (engine.Engine, error) {
	refuse := func(field, found, want string) error {
		return &inputerr.Error{File: spec.Model + "@cpu", Field: field, Found: inputerr.Clip(found, 80), Want: want, Do: "choose one of these"}
	}
	if spec.Delta != "" && spec.Delta != "recurrent" && spec.Delta != "chunk" {
		return nil, refuse("delta", spec.Delta, "recurrent or chunk")
	}
	src, err := bundle.OpenSource(ctx, spec.Model, bundle.BundleOptions{NoVerify: spec.NoVerify})
	if err != nil {
		return nil, err
	}
	plan := &Plan{Keep: src.Sizes().Total() <= keepBytes}
	chosen, err := choose(src, spec.Contract)
	arith := kernels.Exact
	if err == nil {
		var ok bool
		if arith, ok = arithmetic(spec.Mode, chosen); !ok {
			err = refuse("mode", spec.Mode, wantMode)
		}
	}
	if err == nil && chosen.Contract.Arithmetic != "" {
		if arith = kernels.Own(chosen.Contract.Arithmetic); spec.Mode != "" {
			err = refuse("mode", spec.Mode, "none: "+chosen.Contract.Name+" is defined by its own order of roundings")
		}
	}
	if err == nil {
		err = plan.UseContract(src.Config(), chosen)
	}
	if err == nil {
		err = plan.useScheme(src, spec.Scheme)
	}
	var e *Engine
	if err == nil {
		e, err = New(src, plan, arith, spec)
	}
	if err != nil {
		_ = src.Close() // the first error is the one to tell
		return nil, err
	}
	return e, nil
}

// choose gives the contract of that name, or the model's own. A bundle's graph says what Apple's CPU runtime computes of it.
func choose(src bundle.Source, name string) (*precision.Custom, error) {
	if name != "" && name != precision.RuntimeName {
		return precision.Choose(name)
	}
	own, err := bundle.ContractOf(src)
	if err != nil {
		return nil, err
	}
	if runtime := precision.Runtime(own); name != "" && runtime != "" {
		return precision.Choose(runtime)
	}
	if name == "" {
		name = own
	}
	return precision.Choose(name)
}

// checkPositions refuses positions on axes that a bundle's graph does not have: its inputs are ids and one position each.
func (e *Engine) checkPositions(what string, p engine.Prompt) error {
	if e.info.Profile == "" {
		return nil
	}
	for i, t := range p.PositionIDs {
		if t[0] != t[1] || t[0] != t[2] {
			return &inputerr.Error{File: what, Field: fmt.Sprintf("position ids[%d]", i), Found: fmt.Sprint(t), Want: "three equal positions: a bundle's graph has one axis",
				Do: "leave --position-ids out, or use the checkpoint"}
		}
	}
	return nil
}

// Engine is the CPU engine: a decoder bound to a checkpoint, with an arithmetic and threads.
type Engine struct {
	d     *Decoder
	src   bundle.Source
	pool  *kernels.Pool
	arith *kernels.Arith
	info  engine.Info

	stream      *stream // nil: weights stay in memory as the system likes
	logitsBytes int     // what the logits of one pass of the head may take
}

var (
	_ engine.Stater  = (*Engine)(nil)
	_ engine.Batcher = (*Engine)(nil)
)

// New binds src, which the engine owns from then on, under a plan. Of spec it reads Model and Scheme (how the user named
// them; what a scheme does is in the plan), Delta and Threads.
func New(src bundle.Source, plan *Plan, arith *kernels.Arith, spec engine.Spec) (*Engine, error) {
	if !spec.Stream {
		src.Stay() // before Bind reads small weights, and the system what lies around them
	}
	d, err := Bind(src, plan)
	if err != nil {
		return nil, err
	}
	if spec.Delta == "chunk" {
		for l := range d.Layers {
			if g := d.Layers[l].GDN; g != nil {
				if g.Contract.State != precision.F32 {
					return nil, &inputerr.Error{File: spec.Model + "@cpu", Field: "delta", Found: "chunk under " + g.Contract.Name,
						Want: "recurrent: a contract that rounds the state has no chunk form", Do: "leave --delta out"}
				}
				g.Chunk = true
			}
		}
	}
	cfg := src.Config()
	pool := kernels.NewPool(spec.Threads)
	label, part := plan.label()
	mode := arith.Name
	if plan.Contract.Arithmetic != "" { // there is no choice of it
		mode = ""
	}
	name, scheme := subject(src, part, mode, spec.Scheme, plan.scheme, spec.Model)
	e := &Engine{d: d, src: src, pool: pool, arith: arith, logitsBytes: 64 << 20, info: engine.Info{
		Engine: "cpu", Subject: name, Contract: label, Scheme: scheme,
		Mode:      mode,
		Shows:     engine.IDs | engine.TopK | engine.Logits | engine.Taps | engine.ReadState | engine.TakeState,
		VocabSize: cfg.VocabSize, MaxPositions: cfg.MaxPositions, LogitsDType: plan.At(-1, ModHead).LogitsGrid().String(),
		StateDTypes: plan.stateDTypes(cfg), CallsMatter: plan.callsMatter(cfg),
		ConfigSHA256: src.ConfigSHA256(), Threads: pool.Threads(), Streams: spec.Stream,
	}}
	if b, ok := src.(*bundle.Shipped); ok {
		p, err := b.Profile()
		if err != nil {
			return nil, err
		}
		e.info.Profile, e.info.Warnings = p.Name, b.Warnings()
	}
	if spec.Stream {
		e.stream, e.logitsBytes = &stream{src: src, stripe: headStripe}, 256<<20
		if left, err := memlimit.Left(); err == nil {
			// The head is read once for every block of positions: it is kept if it takes no more than half of what there is.
			e.stream.short, e.stream.shortHead = src.Sizes().Total() > left.Bytes, d.Head.Bytes() > left.Bytes/2
		}
	}
	return e, nil
}

// Info implements engine.Engine.
func (e *Engine) Info() engine.Info {
	info := e.info
	if n := gdn.ChunkFallbacks.Load(); n > 0 {
		info.Fallbacks = map[string]int64{"delta chunk -> recurrent": n}
	}
	return info
}

// Close unmaps the checkpoint. Every later call fails.
func (e *Engine) Close() error {
	if e.d == nil {
		return nil
	}
	e.d = nil
	e.stream.wait()
	return e.src.Close()
}

var errClosed = errors.New("cpu: the engine is closed")

func (e *Engine) limits() engine.Limits {
	return engine.Limits{ConfigFile: e.d.Config.File, VocabSize: e.d.Config.VocabSize, MaxPositions: e.d.Config.MaxPositions}
}

// Passes of a prefill hold at most callRows rows, so that activations stay small, and at most callSeqs sequences. The
// cuts change no result: rows do not depend on each other but through the states, 256 is a multiple of the chunk
// form's 64, and a state that is rounded once a call waits for the end of the path's call (Feed.More).
const (
	callRows = 256
	callSeqs = 8
)

// Score implements engine.Engine: prompts run as ragged batches of up to callSeqs sequences.
func (e *Engine) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) (err error) {
	if e.d == nil {
		return errClosed
	}
	defer e.catch(ctx, &err)()
	if len(prompts) != 1 && (want.State != nil || want.FinalState != nil) {
		return &inputerr.Error{File: "prompts", Found: fmt.Sprintf("%d of them", len(prompts)), Want: "one, since a state goes in or out",
			Do: "score the prompts one at a time"}
	}
	for i, p := range prompts {
		if err := e.limits().Check(fmt.Sprintf("prompt %d", i), p, want.Path, stateLen(want.State), 0); err != nil {
			return err
		}
		if err := e.checkPositions(fmt.Sprintf("prompt %d", i), p); err != nil {
			return err
		}
	}
	together := callSeqs
	if e.stream != nil { // all of them see a layer while it is in memory
		together = len(prompts)
	}
	for lo := 0; lo < len(prompts); lo += together {
		r := &run{e: e, ctx: ctx, want: want, each: each, first: lo, prompts: prompts[lo:min(lo+together, len(prompts))]}
		if err := r.start(want.State); err != nil {
			return err
		}
		if err := r.all(); err != nil {
			return err
		}
		if err := r.finish(want.FinalState); err != nil {
			return err
		}
	}
	return nil
}

func stateLen(s *engine.State) int {
	if s == nil {
		return 0
	}
	return s.Len
}

// Generate implements engine.Engine. The last token is emitted and not consumed. After a prompt with PositionIDs,
// generated tokens count on from the largest position seen, as transformers' rope deltas do.
func (e *Engine) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) (err error) {
	if e.d == nil {
		return errClosed
	}
	defer e.catch(ctx, &err)()
	n := opt.Tokens()
	if err := e.limits().Check("prompt", prompt, opt.Path, stateLen(opt.State), n); err != nil {
		return err
	}
	if err := e.checkPositions("prompt", prompt); err != nil {
		return err
	}
	if err := e.limits().CheckIDs("forced ids", opt.Force); err != nil {
		return err
	}
	var last *engine.Position
	want := engine.Want{From: stateLen(opt.State) + len(prompt.IDs) - 1, TopK: opt.TopK, Logits: true, Path: opt.Path, Taps: opt.Taps}
	r := &run{e: e, ctx: ctx, want: want, steps: true, prompts: []engine.Prompt{prompt},
		each: func(p *engine.Position) error { last = p; return nil }}
	if err := r.start(opt.State); err != nil {
		return err
	}
	r.progress = opt.Progress
	if err := r.all(); err != nil {
		return err
	}
	r.progress = nil
	for i := range n {
		if err := opt.CheckChoice(e.info.Subject, last); err != nil {
			return err
		}
		tok := engine.Token{Index: i, ID: last.ID, Position: *last}
		switch {
		case opt.Force != nil:
			tok.ID = opt.Force[i]
		case opt.Choose != nil:
			tok.ID = opt.Choose(last.Logits)
			if err := e.limits().CheckIDs("chosen id", []int32{tok.ID}); err != nil {
				return err
			}
		}
		if !opt.Logits {
			tok.Logits = nil
		}
		if err := each(&tok); err != nil {
			return err
		}
		if i == n-1 || opt.Force == nil && slices.Contains(opt.Stop, tok.ID) {
			break
		}
		r.want.From = 0
		if err := r.feed([]Feed{{Seq: 0, IDs: []int32{tok.ID}}}); err != nil {
			return err
		}
	}
	return r.finish(opt.FinalState)
}

// GenerateAll implements engine.Batcher, up to callSeqs prompts at a time. Under arithmetic in which a row may depend on how many
// there are, prompts are read one by one, and in steps every row is by itself.
func (e *Engine) GenerateAll(ctx context.Context, all []engine.Continuation, opt engine.Options, each func(*engine.Token) error) (err error) {
	if e.d == nil {
		return errClosed
	}
	defer e.catch(ctx, &err)()
	for i, c := range all {
		own := c.Options(opt)
		err := e.limits().Check("prompt", c.Prompt, opt.Path, 0, own.Tokens())
		if err == nil {
			err = e.checkPositions("prompt", c.Prompt)
		}
		if err == nil {
			err = e.limits().CheckIDs("forced ids", c.Force)
		}
		if err != nil {
			return &engine.PromptError{Seq: i, Err: err}
		}
	}
	together := callSeqs
	if e.stream != nil || e.arith.Alone != nil && !e.d.aligned() { // one layer's states at a time; elements whose neighbours count
		together = 1
	}
	for lo := 0; lo < len(all); lo += together {
		if err := e.generateSome(ctx, lo, all[lo:min(lo+together, len(all))], opt, each); err != nil {
			return err
		}
	}
	return nil
}

// generateSome is GenerateAll of some of the prompts, whose states live together; first is the index of the first.
func (e *Engine) generateSome(ctx context.Context, first int, some []engine.Continuation, opt engine.Options, each func(*engine.Token) error) error {
	last := make([]*engine.Position, len(some))
	r := &run{e: e, ctx: ctx, want: engine.Want{TopK: opt.TopK, Path: opt.Path, Logits: true}, steps: true, first: first, // as Generate
		from: make([]int, len(some)), each: func(p *engine.Position) error { last[p.Seq-first] = p; p.Logits = nil; return nil }}
	for i, c := range some {
		r.prompts = append(r.prompts, c.Prompt)
		r.from[i] = len(c.Prompt.IDs) - 1
	}
	if err := r.start(nil); err != nil {
		return err
	}
	if err := r.all(); err != nil {
		return err
	}
	if alone := e.arith.Alone; alone != nil {
		r.s.call.Arith = alone
	}
	defer r.giveBack()
	ended := make([]bool, len(some))
	for i := 0; ; i++ {
		var feeds []Feed
		for k, c := range some {
			opt := c.Options(opt)
			n := opt.Tokens()
			if ended[k] || i >= n {
				continue
			}
			if err := opt.CheckChoice(e.info.Subject, last[k]); err != nil {
				return &engine.PromptError{Seq: first + k, Err: err}
			}
			tok := engine.Token{Index: i, ID: last[k].ID, Position: *last[k]}
			if c.Force != nil {
				tok.ID = c.Force[i]
			}
			if err := each(&tok); err != nil {
				return err
			}
			if ended[k] = i == n-1 || c.Force == nil && slices.Contains(opt.Stop, tok.ID); ended[k] {
				r.s.States[k] = nil
				continue
			}
			feeds = append(feeds, Feed{Seq: k, IDs: []int32{tok.ID}})
		}
		if len(feeds) == 0 {
			return nil
		}
		if err := r.feed(feeds); err != nil {
			return err
		}
	}
}

// Prefill implements engine.Stater.
func (e *Engine) Prefill(ctx context.Context, prompt engine.Prompt, path engine.Path) (*engine.State, error) {
	st := new(engine.State)
	return st, e.Score(ctx, []engine.Prompt{prompt}, engine.Want{From: math.MaxInt, Path: path, FinalState: st}, nil)
}

// Step implements engine.Stater. The token's position is the state's length.
func (e *Engine) Step(ctx context.Context, st *engine.State, id int32, topK int) (p *engine.Position, err error) {
	err = e.Score(ctx, []engine.Prompt{{IDs: []int32{id}}}, engine.Want{TopK: topK, Logits: true, State: st},
		func(shown *engine.Position) error { p = shown; return nil })
	return p, err
}

// run is one ragged batch from start to end.
type run struct {
	e       *Engine
	ctx     context.Context
	want    engine.Want
	each    func(*engine.Position) error
	prompts []engine.Prompt
	first   int   // index of prompts[0] among all prompts
	from    []int // of each prompt, what want.From is of all; nil: that
	steps   bool  // more tokens follow the prompts
	s       *Session
	logits  []float32  // of one position; the next one overwrites them
	block   *[]float32 // of a block of positions, likewise; lent while the prompts run

	progress func(done, total int64) // hears of the prompts; may be nil
	through  int64                   // rows that went through a layer, summed over layers
}

// layerDone is told after each layer of a call.
func (r *run) layerDone(l int) {
	r.e.stream.done(l)
	r.passed(r.s.call.Rows)
}

// passed tells who asked for it that so many rows went through one more layer.
func (r *run) passed(rows int) {
	if r.progress == nil {
		return
	}
	total := 0
	for _, p := range r.prompts {
		total += len(p.IDs)
	}
	r.through += int64(rows)
	r.progress(r.through, int64(total)*int64(len(r.e.d.Layers)))
}

func (r *run) start(from *engine.State) error {
	d := r.e.d
	states := make([]*State, len(r.prompts))
	for i := range states {
		if states[i] = d.noState(); r.e.stream == nil { // a streamed run makes a layer's state when it gets there
			states[i] = d.NewState()
		}
	}
	if from != nil {
		st, err := d.Import(from)
		if err != nil {
			return err
		}
		states[0] = st
	}
	r.s = d.NewSession(states, r.e.pool.Until(r.ctx), r.e.arith, r.want.Taps)
	r.s.first, r.s.layerDone = r.first, r.layerDone
	return nil
}

// all runs the prompts, call by call or, on a streamed model, layer by layer.
func (r *run) all() error {
	defer r.giveBack()
	if r.e.stream != nil {
		return r.layerMajor()
	}
	for feeds := range r.cuts() {
		if err := r.feed(feeds); err != nil {
			return err
		}
	}
	return nil
}

// giveBack ends the loan of a block's logits.
func (r *run) giveBack() {
	if r.block != nil {
		logitRooms.Put(r.block)
		r.block = nil
	}
}

// cuts gives the prompts in calls of the path's size, a long call in several passes.
func (r *run) cuts() iter.Seq[[]Feed] {
	return func(yield func([]Feed) bool) {
		done := make([]int, len(r.prompts))
		for {
			feeds := r.cut(done)
			if feeds == nil || !yield(feeds) {
				return
			}
		}
	}
}

// cut gives the next pass and counts it in done, tokens of each prompt; nil when every prompt is done.
func (r *run) cut(done []int) (feeds []Feed) {
	var active []int
	together := callSeqs
	if r.from != nil && r.e.arith.Alone != nil {
		together = 1 // what a row is may depend on the others
	}
	for i, p := range r.prompts {
		if done[i] < len(p.IDs) && len(active) < together {
			active = append(active, i)
		}
	}
	if len(active) == 0 {
		return nil
	}
	share := max(gdn.ChunkSize, callRows/len(active)/gdn.ChunkSize*gdn.ChunkSize)
	for _, i := range active {
		p := r.prompts[i]
		end := r.want.Path.End(done[i], len(p.IDs)) // of this call
		n := min(share, end-done[i])
		f := Feed{Seq: i, IDs: p.IDs[done[i]:][:n], More: done[i]+n < end}
		if p.PositionIDs != nil {
			f.Positions = p.PositionIDs[done[i]:][:n]
		}
		feeds = append(feeds, f)
		done[i] += n
	}
	return feeds
}

// feed runs one call and shows its positions.
func (r *run) feed(feeds []Feed) error {
	x, err := r.s.Run(r.ctx, feeds)
	if err != nil {
		return err
	}
	return r.shown(x)
}

// shown reports the call's positions: x [Rows, H] is the residual stream after the last layer. The head runs only for
// rows that are asked for.
func (r *run) shown(x []float32) error {
	call := &r.s.call
	taps := r.want.Taps
	allRows := taps != nil && taps.Wants(trace.Logits.Name(0))
	var rows []row
	for i := range call.Seqs {
		s := &call.Seqs[i]
		for t := range s.Len {
			if allRows || r.asked(s.Index, s.Pos+t) {
				rows = append(rows, row{s, t})
			}
		}
	}
	if len(rows) == 0 && (taps == nil || !taps.Wants(trace.FinalNorm.Name(0))) {
		return nil
	}
	r.e.d.Normed(x, x, call)
	if call.Err != nil {
		return call.Err
	}
	return r.show(x, rows, allRows)
}

// asked says whether a position is to be shown.
func (r *run) asked(seq, pos int) bool {
	if r.from != nil {
		return pos >= r.from[seq-r.first]
	}
	return pos >= r.want.From
}

// row is the t-th row of a sequence of a call.
type row struct {
	seq *ragged.Seq
	t   int
}

// logitsRows bounds the logits held at once to budget bytes: full logits never exist for long inputs. Many rows are whole
// register tiles of the kernels.
func logitsRows(vocab, budget int) int {
	const tile = 32
	n := max(1, budget/4/vocab)
	if n > tile {
		n = n / tile * tile
	}
	return n
}

// logitRooms lends the memory of a block's logits.
var logitRooms = sync.Pool{New: func() any { return new([]float32) }}

// show computes the logits of rows of the call and reports them; the normed residual stream is x.
func (r *run) show(x []float32, rows []row, tap bool) error {
	d := r.e.d
	V, H := d.Config.VocabSize, d.Config.HiddenSize
	if r.byParts(len(rows), tap) {
		return r.showByParts(x, rows)
	}
	for len(rows) > 0 {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		n := min(logitsRows(V, r.e.logitsBytes), len(rows))
		block := rows[:n]
		rows = rows[n:]
		in := rowsOf(x, block, H)
		// One row lives as long as its run: Generate chooses from it. More live during the callback.
		room := &r.logits
		if n > 1 {
			if r.block == nil {
				r.block = logitRooms.Get().(*[]float32)
			}
			room = r.block
		}
		if cap(*room) < n*V {
			*room = make([]float32, n*V)
		}
		logits := (*room)[:n*V]
		if err := r.head(logits, in, n); err != nil {
			return err
		}
		if err := r.report(block, logits, tap); err != nil {
			return err
		}
	}
	return nil
}

// rowsOf gives the rows of x [Rows, H] that block names, side by side.
func rowsOf(x []float32, block []row, H int) []float32 {
	n, first := len(block), block[0].seq.Row+block[0].t
	if last := block[n-1]; last.seq.Row+last.t-first == n-1 {
		return x[first*H:][:n*H]
	}
	in := make([]float32, 0, n*H) // rows between are not asked for
	for _, b := range block {
		in = append(in, x[(b.seq.Row+b.t)*H:][:H]...)
	}
	return in
}

// head is Decoder.Logits, of a streamed model stripe by stripe.
func (r *run) head(out, normed []float32, rows int) error {
	if r.e.stream == nil {
		r.e.d.Logits(out, normed, rows, &r.s.call)
		return nil
	}
	if err := r.e.stream.head(out, normed, rows, r.e.d.Head, &r.s.call, func() { r.reach(len(r.e.d.Layers)) }); err != nil {
		return err
	}
	r.e.d.roundLogits(out, &r.s.call)
	return nil
}

// report reduces a block's logits [len(block), V], all rows at once, and hands them to whom they were asked by.
func (r *run) report(block []row, logits []float32, tap bool) error {
	V := r.e.d.Config.VocabSize
	at := make([]shown.At, len(block))
	for i, b := range block {
		at[i] = shown.At{Seq: b.seq.Index, Pos: b.seq.Pos + b.t}
	}
	positions := make([]*engine.Position, len(block))
	asked := func(a shown.At) bool { return r.asked(a.Seq, a.Pos) }
	const together = 4
	r.s.call.Pool.For((len(block)+together-1)/together, together*V*8, func(lo, hi int) {
		for i := lo * together; i < min(hi*together, len(block)); i += together {
			n := min(together, len(block)-i)
			if !slices.ContainsFunc(at[i:i+n], asked) {
				continue // the taps want them, nobody else
			}
			logSum := r.e.arith.LogSum
			if logSum == nil {
				copy(positions[i:], shown.Positions(at[i:i+n], logits[i*V:(i+n)*V], r.want.TopK, r.want.Logits))
				continue
			}
			for k := i; k < i+n; k++ { // the bits that parts give
				positions[k] = shown.Quick(at[k], logits[k*V:][:V:V], r.want.TopK, r.want.Logits, logSum)
			}
		}
	})
	for i, a := range at {
		if tap {
			if err := r.s.call.Sink.Put(trace.Logits.Name(0), a.Seq, a.Pos, 1, logits[i*V:][:V:V]); err != nil {
				return err
			}
		}
		if !asked(a) {
			continue
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.each(positions[i]); err != nil {
			return err
		}
	}
	return nil
}

// finish hands over the states, to the taps and to the caller.
func (r *run) finish(final *engine.State) error {
	d := r.e.d
	if final != nil {
		*final = *d.Export(r.s.States[0])
	}
	for l := range d.Layers {
		if err := r.putStates(l); err != nil {
			return err
		}
	}
	return nil
}

// putStates hands the states of layer l to the taps. A streamed run has done so already, and let go of them.
func (r *run) putStates(l int) error {
	d, sink := r.e.d, r.want.Taps
	for _, t := range d.cacheTaps(l) {
		name := t.Name(l)
		if sink == nil || !sink.Wants(name) {
			continue
		}
		for i, s := range r.s.States {
			if !s.has(l) {
				continue
			}
			out := &engine.State{Tensors: map[string]engine.StateTensor{}}
			d.exportLayer(out, s, l)
			if err := sink.Put(name, r.first+i, 0, 1, out.Tensors[name].Data); err != nil {
				return err
			}
		}
	}
	return nil
}
