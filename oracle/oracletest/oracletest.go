// Package oracletest is the conformance suite of engines: one function that any engine must pass, asserting what
// its Info says it shows. A new engine adds one call of Run and inherits every case.
package oracletest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"sibyl/config"
	"sibyl/engine"
)

// Fixture is a model and what to ask of it.
type Fixture struct {
	Config *config.Config
	// Prompts are run alone, together and in pieces. At least two, of different lengths, the first of at least 6
	// tokens; a length just past the engine's own call sizes (64, 512) is worth having.
	Prompts [][]int32
	// Bound is how far the logits, taps and states of one position may be apart when it is reached on two paths,
	// in units of max(1, the largest absolute value beside them). Engines whose Mode is exact get no bound: bits.
	Bound float64
	// StateBound is the same for what passes through an engine.State, which is float32: for engines whose states
	// are wider. 0 means Bound.
	StateBound float64
	// Golden, if any, are known answers.
	Golden []Golden
}

// Golden is what the original implementation said about one prompt.
type Golden struct {
	Name   string
	IDs    []int32
	Logits []float32 // [len(IDs), vocab]; nil: not known
	Bound  float64   // of the largest difference of a logit
	// Greedy are greedy ids, Margins their logit gaps (nil: not known). A step with a margin below 1e-4 may differ
	// by the tie rule and is logged.
	Greedy  []int32
	Margins []float32
}

// check is one case of the suite: needs is what the engine must show for it to apply.
type check struct {
	name  string
	needs engine.Shows
	run   func(s *suite)
}

// checks is the suite. Each opens an engine of its own.
var checks = []check{
	{"info", engine.IDs, (*suite).infoAgrees},
	{"score/order", engine.IDs, (*suite).scoreOrder},
	{"score/from", engine.IDs, (*suite).scoreFrom},
	{"score/top-k", engine.TopK, (*suite).topK},
	{"score/logits", engine.Logits, (*suite).logits},
	{"score/paths", engine.IDs, (*suite).paths},
	{"score/calls", engine.ReadState | engine.TakeState, (*suite).calls},
	{"score/ragged-batch", engine.IDs, (*suite).raggedBatch},
	{"score/again", engine.IDs, (*suite).again},
	{"score/streamed", engine.IDs, (*suite).streamed},
	{"generate/greedy", engine.IDs, (*suite).greedy},
	{"generate/force", engine.IDs, (*suite).force},
	{"generate/stop", engine.IDs, (*suite).stop},
	{"generate/choose", engine.Logits, (*suite).choose},
	{"generate/paths", engine.IDs, (*suite).generatePaths},
	{"generate/together", engine.IDs, (*suite).together},
	{"state/step", engine.ReadState | engine.TakeState, (*suite).stateStep},
	{"state/continue", engine.ReadState | engine.TakeState, (*suite).stateContinue},
	{"state/shapes", engine.ReadState, (*suite).stateShapes},
	{"state/refused", engine.ReadState | engine.TakeState, (*suite).stateRefused},
	{"taps/complete", engine.Taps, (*suite).tapsComplete},
	{"taps/paths", engine.Taps, (*suite).tapsPaths},
	{"taps/wanted", engine.Taps, (*suite).tapsWanted},
	{"taps/sink-error", engine.Taps, (*suite).tapsSinkError},
	{"cancel", engine.IDs, (*suite).cancel},
	{"callback-error", engine.IDs, (*suite).callbackError},
	{"refused", engine.IDs, (*suite).refused},
	{"not-shown", engine.IDs, (*suite).notShown},
	{"golden", engine.IDs, (*suite).golden},
	{"close", engine.IDs, (*suite).close},
}

// Run runs the suite as subtests of t. open gives a new engine of the fixture's model each time; Run closes it.
// What an engine does not show is told in the log: it is no check that was left out.
func Run(t *testing.T, open func(t testing.TB) engine.Engine, fx Fixture) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.do(t, open, fx)
		})
	}
}

