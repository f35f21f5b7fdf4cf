// Package metal is an engine of our own GPU kernels: written by hand, every rounding point known, run by an Apple GPU ("metal") or,
// from the same .metal files, by a CPU ("metal-cpu"). When a shipped runtime and the oracle differ on a Mac, it says whether any GPU
// does that, or one kernel.
//
// The decoder is encoded in forward.go in the order of the math; ops/ has the kernels as functions, kernels/*.metal their formulas,
// gpu/ the devices. The package imports neither model nor any other engine.
package metal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/internal/near"
	"sibyl/metal/gpu"
	"sibyl/metal/ops"
	"sibyl/precision"
	"sibyl/quant"
)

func init() {
	engine.Register("metal", driver{"metal", gpu.GPU, "sibyl's own Metal kernels on an Apple GPU; needs macOS"})
	engine.Register("metal-cpu", driver{"metal-cpu", gpu.CPU, "the same kernels compiled for the CPU; needs clang 19 on Linux, and takes time"})
}

// driver opens engines on one kind of device.
type driver struct {
	name     string
	device   func(threads int) (gpu.Device, error)
	describe string
}

// Describe implements engine.Driver.
func (d driver) Describe() string { return d.describe }

// Open implements engine.Driver. Contract defaults to hf-fp32, for a bundle to its profile's. The arithmetic is fast: float32 sums in the order each kernel declares.
func (d driver) Open(ctx context.Context, spec engine.Spec) (engine.Engine, error) {
	subject := spec.Model + "@" + d.name
	refuse := func(field, found, want string) error {
		return &inputerr.Error{File: subject, Field: field, Found: inputerr.Clip(found, 80), Want: want, Do: "choose that, or engine cpu"}
	}
	if spec.Mode != "" && spec.Mode != "fast" {
		return nil, refuse("mode", spec.Mode, "fast: kernels sum float32 in an order of their own")
	}
	if spec.Delta != "" && spec.Delta != "recurrent" {
		return nil, refuse("delta", spec.Delta, "recurrent")
	}
	src, err := bundle.OpenSource(ctx, spec.Model, bundle.BundleOptions{NoVerify: spec.NoVerify})
	if err != nil {
		return nil, err
	}
	e, err := open(d, src, spec, subject)
	if err != nil {
		_ = src.Close() // the first error is the one to tell
		return nil, err
	}
	return e, nil
}

// open binds src, which the engine owns if there is no error.
func open(d driver, src bundle.Source, spec engine.Spec, subject string) (*Engine, error) {
	cfg, name := src.Config(), spec.Contract
	if name == "" {
		var err error
		if name, err = bundle.ContractOf(src); err != nil {
			return nil, err
		}
	}
	chosen, err := precision.Choose(name)
	if err != nil {
		return nil, err
	}
	p, err := newPlan(cfg, chosen, subject)
	if err != nil {
		return nil, err
	}
	if err := checkSizes(cfg, p, subject); err != nil {
		return nil, err
	}
	scheme, err := assign(src, spec.Scheme)
	if err != nil {
		return nil, err
	}
	dev, err := d.device(spec.Threads)
	if err != nil {
		return nil, orUnavailable(err)
	}
	e := &Engine{name: d.name, src: src, dev: dev}
	if err := e.bind(p, scheme, subject); err != nil {
		_ = e.giveBack() // the first error is the one to tell
		return nil, orUnavailable(err)
	}
	label, part := p.label()
	e.info = engine.Info{
		Engine: d.name, Subject: subject + "," + part, Contract: label, Scheme: "stored", Mode: "fast",
		Shows:     engine.IDs | engine.TopK | engine.Logits | engine.Taps | engine.ReadState | engine.TakeState,
		VocabSize: cfg.VocabSize, MaxPositions: cfg.MaxPositions, LogitsDType: p.contract(-1, precision.PartHead).At[precision.Logits].String(),
		StateDTypes: p.stateDTypes(cfg), ConfigSHA256: src.ConfigSHA256(), Threads: spec.Threads,
	}
	if q := src.Quantization(); q != nil {
		e.info.Scheme = q.Scheme
	}
	if b, ok := src.(*bundle.Shipped); ok {
		profile, err := b.Profile()
		if err != nil {
			return nil, errors.Join(err, e.giveBack())
		}
		e.info.Profile, e.info.Warnings = profile.Name, b.Warnings()
		if named := quant.NameOf(b); named != "" {
			e.info.Scheme = named
		}
	}
	if scheme != nil {
		e.info.Scheme = spec.Scheme
		e.info.Subject += "," + spec.Scheme
	}
	return e, nil
}

