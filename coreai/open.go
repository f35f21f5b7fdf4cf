package coreai

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/precision"
)

func init() { engine.Register("coreai", Driver{}) }

// RuntimeVersion is the coreai-core whose arithmetic is pinned (contract coreai-cpu): another one may say other bits.
const RuntimeVersion = "1.0.0b3"

// The environment, read when an engine opens.
const (
	versionVariable = "SIBYL_COREAI_VERSION" // another version of the runtime to accept
	timeVariable    = "SIBYL_COREAI_TIMEOUT" // how long a worker may be silent, as "90s" or "1h"
)

// Driver opens bundles. The zero value is the platform's worker with DefaultLimits.
type Driver struct {
	start  starter
	limits Limits
}

// Describe implements engine.Driver.
func (Driver) Describe() string {
	return "the bundle in Core AI's own runtime, in a worker process; needs " + platformNeeds
}

// worker starts a worker and asks who it is.
func (d Driver) worker(ctx context.Context) (*worker, Hello, error) {
	if d.start == nil {
		d.start = platformWorker
	}
	limits, err := d.times()
	if err != nil {
		return nil, Hello{}, err
	}
	w, err := startWorker(d.start, limits)
	if err != nil {
		return nil, Hello{}, err
	}
	m, err := w.call(ctx, request{V: Version, Op: opHello}, nil)
	if err == nil {
		err = greet(m)
	}
	if err != nil {
		return nil, Hello{}, errors.Join(install(err), w.close())
	}
	return w, m.Hello, nil
}

func (d Driver) times() (Limits, error) {
	limits := d.limits
	if limits == (Limits{}) {
		limits = DefaultLimits
	}
	text := os.Getenv(timeVariable)
	if text == "" {
		return limits, nil
	}
	t, err := time.ParseDuration(text)
	if err != nil || t <= 0 {
		return limits, &inputerr.Error{File: timeVariable, Found: inputerr.Clip(text, 40), Want: "a time such as 90s or 1h"}
	}
	limits.Open, limits.Step = t, t
	return limits, nil
}

// greet judges what a worker says of itself.
func greet(m *message) error {
	h := m.Hello
	switch accept := os.Getenv(versionVariable); {
	case h.V != Version:
		return garbled("a worker of protocol %d, want %d", h.V, Version)
	case h.Engine == "" || h.Version == "" || len(h.Engine)+len(h.Version)+len(h.Runtime)+len(h.Host)+len(h.OS)+len(h.Device) > maxWord:
		return garbled("a greeting that does not say which engine and version answer")
	case h.Runtime == "coreai-core" && h.Version != RuntimeVersion && h.Version != accept:
		return &Failure{Code: WrongVersion, Doing: opHello, Msg: fmt.Sprintf("found coreai-core %s, want %s, the version whose answers are known", clip(h.Version), RuntimeVersion),
			Do: platformInstall() + ", or accept this one by " + versionVariable + "=" + clip(h.Version)}
	}
	return nil
}

// install adds the one command to what is missing.
func install(err error) error {
	if f, ok := err.(*Failure); ok && f.Code == MissingRuntime && f.Do == "" {
		f.Do = platformInstall()
	}
	return err
}

// Open implements engine.Driver. The model must be a LanguageBundle or an .aimodel. Of spec nothing else may be set:
// contract and scheme are what the bundle and the runtime have.
func (d Driver) Open(ctx context.Context, spec engine.Spec) (engine.Engine, error) {
	e, err := d.open(ctx, spec)
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (d Driver) open(ctx context.Context, spec engine.Spec) (_ *Engine, err error) {
	if err := refuseParts(spec); err != nil {
		return nil, err
	}
	b, err := openBundle(ctx, spec.Model, spec.NoVerify)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	e := &Engine{}
	if e.w, e.hello, err = d.worker(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.w.close())
		}
	}()
	asset, err := filepath.Abs(filepath.Dir(b.Asset.Path()))
	if err != nil {
		return nil, fmt.Errorf("coreai: %w", err)
	}
	m, err := e.w.call(ctx, request{Op: opOpen, Bundle: asset, Scratch: e.w.scratch}, nil)
	if err != nil {
		return nil, err
	}
	e.opened = m.Opened
	if err := e.opened.check(asset); err != nil {
		return nil, err
	}
	return e, e.describe(b, spec)
}

