package model

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/gdn"
	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
	"sibyl/precision"
	"sibyl/trace"
)

func init() { engine.Register("cpu", driver{}) }

type driver struct{}

// Describe implements engine.Driver.
func (driver) Describe() string {
	return "the oracle: pure Go, exact (order-free) or fast, every rounding point named; needs nothing"
}

// Open implements engine.Driver. Contract defaults to hf-fp32, mode to exact, delta to recurrent.
func (driver) Open(_ context.Context, spec engine.Spec) (engine.Engine, error) {
	refuse := func(field, found, want string) error {
		return &inputerr.Error{File: spec.Model + "@cpu", Field: field, Found: inputerr.Clip(found, 80), Want: want, Do: "choose one of these"}
	}
	arith, ok := map[string]*kernels.Arith{"": kernels.Exact, "exact": kernels.Exact, "fast": kernels.Fast}[spec.Mode]
	if !ok {
		return nil, refuse("mode", spec.Mode, "exact or fast")
	}
	if spec.Delta != "" && spec.Delta != "recurrent" && spec.Delta != "chunk" {
		return nil, refuse("delta", spec.Delta, "recurrent or chunk")
	}
	chosen, err := precision.Choose(spec.Contract)
	if err != nil {
		return nil, err
	}
	contract := chosen.Contract
	if contract.Arithmetic != "" {
		if spec.Mode != "" {
			return nil, refuse("mode", spec.Mode, "none: "+contract.Name+" is defined by its own order of roundings")
		}
		arith = kernels.CoreAICPU
	}
	ck, err := bundle.Open(spec.Model)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Contract: contract, Keep: ck.Sizes().Total() <= keepBytes}
	if err = plan.UseContract(ck.Config(), chosen); err == nil {
		err = plan.useScheme(ck, spec.Scheme)
	}
	var e *Engine
	if err == nil {
		e, err = New(ck, plan, arith, spec)
	}
	if err != nil {
		ck.Close()
		return nil, err
	}
	return e, nil
}

// Engine is the CPU engine: a decoder bound to a checkpoint, with an arithmetic and threads.
type Engine struct {
	d     *Decoder
	ck    *bundle.Checkpoint
	pool  *kernels.Pool
	arith *kernels.Arith
	info  engine.Info
}

var _ engine.Stater = (*Engine)(nil)

// New binds ck, which the engine owns from then on, under a plan. Of spec it reads Model and Scheme (how the user named
// them; what a scheme does is in the plan), Delta and Threads.
func New(ck *bundle.Checkpoint, plan *Plan, arith *kernels.Arith, spec engine.Spec) (*Engine, error) {
	d, err := Bind(ck, plan)
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
	cfg := ck.Config()
	pool := kernels.NewPool(spec.Threads)
	label, part := plan.label()
	mode := arith.Name
	if plan.Contract.Arithmetic != "" { // there is no choice of it
		mode = ""
	}
	name, scheme := subject(ck, part, mode, spec.Scheme, spec.Model)
	return &Engine{d: d, ck: ck, pool: pool, arith: arith, info: engine.Info{
		Engine: "cpu", Subject: name, Contract: label, Scheme: scheme,
		Mode:      mode,
		Shows:     engine.IDs | engine.TopK | engine.Logits | engine.Taps | engine.ReadState | engine.TakeState,
		VocabSize: cfg.VocabSize, MaxPositions: cfg.MaxPositions, LogitsDType: plan.At(-1, ModHead).At[precision.Logits].String(),
		StateDTypes:  plan.stateDTypes(cfg),
		ConfigSHA256: ck.ConfigSHA256(), Threads: pool.Threads(),
	}}, nil
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
	return e.ck.Close()
}

var errClosed = errors.New("cpu: the engine is closed")

func (e *Engine) limits() engine.Limits {
	return engine.Limits{ConfigFile: e.d.Config.File, VocabSize: e.d.Config.VocabSize, MaxPositions: e.d.Config.MaxPositions}
}

// Passes of a prefill hold at most callRows rows, so that activations stay small, and at most callSeqs sequences. The
// cuts change no result: rows do not depend on each other but through the states, 512 is a multiple of the chunk
// form's 64, and a state that is rounded once a call waits for the end of the path's call (Feed.More).
const (
	callRows = 512
	callSeqs = 8
)

