package coreai

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"sibyl/engine"
)

// Report is what the doctor found.
type Report struct {
	Runtime    string      `json:"runtime"` // what answers: "coreai-cpu runtime 1.0.0b3 (Linux)"; "" if nothing does
	Note       string      `json:"note"`    // what that is and is not
	Model      string      `json:"model,omitempty"`
	Checks     []Check     `json:"checks"`
	Tokens     []int32     `json:"tokens,omitempty"` // the bundle's first, after the ids Prompt
	Prompt     []int32     `json:"prompt,omitempty"`
	Signatures []Signature `json:"signatures"` // the failures that are known by their words
}

// Check is one thing looked at. A failed one ends the list: what follows needs it.
type Check struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // the one command or act that helps
}

// Well says whether every check passed.
func (r *Report) Well() bool {
	return !slices.ContainsFunc(r.Checks, func(c Check) bool { return !c.OK })
}

// notes say what an engine of a runtime is evidence for.
var notes = map[string]string{
	"coreai-cpu": "Apple's CPU interpreter, on this machine's CPU: no GPU and no stand-in for one. It runs the bundle's graph op by op in a rounding of its own (contract coreai-cpu); what a Mac's GPU says can differ",
}

// doctorTokens is how many tokens are made of a bundle.
const doctorTokens = 4

// Doctor looks whether this machine can run the engine, and, if model is not "", whether it runs that bundle: its first
// tokens, by the shipped path and forced, and its states out and in again. What fails is in the report; the error is
// the end of ctx.
func Doctor(ctx context.Context, model string) (*Report, error) { return Driver{}.doctor(ctx, model) }

func (d Driver) doctor(ctx context.Context, model string) (*Report, error) {
	r := &Report{Model: model, Signatures: Signatures}
	w, h, err := d.worker(ctx)
	if err != nil {
		r.fail("runtime", err)
		return r, ctx.Err()
	}
	r.Runtime = fmt.Sprintf("%s runtime %s (%s)", h.Engine, h.Version, h.OS)
	r.Note = notes[h.Engine]
	r.pass("runtime", "%s %s in %s", h.Runtime, h.Version, h.Host)
	if err := w.close(); err != nil {
		r.fail("worker", err)
		return r, ctx.Err()
	}
	r.pass("worker", "answers protocol %d and ends when asked", Version)
	if model == "" {
		return r, ctx.Err()
	}
	start := time.Now()
	e, err := d.open(ctx, engine.Spec{Model: model})
	if err != nil {
		r.fail("bundle", err)
		return r, ctx.Err()
	}
	defer e.Close()
	calls := "one token a call"
	if e.opened.Call == 0 {
		calls = "any number of tokens a call"
	}
	r.pass("bundle", "main.hash matches; functions %v, %d ids, %s, loaded in %.1f s; shows %s", e.opened.Functions, e.info.VocabSize, calls, time.Since(start).Seconds(), e.info.Shows)
	if why := slices.Sorted(maps.Keys(e.info.Fallbacks)); len(why) > 0 {
		r.pass("states", "%s", why[0])
	}
	r.tokens(ctx, e)
	return r, ctx.Err()
}

// tokens makes the first tokens twice, and takes the states out and in again between two.
func (r *Report) tokens(ctx context.Context, e *Engine) {
	for id := range int32(min(4, e.info.VocabSize)) {
		r.Prompt = append(r.Prompt, id)
	}
	start := time.Now()
	shipped, err := e.greedy(ctx, r.Prompt, nil, engine.Options{MaxTokens: doctorTokens})
	if err != nil {
		r.fail("first tokens", err)
		return
	}
	r.Tokens = shipped
	r.pass("first tokens", "%v after %v, %.0f ms a token", shipped, r.Prompt, float64(time.Since(start).Milliseconds())/float64(len(r.Prompt)+doctorTokens-1))
	if !e.info.Shows.Has(engine.Logits) {
		return
	}
	probed, err := e.greedy(ctx, r.Prompt, nil, engine.Options{MaxTokens: doctorTokens, TopK: 2})
	r.same("generate and force", shipped, probed, err, "both paths choose the same tokens: what is forced may be trusted")
	if !e.info.Shows.Has(engine.ReadState | engine.TakeState) {
		return
	}
	var end engine.State
	first, err := e.greedy(ctx, r.Prompt, nil, engine.Options{MaxTokens: 1, FinalState: &end})
	if err == nil {
		var rest []int32
		rest, err = e.greedy(ctx, first, &end, engine.Options{MaxTokens: doctorTokens - 1})
		first = append(first, rest...)
	}
	r.same("states", shipped, first, err, "read after the prompt and set again: the tokens go on as before")
}

// greedy gives the tokens that are generated from a state.
func (e *Engine) greedy(ctx context.Context, prompt []int32, from *engine.State, opt engine.Options) (out []int32, err error) {
	opt.State = from
	err = e.Generate(ctx, engine.Prompt{IDs: prompt}, opt, func(t *engine.Token) error {
		out = append(out, t.ID)
		return nil
	})
	return out, err
}

func (r *Report) same(name string, want, got []int32, err error, good string) {
	switch {
	case err != nil:
		r.fail(name, err)
	case !slices.Equal(got, want):
		r.Checks = append(r.Checks, Check{Name: name, Found: fmt.Sprintf("%v where the shipped path gives %v", got, want),
			Do: "do not trust what is forced on this runtime; report it with the bundle's main.hash"})
	default:
		r.pass(name, "%s", good)
	}
}

func (r *Report) pass(name, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, OK: true, Found: fmt.Sprintf(format, args...)})
}

// fail says what err is, and keeps its remedy apart.
func (r *Report) fail(name string, err error) {
	c := Check{Name: name, Found: err.Error()}
	if f := failure(err); f != nil {
		told := *f
		c.Do, told.Do = f.Do, ""
		if f.Known != nil {
			c.Do = f.Known.Remedy
		}
		c.Found = told.Error()
	}
	r.Checks = append(r.Checks, c)
}