func (c check) do(t testing.TB, open func(t testing.TB) engine.Engine, fx Fixture) {
	if len(fx.Prompts) < 2 || len(fx.Prompts[0]) < 6 || len(fx.Prompts[0]) == len(fx.Prompts[1]) {
		t.Fatal("the fixture needs two prompts of different lengths, the first of at least 6 tokens")
	}
	e := open(t)
	defer e.Close()
	info := e.Info()
	if !info.Shows.Has(c.needs) {
		t.Logf("not asked: %s shows %s; this needs %s", info.Engine, info.Shows, c.needs)
		return
	}
	s := &suite{TB: t, e: e, info: info, fx: fx, open: open}
	c.run(s)
	if s.worst > 0 {
		t.Logf("largest difference: %.2f of its bound", s.worst)
	}
}

// suite is one check at work on one engine.
type suite struct {
	testing.TB
	e    engine.Engine
	info engine.Info
	fx   Fixture
	open func(t testing.TB) engine.Engine

	worst float64 // the largest difference met, as a share of its bound
}

// exact says that the engine promises bits.
func (s *suite) exact() bool { return s.info.Mode == "exact" }

// kept copies a position out of its callback.
func kept(p *engine.Position) engine.Position {
	q := *p
	q.Ties, q.Top, q.Logits = slices.Clone(p.Ties), slices.Clone(p.Top), slices.Clone(p.Logits)
	return q
}

// path is that of checks which are not about paths. Where calls matter it is step, on which a rollout and teacher forcing
// over its ids are the same calls.
func (s *suite) path() engine.Path {
	if s.info.CallsMatter {
		return engine.Path{Chunk: 1}
	}
	return engine.Path{}
}

// sameCalls says whether two paths promise the same results of a prompt of n tokens.
func (s *suite) sameCalls(a, b engine.Path, n int) bool {
	return !s.info.CallsMatter || a.Calls(n, 0) == b.Calls(n, 0)
}

// want is what to ask of each position, as far as the engine shows it.
func (s *suite) want() engine.Want {
	w := engine.Want{Path: s.path()}
	if s.info.Shows.Has(engine.TopK) {
		w.TopK = 5
	}
	w.Logits = s.info.Shows.Has(engine.Logits)
	return w
}

// options is the same for Generate.
func (s *suite) options() engine.Options {
	w := s.want()
	return engine.Options{TopK: w.TopK, Logits: w.Logits, Path: w.Path}
}

// score gives all positions by prompt. It fails the test on an error or a position out of order.
func (s *suite) score(w engine.Want, prompts ...[]int32) [][]engine.Position {
	s.Helper()
	out := make([][]engine.Position, len(prompts))
	err := s.e.Score(s.Context(), asPrompts(prompts...), w, func(p *engine.Position) error {
		if p.Seq < 0 || p.Seq >= len(prompts) {
			return fmt.Errorf("position of prompt %d, there are %d", p.Seq, len(prompts))
		}
		out[p.Seq] = append(out[p.Seq], kept(p))
		return nil
	})
	if err != nil {
		s.Fatalf("Score(%d prompts, path %s): %v", len(prompts), w.Path, err)
	}
	return out
}

// generate gives the tokens of one rollout.
func (s *suite) generate(o engine.Options, prompt []int32) []engine.Token {
	s.Helper()
	var out []engine.Token
	err := s.e.Generate(s.Context(), engine.Prompt{IDs: prompt}, o, func(t *engine.Token) error {
		u := *t
		u.Position = kept(&t.Position)
		out = append(out, u)
		return nil
	})
	if err != nil {
		s.Fatalf("Generate(prompt of %d, %d tokens, path %s): %v", len(prompt), max(o.MaxTokens, len(o.Force)), o.Path, err)
	}
	return out
}

func asPrompts(ids ...[]int32) []engine.Prompt {
	out := make([]engine.Prompt, len(ids))
	for i := range ids {
		out[i].IDs = ids[i]
	}
	return out
}