// Score implements engine.Engine: prompts run as ragged batches of up to callSeqs sequences.
func (e *Engine) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	if e.d == nil {
		return errClosed
	}
	if len(prompts) != 1 && (want.State != nil || want.FinalState != nil) {
		return &inputerr.Error{File: "prompts", Found: fmt.Sprintf("%d of them", len(prompts)), Want: "one, since a state goes in or out",
			Do: "score the prompts one at a time"}
	}
	for i, p := range prompts {
		if err := e.limits().Check(fmt.Sprintf("prompt %d", i), p, want.Path, stateLen(want.State), 0); err != nil {
			return err
		}
	}
	for lo := 0; lo < len(prompts); lo += callSeqs {
		r := &run{e: e, ctx: ctx, want: want, each: each, first: lo, prompts: prompts[lo:min(lo+callSeqs, len(prompts))]}
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
func (e *Engine) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	if e.d == nil {
		return errClosed
	}
	n := opt.MaxTokens
	if opt.Force != nil {
		n = len(opt.Force)
	}
	if err := e.limits().Check("prompt", prompt, opt.Path, stateLen(opt.State), n); err != nil {
		return err
	}
	if err := e.limits().CheckIDs("forced ids", opt.Force); err != nil {
		return err
	}
	var last *engine.Position
	want := engine.Want{From: stateLen(opt.State) + len(prompt.IDs) - 1, TopK: opt.TopK, Logits: true, Path: opt.Path, Taps: opt.Taps}
	r := &run{e: e, ctx: ctx, want: want, prompts: []engine.Prompt{prompt},
		each: func(p *engine.Position) error { last = p; return nil }}
	if err := r.start(opt.State); err != nil {
		return err
	}
	if err := r.all(); err != nil {
		return err
	}
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
	first   int // index of prompts[0] among all prompts
	s       *Session
}

func (r *run) start(from *engine.State) error {
	r.s = r.e.d.NewSession(len(r.prompts), r.e.pool, r.e.arith, r.want.Taps)
	r.s.first = r.first
	if from != nil {
		st, err := r.e.d.Import(from)
		if err != nil {
			return err
		}
		r.s.States[0] = st
	}
	return nil
}

// all feeds the prompts in calls of the path's size, a long call in several passes.
func (r *run) all() error {
	done := make([]int, len(r.prompts))
	for {
		active := 0
		for i, p := range r.prompts {
			if done[i] < len(p.IDs) {
				active++
			}
		}
		if active == 0 {
			return nil
		}
		share := max(gdn.ChunkSize, callRows/active/gdn.ChunkSize*gdn.ChunkSize)
		var feeds []Feed
		for i, p := range r.prompts {
			end := len(p.IDs) // of this call
			if c := r.want.Path.Chunk; c > 0 {
				end = min(end, (done[i]/c+1)*c)
			}
			n := min(share, end-done[i])
			if n == 0 {
				continue
			}
			f := Feed{Seq: i, IDs: p.IDs[done[i]:][:n], More: done[i]+n < end}
			if p.PositionIDs != nil {
				f.Positions = p.PositionIDs[done[i]:][:n]
			}
			feeds = append(feeds, f)
			done[i] += n
		}
		if err := r.feed(feeds); err != nil {
			return err
		}
	}
}

// feed runs one call and shows its positions.
func (r *run) feed(feeds []Feed) error {
	x, err := r.s.Run(r.ctx, feeds)
	if err != nil {
		return err
	}
	call := &r.s.call
	allRows := r.want.Taps != nil && r.want.Taps.Wants(trace.Logits.Name(0))
	last := 0
	for i := range call.Seqs {
		last = max(last, call.Seqs[i].Pos+call.Seqs[i].Len)
	}
	if !allRows && last <= r.want.From && (r.want.Taps == nil || !r.want.Taps.Wants(trace.FinalNorm.Name(0))) {
		return nil
	}
	r.e.d.Normed(x, x, call)
	if call.Err != nil {
		return call.Err
	}
	for i := range call.Seqs {
		s := &call.Seqs[i]
		lo := min(s.Len, max(0, r.want.From-s.Pos))
		if allRows {
			lo = 0
		}
		if err := r.show(x, s.Row+lo, s.Row+s.Len, i, allRows); err != nil {
			return err
		}
	}
	return nil
}

// logitsRows bounds the logits held at once to 64 MB: full logits never exist for long inputs.
func logitsRows(vocab int) int { return max(1, min(64, 16<<20/vocab)) }

// show computes the logits of rows lo..hi-1 of sequence i of the call and reports them.
func (r *run) show(x []float32, lo, hi, i int, tap bool) error {
	call, d := &r.s.call, r.e.d
	s, V, H := &call.Seqs[i], d.Config.VocabSize, d.Config.HiddenSize
	for ; lo < hi; lo += logitsRows(V) {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		n := min(logitsRows(V), hi-lo)
		logits := make([]float32, n*V)
		d.Logits(logits, x[lo*H:(lo+n)*H], n, call)
		pos := s.Pos + lo - s.Row
		if tap {
			if err := call.Sink.Put(trace.Logits.Name(0), s.Index, pos, n, logits); err != nil {
				return err
			}
		}
		for t := range n {
			if pos+t < r.want.From {
				continue
			}
			p := position(s.Index, pos+t, logits[t*V:][:V:V], r.want.TopK, r.want.Logits)
			if err := r.each(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish hands over the states, to the taps and to the caller.
func (r *run) finish(final *engine.State) error {
	d, sink := r.e.d, r.want.Taps
	if final != nil {
		*final = *d.Export(r.s.States[0])
	}
	if sink == nil {
		return nil
	}
	for i, s := range r.s.States {
		var out *engine.State
		for l := range d.Layers {
			for _, t := range d.cacheTaps(l) {
				name := t.Name(l)
				if !sink.Wants(name) {
					continue
				}
				if out == nil {
					out = d.Export(s)
				}
				if err := sink.Put(name, r.first+i, 0, 1, out.Tensors[name].Data); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
