package oracletest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/engine/enginetest"
	"sibyl/trace"
)

// tiny is the scripted engine's fixture; its second prompt is longer than a chunk of 64.
func tiny() Fixture {
	long := make([]int32, 70)
	for i := range long {
		long[i] = int32((11*i + 5) % 41)
	}
	return Fixture{Config: enginetest.TinyConfig(), Prompts: [][]int32{{3, 1, 4, 1, 5, 9, 2}, long, {7}}}
}

func opened(e func() engine.Engine) func(testing.TB) engine.Engine {
	return func(testing.TB) engine.Engine { return e() }
}

func newFake() engine.Engine { return enginetest.New(nil) }

// TestFakePasses: the scripted engine keeps every promise, so the suite asks for no more than is promised.
func TestFakePasses(t *testing.T) {
	t.Parallel()
	Run(t, opened(newFake), tiny())
}

// TestPartialEngines: an engine that shows less passes too, and what it cannot show is skipped.
func TestPartialEngines(t *testing.T) {
	t.Parallel()
	for name, shows := range map[string]engine.Shows{
		"ids": engine.IDs, "top-k": engine.IDs | engine.TopK, "no-states": enginetest.All &^ (engine.ReadState | engine.TakeState),
		"reads-only": enginetest.All &^ engine.TakeState, "no-taps": enginetest.All &^ engine.Taps,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			Run(t, opened(func() engine.Engine {
				f := enginetest.New(nil)
				f.Describes.Shows = shows
				return f
			}), tiny())
		})
	}
}

// TestFastEngine: one that promises no bits passes within its bound, and not beyond.
func TestFastEngine(t *testing.T) {
	t.Parallel()
	noisy := func() engine.Engine {
		clean := enginetest.Hashed(0)
		f := enginetest.New(nil)
		f.Row = func(at enginetest.At) []float64 {
			row := clean(at)
			for i := range row {
				if at.Call == enginetest.Generate {
					row[i] += float64(float32(1e-3)) * float64(i%3-1)
				}
			}
			return row
		}
		f.Describes.Mode = "fast"
		return f
	}
	fx := tiny()
	fx.Bound = 1e-2
	// Rows rounded to float32 do not hold the noise exactly: leave out what compares them with candidates.
	for _, c := range checks {
		if c.name == "score/logits" || c.name == "golden" || strings.HasPrefix(c.name, "taps") {
			continue
		}
		if got := attempt(t, c, opened(noisy), fx); len(got) > 0 {
			t.Errorf("%s: %s", c.name, got[0])
		}
	}
	fx.Bound = 1e-6
	if got := attempt(t, checkNamed(t, "generate/greedy"), opened(noisy), fx); len(got) == 0 {
		t.Error("noise of 1e-3 passed a bound of 1e-6")
	}
}

// TestWrappers: a wrapper that passes the state methods on passes; one that loses them is caught by its Info.
func TestWrappers(t *testing.T) {
	t.Parallel()
	Run(t, opened(func() engine.Engine { return struct{ stateful }{newFake().(stateful)} }), tiny())
	lossy := opened(func() engine.Engine { return struct{ engine.Engine }{newFake()} })
	if got := attempt(t, checkNamed(t, "info"), lossy, tiny()); len(got) != 1 || !strings.Contains(got[0], "is no Stater") {
		t.Errorf("a wrapper without the state methods: %q, want that it is no Stater", got)
	}
}

type stateful interface {
	engine.Engine
	engine.Stater
}

