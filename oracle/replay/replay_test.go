package replay

import (
	"context"
	"slices"
	"sync"
	"testing"

	"sibyl/engine"
	"sibyl/engine/enginetest"
	"sibyl/oracle"
	"sibyl/oracle/oracletest"
)

// log is what recorders of one kind saw together.
type log struct {
	mu    sync.Mutex
	paths map[engine.Path][]text
}

func (l *log) add(path engine.Path, x text) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paths[path] = append(l.paths[path], x)
}

// recorder keeps everything an engine shows in the form in which replay holds it.
type recorder struct {
	engine.Engine
	log *log
}

func seen(p *engine.Position) oracle.Seen {
	return oracle.Seen{ID: p.ID, Ties: slices.Clone(p.Ties), Top: slices.Clone(p.Top), LSE: p.LSE}
}

func (r recorder) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	rows := make([][]oracle.Seen, len(prompts))
	err := r.Engine.Score(ctx, prompts, want, func(p *engine.Position) error {
		rows[p.Seq] = append(rows[p.Seq], seen(p))
		return each(p)
	})
	for i, row := range rows {
		if n := len(prompts[i].IDs); len(row) > 0 && want.From+len(row) == n {
			r.log.add(want.Path, text{prompt: n, from: want.From, ids: slices.Clone(prompts[i].IDs), seen: row})
		}
	}
	return err
}

func (r recorder) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	x := text{decode: true, prompt: len(prompt.IDs), from: len(prompt.IDs) - 1, ids: slices.Clone(prompt.IDs)}
	last := int32(-1)
	err := r.Engine.Generate(ctx, prompt, opt, func(t *engine.Token) error {
		if last >= 0 {
			x.ids = append(x.ids, last)
		}
		last, x.seen = t.ID, append(x.seen, seen(&t.Position))
		return each(t)
	})
	if len(x.seen) > 0 {
		r.log.add(opt.Path, x)
	}
	return err
}

// everyPath answers for all recorded paths: an engine of each, chosen by the call. One transcript has one path; the
// suite asks for several.
type everyPath struct {
	*Engine
	byPath map[engine.Path]*Engine
}

func (e *everyPath) at(p engine.Path) *Engine {
	if x := e.byPath[p]; x != nil {
		return x
	}
	return e.Engine
}

func (e *everyPath) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	return e.at(want.Path).Score(ctx, prompts, want, each)
}

func (e *everyPath) Generate(ctx context.Context, prompt engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	return e.at(opt.Path).Generate(ctx, prompt, opt, each)
}

func (e *everyPath) Close() error {
	for _, x := range e.byPath {
		x.Close()
	}
	return e.Engine.Close()
}

// TestConformance: what was recorded while the suite ran is answered when the suite runs again, so a replay keeps every
// promise of an engine that shows ids, or ids and the largest logits.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, shows := range map[string]engine.Shows{"ids": engine.IDs, "top-k": engine.IDs | engine.TopK} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := oracletest.Fixture{Config: enginetest.TinyConfig(), Prompts: [][]int32{{3, 1, 4, 1, 5, 9, 2}, make([]int32, 70), {7}}}
			l := &log{paths: map[engine.Path][]text{}}
			newFake := func() *enginetest.Fake {
				f := enginetest.New(nil)
				f.Describes.Shows = shows
				return f
			}
			t.Run("record", func(t *testing.T) { // its parallel cases end with it
				oracletest.Run(t, func(testing.TB) engine.Engine { return recorder{newFake(), l} }, fx)
			})
			f := newFake()
			oracletest.Run(t, func(testing.TB) engine.Engine {
				e := &everyPath{byPath: map[engine.Path]*Engine{}}
				for path, held := range l.paths {
					// Records of fewer candidates than others of the same text come after them.
					held = slices.Clone(held)
					slices.SortStableFunc(held, func(a, b text) int { return len(b.seen[0].Top) - len(a.seen[0].Top) })
					e.byPath[path] = &Engine{name: "t.json", info: f.Describes, path: &path, held: held,
						limits: engine.Limits{ConfigFile: f.Config.File, VocabSize: f.Config.VocabSize, MaxPositions: f.Config.MaxPositions}}
				}
				e.Engine = e.byPath[engine.Path{}]
				return e
			}, fx)
		})
	}
}