// same demands that two views of one position are the same: bits if the engine is exact, within bound otherwise,
// where ids may differ only if the margin could be bridged by it. Whole logit rows are compared where both have them.
func (s *suite) same(what string, bound float64, a, b *engine.Position) {
	s.Helper()
	if a.Pos != b.Pos {
		s.Errorf("%s: positions %d and %d", what, a.Pos, b.Pos)
		return
	}
	scale := 1.0
	for _, c := range a.Top {
		scale = max(scale, math.Abs(c.Logit))
	}
	if a.ID != b.ID && !(a.LogitGap() <= 2*bound*scale) {
		s.Errorf("%s, position %d: ids %d and %d at a margin of %v", what, a.Pos, a.ID, b.ID, a.LogitGap())
	}
	if bound == 0 && (!slices.Equal(a.Ties, b.Ties) || len(a.Top) != len(b.Top)) {
		s.Errorf("%s, position %d: ties %v and %v, %d and %d candidates", what, a.Pos, a.Ties, b.Ties, len(a.Top), len(b.Top))
	}
	for i := range min(len(a.Top), len(b.Top)) {
		if bound == 0 && a.Top[i].ID != b.Top[i].ID {
			s.Errorf("%s, position %d: candidate %d is id %d and %d", what, a.Pos, i, a.Top[i].ID, b.Top[i].ID)
		}
		s.near(fmt.Sprintf("%s, position %d, candidate %d", what, a.Pos, i), bound*scale, a.Top[i].Logit, b.Top[i].Logit)
	}
	s.near(fmt.Sprintf("%s, position %d, log-sum-exp", what, a.Pos), bound*scale, a.LSE, b.LSE)
	if a.Logits != nil && b.Logits != nil {
		s.rows(fmt.Sprintf("%s, position %d, logits", what, a.Pos), bound, a.Logits, b.Logits)
	}
}

// near compares two numbers: bits for a bound of 0. NaN equals NaN: what is not shown is not shown twice.
func (s *suite) near(what string, bound, a, b float64) {
	s.Helper()
	if math.IsNaN(a) && math.IsNaN(b) || a == b {
		return
	}
	if math.Abs(a-b) <= bound {
		s.worst = max(s.worst, math.Abs(a-b)/bound)
		return
	}
	s.Errorf("%s: %v and %v, %.3g apart, want at most %.3g", what, a, b, math.Abs(a-b), bound)
}

// rows compares two tensors: bits for a bound of 0, else the bound times max(1, largest of a).
func (s *suite) rows(what string, bound float64, a, b []float32) {
	s.Helper()
	if len(a) != len(b) || len(a) == 0 {
		s.Errorf("%s: %d and %d values", what, len(a), len(b))
		return
	}
	scale, worst, at, differ := 1.0, 0.0, 0, 0
	for _, x := range a {
		scale = max(scale, math.Abs(float64(x)))
	}
	for i := range a {
		if math.Float32bits(a[i]) == math.Float32bits(b[i]) {
			continue
		}
		differ++
		if d := math.Abs(float64(a[i]) - float64(b[i])); !(d <= worst) { // NaN counts as worst
			worst, at = d, i
		}
	}
	if differ > 0 && (bound == 0 || !(worst <= bound*scale)) {
		s.Errorf("%s: %d of %d values differ, most at %d: %v and %v, %.3g apart, want at most %.3g", what, differ, len(a), at, a[at], b[at], worst, bound*scale)
	} else if differ > 0 {
		s.worst = max(s.worst, worst/(bound*scale))
	}
}

// bound is what two paths of this engine may differ by.
func (s *suite) bound() float64 {
	if s.exact() {
		return 0
	}
	return s.fx.Bound
}

// stateBound is the same where an engine.State lies between.
func (s *suite) stateBound() float64 {
	if s.exact() {
		return 0
	}
	return max(s.fx.Bound, s.fx.StateBound)
}

// sequence demands that two runs of one prompt are the same at every position.
func (s *suite) sequence(what string, bound float64, a, b []engine.Position) {
	s.Helper()
	if len(a) != len(b) {
		s.Errorf("%s: %d and %d positions", what, len(a), len(b))
		return
	}
	for i := range a {
		s.same(what, bound, &a[i], &b[i])
	}
}