// faulty wraps the scripted engine with one mistake; the fields left nil are passed on.
type faulty struct {
	*enginetest.Fake
	score    func(f *enginetest.Fake, ctx context.Context, p []engine.Prompt, w engine.Want, each func(*engine.Position) error) error
	generate func(f *enginetest.Fake, ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error
	step     func(f *enginetest.Fake, ctx context.Context, st *engine.State, id int32, k int) (*engine.Position, error)
	closer   func(f *enginetest.Fake) error
}

func (f *faulty) Score(ctx context.Context, p []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
	if f.score == nil {
		return f.Fake.Score(ctx, p, w, each)
	}
	return f.score(f.Fake, ctx, p, w, each)
}

func (f *faulty) Generate(ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error {
	if f.generate == nil {
		return f.Fake.Generate(ctx, p, o, each)
	}
	return f.generate(f.Fake, ctx, p, o, each)
}

func (f *faulty) Step(ctx context.Context, st *engine.State, id int32, k int) (*engine.Position, error) {
	if f.step == nil {
		return f.Fake.Step(ctx, st, id, k)
	}
	return f.step(f.Fake, ctx, st, id, k)
}

func (f *faulty) Prefill(ctx context.Context, p engine.Prompt, path engine.Path) (*engine.State, error) {
	s := new(engine.State)
	return s, f.Score(ctx, []engine.Prompt{p}, engine.Want{Path: path, FinalState: s}, func(*engine.Position) error { return nil })
}

func (f *faulty) Close() error {
	if f.closer == nil {
		return f.Fake.Close()
	}
	return f.closer(f.Fake)
}

// shownAs changes each position Score shows.
func shownAs(change func(p *engine.Position)) faulty {
	return faulty{score: func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
		return f.Score(ctx, ps, w, func(p *engine.Position) error { change(p); return each(p) })
	}}
}

// script is the scripted engine with another script.
func script(edit func(at enginetest.At, row []float64)) faulty {
	f := enginetest.New(nil)
	clean := f.Row
	f.Row = func(at enginetest.At) []float64 { row := clean(at); edit(at, row); return row }
	return faulty{Fake: f}
}

// tapAs changes the tensors that reach a sink.
type tapAs struct {
	engine.Sink
	put func(s engine.Sink, name string, seq, pos, rows int, x []float32) error
}

func (t tapAs) Put(name string, seq, pos, rows int, x []float32) error {
	return t.put(t.Sink, name, seq, pos, rows, x)
}

func tapped(put func(s engine.Sink, name string, seq, pos, rows int, x []float32) error) faulty {
	return faulty{score: func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
		if w.Taps != nil {
			w.Taps = tapAs{w.Taps, put}
		}
		return f.Score(ctx, ps, w, each)
	}}
}