// orUnavailable marks what this machine lacks: a GPU, a compiler.
func orUnavailable(err error) error {
	var lacks *inputerr.Error
	if errors.As(err, &lacks) && slices.Contains(gpu.Lacks, lacks.Field) {
		return unavailable{lacks}
	}
	return err
}

type unavailable struct{ lacks *inputerr.Error }

func (u unavailable) Error() string   { return u.lacks.Error() }
func (u unavailable) Unwrap() []error { return []error{u.lacks, engine.ErrUnavailable} }

// assign is a scheme met with the model; nil for weights as stored.
func assign(src bundle.Source, name string) (*quant.Assignment, error) {
	if name == "" || name == "stored" {
		return nil, nil
	}
	s, ok := quant.Lookup(name)
	if file, recipe := strings.CutPrefix(name, "recipe:"); recipe {
		var err error
		if s, err = quant.LoadRecipe(file); err != nil {
			return nil, err
		}
	} else if !ok {
		return nil, &inputerr.Error{File: "scheme " + inputerr.Clip(name, 60), Found: "an unknown name",
			Want: "one of " + strings.Join(quant.Names(), ", ") + ", or recipe:FILE", Do: near.DidYouMean(name, quant.Names())}
	}
	return s.AssignTo(src)
}

// checkSizes refuses models whose sizes no kernel has registers for, and rope tables that layers round differently.
func checkSizes(c *config.Config, p *plan, subject string) error {
	for _, s := range []struct {
		name        string
		found, most int
	}{{"linear_conv_kernel_dim", c.ConvKernel, ops.MaxTaps}, {"linear_key_head_dim", c.KeyDim, ops.MaxKeyDim}, {"head_dim", c.HeadDim, ops.MaxHeadDim}} {
		if s.found > s.most {
			return &inputerr.Error{File: c.File, Field: s.name, Found: fmt.Sprint(s.found), Want: fmt.Sprintf("at most %d, which the Metal kernels keep in registers", s.most),
				Do: "use engine cpu"}
		}
	}
	if c.MoE != nil && c.MoE.NumExperts > ops.MaxExperts {
		return &inputerr.Error{File: c.File, Field: "num_experts", Found: fmt.Sprint(c.MoE.NumExperts), Want: fmt.Sprintf("at most %d", ops.MaxExperts), Do: "use engine cpu"}
	}
	tables := map[precision.Round]bool{}
	for l, kind := range c.Layers {
		if kind == config.FullAttention {
			tables[p.contract(l, precision.PartSelfAttn).At[precision.RopeTable]] = true
		}
	}
	if len(tables) > 1 {
		return &inputerr.Error{File: subject, Field: "contract", Found: "rope tables rounded differently in different layers", Want: "one rounding of the table",
			Do: "set rope_table for all layers, or use engine cpu"}
	}
	return nil
}

// Engine is a decoder on a device.
type Engine struct {
	name    string
	src     bundle.Source
	dev     gpu.Device
	mem     *memory
	d       *decoder
	scratch scratch
	info    engine.Info
}

var _ engine.Stater = (*Engine)(nil)

func (e *Engine) bind(p *plan, scheme *quant.Assignment, subject string) error {
	if limit, total := e.dev.Info().WorkingSet, e.src.Sizes().Total(); limit > 0 && scheme == nil && total > limit {
		return gpu.TooLarge(subject, total, 0, limit)
	}
	set, err := ops.Load(e.dev)
	if err != nil {
		return err
	}
	e.mem = newMemory(e.dev, subject)
	e.d, err = bind(e.src, p, scheme, set, e.mem)
	return err
}

// giveBack releases all that the engine has of the device.
func (e *Engine) giveBack() error {
	if e.mem != nil {
		e.mem.close()
	}
	return e.dev.Close()
}

// Info implements engine.Engine.
func (e *Engine) Info() engine.Info {
	info := e.info
	if e.d != nil && len(e.d.counts) > 0 {
		info.Fallbacks = maps.Clone(e.d.counts)
	}
	return info
}

