package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/oracle"
)

// replay is --replay: it judges a transcript's evidence again and runs REF, TEST and the controls again where they can
// be opened. One subject is the MODEL they were made of; two are REF and TEST; none means as recorded.
func (v *Gate) replay(ctx context.Context, a *App) (err error) {
	for _, set := range []struct {
		flag string
		is   bool
	}{{"--prompt", v.Prompt != nil}, {"--prompts", v.Prompts != ""}, {"--ids", v.IDs != nil}, {"--ref-cache", v.RefCache != ""}} {
		if set.is {
			return &inputerr.Error{File: set.flag, Found: "it beside --replay", Want: "--replay without it", Do: "prompts are the transcript's, and REF is to be run again"}
		}
	}
	t, err := oracle.OpenTranscript(v.Replay)
	if err != nil {
		return err
	}
	if err := v.samePath(t); err != nil {
		return err
	}
	o := &onceMore{t: t, a: a, stream: v.Streaming, keep: &gateCache{sums: map[string]string{}}}
	defer o.close(&err)
	live := oracle.Live{Progress: a.stages()}
	refText, testText := v.again(t)
	if live.Ref, live.RefWhy, err = o.open(ctx, oracle.RoleRef, refText, v.Ref != ""); err != nil {
		return err
	}
	if live.Test, live.TestWhy, err = o.open(ctx, oracle.RoleTest, testText, v.Test != ""); err != nil {
		return err
	}
	live.Control = func(ctx context.Context, c oracle.ControlInfo) (engine.Engine, string, error) {
		return o.open(ctx, oracle.RoleControl, withModel(c.Engine.Subject, v.Ref), false)
	}
	r, err := t.Replay(ctx, live)
	if err != nil {
		return err
	}
	if err := v.Output.write(r); err != nil {
		return err
	}
	if err := a.Emit(v.JSON.JSON, r, func(w io.Writer) error { return r.Render(w) }); err != nil {
		return err
	}
	if code := r.ExitCode(); code != exitOK {
		return statusError(code)
	}
	return nil
}

// samePath refuses --path where it is not the transcript's own, which is what is run.
func (v *Gate) samePath(t *oracle.Transcript) error {
	path, err := parsePath(v.Path)
	if err != nil {
		return err
	}
	_, recorded := t.Prompts()
	if path == (engine.Path{}) || path == recorded.Path { // prefill is also what is not typed
		return nil
	}
	return &inputerr.Error{File: "--path", Found: path.String() + ": a prompt split at other call boundaries than the transcript's",
		Want: recorded.Path.String() + ", the path of " + t.File(), Do: "leave it out: what was recorded is what is run again"}
}

// again is which subjects to run: as typed, or as recorded, on the MODEL that was typed if it has no parts. The
// field's transcripts name a hub's id and no engine: REF is then gateRef's, and TEST is not run unless it is named.
func (v *Gate) again(t *oracle.Transcript) (ref, test string) {
	ref, test = v.Ref, v.Test
	if t.Sibyl == nil {
		if ref == "" {
			ref = t.SourceModel.HFID
		}
		if !strings.Contains(ref, "@") {
			ref += gateRef
		}
		return ref, test
	}
	r := t.Sibyl.Result
	if test == "" {
		test = withModel(r.Test.Subject, "")
		if sameModel(r.Ref.Subject, r.Test.Subject) {
			test = withModel(r.Test.Subject, v.Ref)
		}
	}
	return withModel(r.Ref.Subject, v.Ref), test
}

// withModel is a recorded subject on another MODEL. Parts that were typed replace the recorded ones.
func withModel(recorded, typed string) string {
	switch at := strings.LastIndexByte(recorded, '@'); {
	case typed == "" || at < 0:
		return recorded
	case strings.Contains(typed, "@") && !pathExists(typed):
		return typed
	default:
		return typed + recorded[at:]
	}
}

func sameModel(a, b string) bool {
	model := func(s string) string { return cleanModel(s[:max(0, strings.LastIndexByte(s, '@'))]) }
	return model(a) == model(b)
}

// onceMore opens what a transcript recorded.
type onceMore struct {
	t      *oracle.Transcript
	a      *App
	keep   *gateCache
	stream Streaming
	opened []engine.Engine
}

func (o *onceMore) close(err *error) {
	for _, e := range o.opened {
		closing(e, err)
	}
}

// open opens one side. What was typed must be there and be the model that was recorded; what was only recorded may be
// missing, or another model may be in its place: then the reason is given instead.
func (o *onceMore) open(ctx context.Context, by oracle.Role, text string, typed bool) (engine.Engine, string, error) {
	if text == "" {
		return nil, "no subject is recorded; name it to run it", nil
	}
	e, err := o.try(ctx, by, text)
	switch {
	case err == nil:
		o.opened = append(o.opened, e)
		return e, "", nil
	case typed || ctx.Err() != nil:
		return nil, "", err
	}
	return nil, err.Error(), nil
}

func (o *onceMore) try(ctx context.Context, by oracle.Role, text string) (_ engine.Engine, err error) {
	s, err := o.a.subject(text)
	if err != nil {
		return nil, err
	}
	if s.Engine == "replay" {
		return nil, fmt.Errorf("%s runs nothing", s.display())
	}
	if err := s.missing(); err != nil {
		return nil, err
	}
	c, err := o.a.source(ctx, s)
	if err != nil {
		return nil, err
	}
	defer closing(c, &err)
	sum := ""
	if o.t.Sibyl != nil && by != oracle.RoleControl {
		if sum, err = o.keep.weights(ctx, o.a, c, c.Path()); err != nil {
			return nil, err
		}
	}
	if err := o.t.CheckModel(by, s.display(), c.ConfigSHA256(), sum, c.Config().VocabSize); err != nil {
		return nil, err
	}
	if err := o.stream.choose(o.a, c); err != nil {
		return nil, err
	}
	prompts, p := o.t.Prompts()
	if err := o.a.checkGate(c, s, &oracle.Setup{Prompts: prompts}, p); err != nil {
		return nil, err
	}
	return o.a.open(ctx, s, "exact", "")
}

// checkReplay refuses a transcript of another model as a side of a gate, by the hash of its weights too.
func (a *App) checkReplay(ctx context.Context, s Subject, g *gateCache) (err error) {
	if s.Engine != "replay" {
		return nil
	}
	t, err := oracle.OpenTranscript(s.File)
	if err != nil {
		return err
	}
	c, err := a.source(ctx, s)
	if err != nil {
		return err
	}
	defer closing(c, &err)
	sum := ""
	if t.Sibyl != nil {
		if sum, err = g.weights(ctx, a, c, c.Path()); err != nil {
			return err
		}
	} else {
		a.Note("%s holds no hash of its model: that it is of %s is taken on trust", s.File, c.Name())
	}
	return t.CheckEither(c.Name(), c.ConfigSHA256(), sum, c.Config().VocabSize)
}