// TestSuiteCatches: each promise broken alone is caught by the check named; so each check can fail.
func TestSuiteCatches(t *testing.T) {
	t.Parallel()
	stale := 0
	for _, tt := range []struct {
		name, why string
		caught    string // the check that must fail
		make      func() faulty
	}{
		{"vocabulary", "Info of another model", "info", func() faulty { f := script(nothing); f.Describes.VocabSize++; return f }},
		{"mode", "a mode nobody knows", "info", func() faulty { f := script(nothing); f.Describes.Mode = "turbo"; return f }},
		{"position-left-out", "a position is missing", "score/order", func() faulty {
			return faulty{score: func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
				return f.Score(ctx, ps, w, func(p *engine.Position) error {
					if p.Pos == 3 {
						return nil
					}
					return each(p)
				})
			}}
		}},
		{"highest-of-a-tie", "argmax takes the highest id of a tie", "score/order", func() faulty {
			f := script(func(_ enginetest.At, row []float64) { row[5], row[30] = 20, 20 })
			f.score = shownAs(func(p *engine.Position) { p.ID = p.Ties[len(p.Ties)-1] }).score
			return f
		}},
		{"from-ignored", "positions below From are reported", "score/from", func() faulty {
			return faulty{score: func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
				w.From = 0
				return f.Score(ctx, ps, w, each)
			}}
		}},
		{"one-candidate", "k = 1 gives no margin", "score/top-k", func() faulty {
			return shownAs(func(p *engine.Position) { p.Top = p.Top[:1] })
		}},
		{"unsorted", "candidates in another order", "score/top-k", func() faulty {
			return shownAs(func(p *engine.Position) { slices.Reverse(p.Top[1:]) })
		}},
		{"ties-by-highest", "equal candidates by descending id", "score/top-k", func() faulty {
			f := script(func(_ enginetest.At, row []float64) { row[5], row[30] = 20, 20 })
			f.score = shownAs(func(p *engine.Position) { p.Top[0], p.Top[1] = p.Top[1], p.Top[0]; p.ID = 30 }).score
			return f
		}},
		{"ties-lost", "the set of maxima holds only the argmax", "score/logits", func() faulty {
			f := script(func(_ enginetest.At, row []float64) { row[5], row[30] = 20, 20 })
			f.score = shownAs(func(p *engine.Position) { p.Ties = p.Ties[:1] }).score
			return f
		}},
		{"lse-over-candidates", "log-sum-exp over the candidates, not the vocabulary", "score/logits", func() faulty {
			return shownAs(func(p *engine.Position) { p.LSE = p.Top[0].Logit + 1e-4 })
		}},
		{"shifted-row", "the row of another id", "score/logits", func() faulty {
			return shownAs(func(p *engine.Position) { p.Logits = append(p.Logits[1:], 0) })
		}},
		{"path-dependent", "a bit differs between prefill and step", "score/paths", func() faulty {
			return faulty{score: func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
				return f.Score(ctx, ps, w, func(p *engine.Position) error {
					if w.Path.Chunk == 1 && p.Pos == 2 && len(p.Top) > 1 {
						p.Top[1].Logit += 1e-12
					}
					return each(p)
				})
			}}
		}},
		{"calls-do-not-matter", "Info says that calls matter, and every path is the same", "score/calls", func() faulty {
			f := script(nothing)
			f.Describes.CallsMatter = true
			return f
		}},
		{"another-call", "the last token is shown as if it were not a call of its own", "score/calls", func() faulty {
			return faulty{score: func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
				return f.Score(ctx, ps, w, func(p *engine.Position) error {
					if w.Path.Last && p.Pos == len(ps[p.Seq].IDs)-1 {
						p.LSE += 1e-3
					}
					return each(p)
				})
			}}
		}},
		{"batch-leaks", "a sequence sees the one before it", "score/ragged-batch", func() faulty {
			return script(func(at enginetest.At, row []float64) {
				if at.Seq == 1 {
					row[0] += 1
				}
			})
		}},
		{"stale-state", "the second call still has the first one's state", "score/again", func() faulty {
			return script(func(at enginetest.At, row []float64) {
				if at.Call == enginetest.Generate {
					stale++
				}
				row[3] += float64(stale)
			})
		}},
		{"decode-differs", "the decode path is another function", "generate/greedy", func() faulty {
			return script(func(at enginetest.At, row []float64) {
				if at.Call == enginetest.Generate && len(at.Prefix) > 8 {
					row[2] += 0.5
				}
			})
		}},
		{"force-ignored", "the chosen id is consumed instead of the forced one", "generate/force", func() faulty {
			return faulty{generate: func(f *enginetest.Fake, ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error {
				if o.Force != nil {
					o.Force, o.MaxTokens = nil, len(o.Force)
				}
				return f.Generate(ctx, p, o, each)
			}}
		}},
		{"stop-ignored", "generation runs on", "generate/stop", func() faulty {
			return faulty{generate: func(f *enginetest.Fake, ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error {
				o.Stop = nil
				return f.Generate(ctx, p, o, each)
			}}
		}},
		{"choose-ignored", "greedy whatever was picked", "generate/choose", func() faulty {
			return faulty{generate: func(f *enginetest.Fake, ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error {
				o.Choose = nil
				return f.Generate(ctx, p, o, each)
			}}
		}},
		{"state-one-late", "a step from a state shows the position before", "state/step", func() faulty {
			return faulty{step: func(f *enginetest.Fake, ctx context.Context, st *engine.State, id int32, k int) (*engine.Position, error) {
				p, err := f.Step(ctx, st, id, k)
				if err == nil {
					p.Top[0].Logit += 0.125
				}
				return p, err
			}}
		}},
		{"state-changed", "a step works in the caller's state", "state/step", func() faulty {
			return faulty{step: func(f *enginetest.Fake, ctx context.Context, st *engine.State, id int32, k int) (*engine.Position, error) {
				p, err := f.Step(ctx, st, id, k)
				st.Tensors["cache.layer0.recurrent_state"].Data[0]++
				return p, err
			}}
		}},
		{"state-not-final", "the state at the end of a rollout has consumed the last token too", "state/continue", func() faulty {
			return faulty{generate: func(f *enginetest.Fake, ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error {
				err := f.Generate(ctx, p, o, each)
				if o.FinalState != nil {
					o.FinalState.Len++
				}
				return err
			}}
		}},
		{"state-incomplete", "the conv state is left out", "state/shapes", func() faulty {
			return faulty{score: func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
				err := f.Score(ctx, ps, w, each)
				if w.FinalState != nil {
					delete(w.FinalState.Tensors, "cache.layer0.conv_state")
				}
				return err
			}}
		}},
		{"state-panics", "a state of another model is trusted", "state/refused", func() faulty {
			return faulty{step: func(f *enginetest.Fake, ctx context.Context, st *engine.State, id int32, k int) (*engine.Position, error) {
				_ = st.Tensors["cache.layer1.key"].Data[3*8*st.Len-1]
				return f.Step(ctx, st, id, k)
			}}
		}},
		{"tap-missing", "a tensor of the table is never handed over", "taps/complete", func() faulty {
			return tapped(func(s engine.Sink, name string, seq, pos, rows int, x []float32) error {
				if name == "layer0.gdn.q_l2" {
					return nil
				}
				return s.Put(name, seq, pos, rows, x)
			})
		}},
		{"tap-narrow", "a tensor of another width", "taps/complete", func() faulty {
			return tapped(func(s engine.Sink, name string, seq, pos, rows int, x []float32) error {
				if name == "layer1.attn.q_norm" {
					x = x[:len(x)-1]
				}
				return s.Put(name, seq, pos, rows, x)
			})
		}},
		{"tap-path", "a tensor that depends on the batch", "taps/paths", func() faulty {
			return tapped(func(s engine.Sink, name string, seq, pos, rows int, x []float32) error {
				if name == "layer0.out" && pos == 4 {
					stale++
					x[0] = float32(stale)
				}
				return s.Put(name, seq, pos, rows, x)
			})
		}},
		{"tap-unwanted", "a tensor that nobody wants", "taps/wanted", func() faulty {
			return faulty{score: func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
				if w.Taps != nil {
					if err := w.Taps.Put(trace.Embed.Name(-1), 0, 0, 1, make([]float32, 10)); err != nil {
						return err
					}
				}
				return f.Score(ctx, ps, w, each)
			}}
		}},
		{"sink-error-lost", "the disk is full and nobody hears of it", "taps/sink-error", func() faulty {
			return tapped(func(s engine.Sink, name string, seq, pos, rows int, x []float32) error {
				_ = s.Put(name, seq, pos, rows, x)
				return nil
			})
		}},
		{"not-cancelled", "the context is not looked at", "cancel", func() faulty {
			return faulty{score: func(f *enginetest.Fake, _ context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
				return f.Score(context.Background(), ps, w, each)
			}}
		}},
		{"callback-error-lost", "the run goes on after the callback's error", "callback-error", func() faulty {
			return faulty{generate: func(f *enginetest.Fake, ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error {
				return f.Generate(ctx, p, o, func(t *engine.Token) error { _ = each(t); return nil })
			}}
		}},
		{"plain-error", "bad input gives an error of another type", "refused", func() faulty {
			return faulty{score: func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
				if err := f.Score(ctx, ps, w, each); err != nil {
					return errors.New(err.Error())
				}
				return nil
			}}
		}},
		{"panics", "bad input panics", "refused", func() faulty {
			return faulty{generate: func(f *enginetest.Fake, ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error {
				_ = p.IDs[0]
				return f.Generate(ctx, p, o, each)
			}}
		}},
		{"shows-nothing-of-it", "what is not listed is silently left out", "not-shown", func() faulty {
			f := script(nothing)
			f.Describes.Shows &^= engine.Logits
			f.score = func(f *enginetest.Fake, ctx context.Context, ps []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
				w.Logits = false
				return f.Score(ctx, ps, w, each)
			}
			return f
		}},
		{"another-model", "its greedy ids are not the golden ones", "golden", func() faulty {
			return faulty{Fake: enginetest.New(enginetest.Hashed(1))}
		}},
		{"close-once", "the second Close fails", "close", func() faulty {
			closed := false
			return faulty{closer: func(f *enginetest.Fake) error {
				if closed {
					return errors.New("already closed")
				}
				closed = true
				return f.Close()
			}}
		}},
		{"usable-after-close", "a closed engine answers", "close", func() faulty {
			return faulty{closer: func(*enginetest.Fake) error { return nil }}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fx := tiny()
			fx.Golden = goldens(t)
			open := opened(func() engine.Engine {
				f := tt.make()
				if f.Fake == nil {
					f.Fake = enginetest.New(nil)
				}
				return &f
			})
			if got := attempt(t, checkNamed(t, tt.caught), open, fx); len(got) == 0 {
				t.Errorf("%s passed\nwhy it should not: %s", tt.caught, tt.why)
			}
		})
	}
}

func nothing(enginetest.At, []float64) {}

// goldens are the scripted engine's own answers with seed 0.
func goldens(t *testing.T) []Golden {
	g := Golden{Name: "g", IDs: []int32{1, 2, 3, 4, 5, 6}, Bound: 1e-6}
	e := newFake()
	s := &suite{TB: t, e: e, info: e.Info(), fx: tiny()}
	for _, p := range s.score(s.want(), g.IDs)[0] {
		g.Logits = append(g.Logits, p.Logits...)
	}
	o := s.options()
	o.MaxTokens = 5
	for _, tok := range s.generate(o, g.IDs) {
		g.Greedy = append(g.Greedy, tok.ID)
		g.Margins = append(g.Margins, float32(tok.LogitGap()))
	}
	return []Golden{g}
}

func TestGoldenPasses(t *testing.T) {
	t.Parallel()
	fx := tiny()
	fx.Golden = goldens(t)
	if got := attempt(t, checkNamed(t, "golden"), opened(newFake), fx); len(got) > 0 {
		t.Error(got)
	}
}

func checkNamed(t *testing.T, name string) check {
	for _, c := range checks {
		if c.name == name {
			return c
		}
	}
	t.Fatalf("no check is named %s", name)
	return check{}
}

// listener is a testing.TB that keeps complaints instead of failing.
type listener struct {
	testing.TB
	said []string
}

func (l *listener) Helper()                   {}
func (l *listener) Logf(string, ...any)       {}
func (l *listener) Errorf(f string, a ...any) { l.said = append(l.said, fmt.Sprintf(f, a...)) }
func (l *listener) Fatalf(f string, a ...any) { l.Errorf(f, a...); runtime.Goexit() }
func (l *listener) Fatal(a ...any)            { l.Errorf("%s", fmt.Sprint(a...)); runtime.Goexit() }
func (l *listener) Skip(a ...any)             { l.Errorf("skipped: %s", fmt.Sprint(a...)); runtime.Goexit() }
func (l *listener) Skipf(f string, a ...any)  { runtime.Goexit() }

// attempt runs one check and gives its complaints.
func attempt(t *testing.T, c check, open func(testing.TB) engine.Engine, fx Fixture) []string {
	l := &listener{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.do(l, open, fx)
	}()
	<-done
	return l.said
}