// Close gives back the device's memory and unmaps the checkpoint. Every later call fails.
func (e *Engine) Close() error {
	if e.d == nil {
		return nil
	}
	e.scratch.release(e.d.mem, e.d.cfg)
	e.d = nil
	return errors.Join(e.giveBack(), e.src.Close())
}

func (e *Engine) limits() engine.Limits {
	return engine.Limits{ConfigFile: e.d.cfg.File, VocabSize: e.d.cfg.VocabSize, MaxPositions: e.d.cfg.MaxPositions}
}

func (e *Engine) closed() error {
	if e.d == nil {
		return errors.New(e.name + ": the engine is closed")
	}
	return nil
}

// checkPositions refuses positions on axes that a bundle's graph does not have.
func (e *Engine) checkPositions(what string, p engine.Prompt) error {
	if e.info.Profile == "" {
		return nil
	}
	for i, t := range p.PositionIDs {
		if t[0] != t[1] || t[0] != t[2] {
			return &inputerr.Error{File: what, Field: fmt.Sprintf("position ids[%d]", i), Found: fmt.Sprint(t),
				Want: "three equal positions: a bundle's graph has one axis", Do: "leave --position-ids out, or use the checkpoint"}
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

// Score implements engine.Engine: prompts run as ragged batches of up to callSeqs sequences.
func (e *Engine) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) (err error) {
	if err := e.closed(); err != nil {
		return err
	}
	if err := e.src.Check(); err != nil { // a device that meets the end of a file that was cut can give no error
		return err
	}
	defer bundle.Unchanged(&err, e.src.Check)
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
	for lo := 0; lo < len(prompts); lo += callSeqs {
		r := &run{e: e, ctx: ctx, want: want, each: each, first: lo, prompts: prompts[lo:min(lo+callSeqs, len(prompts))]}
		room := 0
		for _, p := range r.prompts {
			room = max(room, stateLen(want.State)+len(p.IDs))
		}
		if err := r.whole(want.State, room, want.FinalState); err != nil {
			return err
		}
	}
	return nil
}

// whole runs a batch from its states to its states.
func (r *run) whole(from *engine.State, room int, final *engine.State) error {
	defer r.close()
	if err := r.start(from, room); err != nil {
		return err
	}
	if err := r.all(); err != nil {
		return err
	}
	return r.finish(final)
}

func (r *run) close() {
	if r.st != nil {
		r.st.release()
	}
}

// Generate implements engine.Engine. The last token is emitted and not consumed. After a prompt with PositionIDs, generated tokens
// count on from the largest position seen.
func (e *Engine) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) (err error) {
	if err := e.closed(); err != nil {
		return err
	}
	if err := e.src.Check(); err != nil { // a device that meets the end of a file that was cut can give no error
		return err
	}
	defer bundle.Unchanged(&err, e.src.Check)
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
	have := stateLen(opt.State) + len(prompt.IDs)
	var last *engine.Position
	r := &run{e: e, ctx: ctx, prompts: []engine.Prompt{prompt}, each: func(p *engine.Position) error { last = p; return nil },
		want: engine.Want{From: have - 1, TopK: opt.TopK, Logits: opt.Logits || opt.Choose != nil, Path: opt.Path, Taps: opt.Taps}}
	defer r.close()
	if err := r.start(opt.State, have+min(n, 64)); err != nil {
		return err
	}
	if err := r.all(); err != nil {
		return err
	}
	for i := range n {
		if err := opt.CheckChoice(e.info.Subject, last); err != nil {
			return err
		}
		id, err := e.choose(opt, i, last)
		if err != nil {
			return err
		}
		tok := engine.Token{Index: i, ID: id, Position: *last}
		if !opt.Logits {
			tok.Logits = nil
		}
		if err := each(&tok); err != nil {
			return err
		}
		if i == n-1 || opt.Force == nil && slices.Contains(opt.Stop, id) {
			break
		}
		r.want.From = 0
		if err := r.feed([]feed{{ids: []int32{id}}}); err != nil {
			return err
		}
	}
	return r.finish(opt.FinalState)
}

// choose gives the id that step i consumes.
func (e *Engine) choose(opt engine.Options, i int, last *engine.Position) (int32, error) {
	switch {
	case opt.Force != nil:
		return opt.Force[i], nil
	case opt.Choose != nil:
		id := opt.Choose(last.Logits)
		return id, e.limits().CheckIDs("chosen id", []int32{id})
	}
	return last.ID, nil
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