func refuseParts(spec engine.Spec) error {
	for _, part := range []struct{ name, found, only string }{
		{"contract", spec.Contract, ""}, {"scheme", spec.Scheme, ""}, {"mode", spec.Mode, ""}, {"delta", spec.Delta, "recurrent"},
	} {
		if part.found != "" && part.found != part.only {
			return &inputerr.Error{File: spec.Model + "@coreai", Field: part.name, Found: inputerr.Clip(part.found, 80),
				Want: "none: it is what the bundle and the runtime have", Do: "leave it out"}
		}
	}
	return nil
}

func openBundle(ctx context.Context, model string, noVerify bool) (*bundle.Bundle, error) {
	ref, err := bundle.Resolve(model)
	if err != nil {
		return nil, err
	}
	if ref.Kind != bundle.LanguageBundle && ref.Kind != bundle.AIModel {
		return nil, &inputerr.Error{File: model + "@coreai", Found: ref.Kind.String(), Want: "a LanguageBundle or an .aimodel folder",
			Do: "this engine runs converted bundles; a checkpoint runs with @cpu"}
	}
	b, err := bundle.OpenBundle(ctx, ref.Path, bundle.BundleOptions{NoVerify: noVerify})
	if err == nil && b.Asset.Bytes() == nil {
		_, err = b.Program() // says that there is only a compiled form
		err = errors.Join(err, b.Close())
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// describe fills Info, from the worker's words and, where it can be read, the bundle's.
func (e *Engine) describe(b *bundle.Bundle, spec engine.Spec) error {
	o, h := &e.opened, &e.hello
	e.config = b.Asset.Path()
	i := &e.info
	*i = engine.Info{Engine: "coreai", Subject: spec.Model + "@coreai", Scheme: "stored", Shows: engine.IDs, VocabSize: o.Vocab, MaxPositions: o.MaxContext,
		Contract: fmt.Sprintf("%s runtime %s (%s)", h.Engine, h.Version, h.OS), WeightsSHA256: b.Asset.MainHash()}
	i.Realises = realises(h, b)
	if l := b.Language; l != nil {
		e.config = filepath.Join(spec.Model, "metadata.json")
		if l.VocabSize != o.Vocab {
			return &inputerr.Error{File: e.config, Field: "language.vocab_size", Found: fmt.Sprint(l.VocabSize), Want: fmt.Sprintf("%d, as %s has", o.Vocab, b.Asset.Name),
				Do: "tokenizer and model do not belong together: export the bundle again"}
		}
		i.MaxPositions = l.MaxContext
	}
	if i.MaxPositions == 0 {
		i.MaxPositions = maxDim // nothing in an .aimodel on its own bounds it; memory does
	}
	if o.Forcing == GrowingPrefix {
		return nil
	}
	i.Shows |= engine.TopK | engine.Logits
	i.LogitsDType = tensorNamed(o.Outputs, "logits").DType
	var why error
	if e.layout, why = newLayout(o.States, layerKinds(b)); why != nil {
		i.Fallbacks = map[string]int64{"states are not shown: " + why.Error(): 1}
		return nil
	}
	i.Shows |= engine.ReadState | engine.TakeState
	i.StateDTypes = engine.StateDTypes{Recurrent: e.layout.recurrent.DType, Conv: e.layout.conv.DType, KV: e.layout.key.DType}
	i.CallsMatter = o.Call != 1 && i.StateDTypes.Recurrent != "F32" // the graph rounds the state where a call ends
	return nil
}

// realises names the contracts that say what this runtime computes with this graph: its own rounding where that is known
// bit for bit, and what the graph says. None for a graph of no known profile.
func realises(h *Hello, b *bundle.Bundle) (out []string) {
	p, err := b.Profile()
	if err != nil || p.Contract == "" {
		return nil
	}
	if name := precision.Runtime(p.Contract); name != "" && h.Engine == "coreai-cpu" && h.Version == RuntimeVersion {
		out = append(out, name)
	}
	return append(out, p.Contract)
}

// layerKinds are the model's layers as the graph has them; nil where the graph cannot be read, and then no state can
// be told whose it is.
func layerKinds(b *bundle.Bundle) []config.LayerKind {
	r, err := b.Roles("main")
	if err != nil || r.Err() != nil {
		return nil
	}
	var out []config.LayerKind
	for _, l := range r.Layers {
		out = append(out, l.Kind)
	}
	return out
}
