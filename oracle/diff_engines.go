package oracle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/trace"
)

// RunOptions steer DiffEngines.
type RunOptions struct {
	DiffOptions
	// Path says in which calls the tokens reach both engines.
	Path engine.Path
	// Config is the model's, for tensors' full shapes; nil shows them flat. Spool needs it.
	Config *config.Config
	// Entries are the taps to compare; nil means all that both engines show. See trace.Select.
	Entries []trace.Entry
	// Spool is a folder for two temporary trace files, which are removed at the end; "" keeps both runs in memory
	// (trace.Bytes says how much that is, for each).
	Spool string
}

// DiffEngines runs the same prompt on two engines and compares what both can show: taps, else logits, else the ids
// of the argmax. What is not shown is said in the result's notes.
func DiffEngines(ctx context.Context, ref, test engine.Engine, prompt engine.Prompt, opt RunOptions) (*DiffResult, error) {
	shows := ref.Info().Shows & test.Info().Shows
	if !shows.Has(engine.Taps) && !shows.Has(engine.Logits) {
		return diffIDs(ctx, ref, test, prompt, opt)
	}
	taps, vocab := shows.Has(engine.Taps), ref.Info().VocabSize
	var rows *liveLogits
	if shows.Has(engine.Logits) && vocab == test.Info().VocabSize && wantsLogits(opt.Entries) {
		rows = newLiveLogits(len(prompt.IDs), vocab, opt.TopK)
	}
	a, err := newRecording(ref, prompt, taps, rows != nil, opt, "ref")
	if err != nil {
		return nil, fmt.Errorf("REF %s: %w", ref.Info().Subject, err)
	}
	defer a.close()
	b, err := newRecording(test, prompt, taps, rows != nil, opt, "test")
	if err != nil {
		return nil, fmt.Errorf("TEST %s: %w", test.Info().Subject, err)
	}
	defer b.close()
	errA, errB := runBoth(ctx, ref, test, prompt, opt.Path, a, b, rows)
	if errA == nil && errB == nil { // a run that was broken off has no whole recording
		errA, errB = a.end(), b.end()
	}
	switch {
	case errA != nil:
		return nil, fmt.Errorf("REF %s: %w", ref.Info().Subject, errA)
	case errB != nil:
		return nil, fmt.Errorf("TEST %s: %w", test.Info().Subject, errB)
	}
	r, err := diff(ctx, a.source, b.source, opt.DiffOptions, rows)
	if err != nil {
		return nil, err
	}
	r.name(ref.Info(), test.Info(), opt.Path)
	r.locate(test)
	if !taps {
		r.Notes = append(r.Notes, notShown(ref.Info(), test.Info(), engine.Taps)+": only logits are compared")
	}
	return r, nil
}

// DiffTrace runs an engine on the ids of a trace and compares the two. The engine is TEST, or REF if first says so.
func DiffTrace(ctx context.Context, e engine.Engine, file trace.Source, first bool, prompt engine.Prompt, opt RunOptions) (*DiffResult, error) {
	name, vocab := trace.Logits.Name(-1), e.Info().VocabSize
	var rows *liveLogits
	for _, t := range file.Tensors() {
		if t.Name == name && t.Len() == len(prompt.IDs)*vocab && e.Info().Shows.Has(engine.Logits) && wantsLogits(opt.Entries) {
			rows = newLiveLogits(len(prompt.IDs), vocab, opt.TopK)
		}
	}
	rec, err := newRecording(e, prompt, true, rows != nil, opt, "run")
	if err != nil {
		return nil, err
	}
	defer rec.close()
	theirs := make([]float32, vocab)
	want := engine.Want{Path: opt.Path, Taps: rec.sink, From: math.MaxInt}
	if rows != nil {
		want.Logits, want.From = true, 0
	}
	err = e.Score(ctx, []engine.Prompt{prompt}, want, func(p *engine.Position) error {
		if err := file.Read(name, p.Pos*vocab, theirs); err != nil {
			return err
		}
		if first {
			rows.add(p.Logits, theirs)
		} else {
			rows.add(theirs, p.Logits)
		}
		return nil
	})
	if err == nil {
		err = rec.end()
	}
	if err != nil {
		return nil, err
	}
	if first {
		return diff(ctx, rec.source, file, opt.DiffOptions, rows)
	}
	return diff(ctx, file, rec.source, opt.DiffOptions, rows)
}

// wantsLogits says whether logits are among the taps to compare.
func wantsLogits(entries []trace.Entry) bool {
	return entries == nil || slices.ContainsFunc(entries, func(e trace.Entry) bool { return e.Tap == trace.Logits })
}

// locate adds to the places where the runs part which operations of TEST make them.
func (r *DiffResult) locate(test engine.Engine) {
	l, ok := test.(engine.Locator)
	for _, p := range []*Place{r.First.Bit, r.First.Unexplained} {
		if ok && p != nil {
			p.MadeBy = l.Locate(p.Name)
		}
	}
}

// name puts the engines' own words into a result.
func (r *DiffResult) name(ref, test engine.Info, path engine.Path) {
	for _, s := range []struct {
		to *DiffSide
		i  engine.Info
	}{{&r.Ref, ref}, {&r.Test, test}} {
		*s.to = DiffSide{Label: s.i.Subject, Contract: s.i.Contract, Scheme: s.i.Scheme, Mode: s.i.Mode, Path: path.String(), Weights: s.i.WeightsSHA256}
	}
}

// notShown names the engines that do not show what.
func notShown(ref, test engine.Info, what engine.Shows) string {
	var who string
	for _, i := range []engine.Info{ref, test} {
		if !i.Shows.Has(what) {
			if who != "" && who != i.Engine {
				who += " and "
			}
			if who != i.Engine {
				who += i.Engine
			}
		}
	}
	return fmt.Sprintf("engine %s does not show %s", who, what)
}

// liveLogits compares rows of logits while two runs show them, so that those of a long text never exist together.
type liveLogits struct {
	c *comparison
	s *LogitStats
}

func newLiveLogits(tokens, vocab, topK int) *liveLogits {
	if topK <= 0 {
		topK = defaultTopK
	}
	info := trace.TensorInfo{Name: trace.Logits.Name(-1), Tap: trace.Logits, Layer: -1, DType: trace.Logits.DType(), Shape: []int{tokens, vocab}}
	return &liveLogits{newComparison(info), newLogitStats(min(topK, vocab))}
}

// add takes the rows of the next position.
func (l *liveLogits) add(a, b []float32) {
	l.c.add(a, b)
	l.s.add(a, b)
}

// recording is what an engine shows of a run, but for logits that are compared while they are shown.
type recording struct {
	sink   engine.Sink // nil if the engine shows no taps
	rows   bool        // logits are recorded from the positions
	end    func() error
	source trace.Source // after end
	close  func()       // gives memory and files back
}

// newRecording begins to record in memory, or in a temporary trace file. live leaves logits out.
func newRecording(e engine.Engine, prompt engine.Prompt, taps, live bool, opt RunOptions, role string) (*recording, error) {
	entries := opt.Entries
	if !taps {
		entries = []trace.Entry{{Tap: trace.Logits, Layer: -1, Name: trace.Logits.Name(-1)}}
	}
	if entries == nil && opt.Config != nil {
		entries = trace.All(opt.Config)
	}
	if live && entries != nil {
		entries = slices.DeleteFunc(slices.Clone(entries), func(e trace.Entry) bool { return e.Tap == trace.Logits })
	}
	r := &recording{rows: !taps && !live, close: func() {}}
	var sink engine.Sink
	var err error
	if opt.Spool != "" && opt.Config != nil && len(entries) > 0 {
		sink, err = r.spool(e, prompt, entries, opt, role)
	} else {
		sink = r.memory(e, prompt, entries, opt)
	}
	if live {
		sink = butLogits{sink}
	}
	if taps || r.rows {
		r.sink = sink
	}
	return r, err
}

// butLogits is a sink that wants no logits.
type butLogits struct{ engine.Sink }

// Wants implements engine.Sink.
func (s butLogits) Wants(name string) bool {
	return name != trace.Logits.Name(-1) && s.Sink.Wants(name)
}

func (r *recording) memory(e engine.Engine, prompt engine.Prompt, entries []trace.Entry, opt RunOptions) engine.Sink {
	rec := trace.NewRecorder(e.Info().Subject, opt.Config, entries, prompt.IDs)
	r.end = func() (err error) {
		r.source, err = rec.Sequence(0)
		return err
	}
	return rec
}

func (r *recording) spool(e engine.Engine, prompt engine.Prompt, entries []trace.Entry, opt RunOptions, role string) (engine.Sink, error) {
	dir, err := os.MkdirTemp(opt.Spool, "sibyl-diff-")
	if err != nil {
		return nil, err
	}
	r.close = func() { _ = os.RemoveAll(dir) } // a leftover in the temporary folder is the system's to clear
	path := filepath.Join(dir, role+".trace")
	w, err := trace.Create(path, opt.Config, entries, trace.MetaOf("", e.Info(), opt.Path, prompt.IDs), 0)
	if err != nil {
		r.close()
		return nil, err
	}
	remove := r.close
	r.close = func() { w.Abort(); remove() } // after Commit it does nothing
	r.end = func() error {
		if _, err := w.Commit(); err != nil {
			return err
		}
		f, err := trace.Open(path, "")
		if err != nil {
			return err
		}
		r.source, r.close = f, func() { _ = f.Close(); remove() }
		return nil
	}
	return w, nil
}

// runBoth runs one prompt on both engines side by side, or one after the other where no rows are compared meanwhile.
func runBoth(ctx context.Context, ref, test engine.Engine, prompt engine.Prompt, path engine.Path, a, b *recording, rows *liveLogits) (errA, errB error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := newMeeting()
	if ref.Info().Streams && test.Info().Streams {
		m.turns = newTurns(2)
	}
	run := func(e engine.Engine, rec *recording, runner int, each func(*engine.Position) error) error {
		want := engine.Want{Path: path, From: math.MaxInt, Layer: m.turns.layer(runner)} // no position is reported: the taps hold them
		if rows != nil || rec.rows {
			want.Logits, want.From = true, 0
		}
		if !rec.rows {
			want.Taps = rec.sink
		}
		return e.Score(ctx, []engine.Prompt{prompt}, want, func(p *engine.Position) error {
			if rec.rows {
				return rec.sink.Put(trace.Logits.Name(-1), 0, p.Pos, 1, p.Logits)
			}
			return each(p)
		})
	}
	one := func() {
		errA = run(ref, a, runnerA, func(p *engine.Position) error { m.put(0, p.Pos, p.Logits); return nil })
		m.turns.leave(runnerA)
		m.end()
	}
	two := func() {
		errB = run(test, b, runnerB, func(p *engine.Position) error {
			row, ok := m.take(0, p.Pos)
			if !ok {
				return errAlone
			}
			rows.add(row, p.Logits)
			m.done(row)
			return nil
		})
		m.turns.leave(runnerB)
		m.leave()
	}
	if rows == nil && m.turns == nil {
		if one(); errA == nil {
			two()
		}
		return errA, errB
	}
	var wg sync.WaitGroup
	wg.Go(one)
	if two(); errB != nil && !errors.Is(errB, errAlone) {
		cancel() // nobody is interested in the rest of REF
	}
	wg.Wait()
	if errors.Is(errB, errAlone) && errA == nil {
		errA = errors.New("it showed fewer positions than TEST")
	}
	if errB != nil && errors.Is(errA, context.Canceled) && !errors.Is(errB, context.Canceled) {
		errA = nil
	}
	return errA, errB
}

// diffIDs compares argmax ids, all that one of the engines shows.
func diffIDs(ctx context.Context, ref, test engine.Engine, prompt engine.Prompt, opt RunOptions) (*DiffResult, error) {
	r := &DiffResult{Tokens: len(prompt.IDs), Notes: []string{notShown(ref.Info(), test.Info(), engine.Logits) + ": only ids are compared"},
		OnlyRef: []string{}, OnlyTest: []string{}, Tensors: []TensorStats{}, Layers: []LayerError{}}
	if opt.Tol != nil {
		return nil, &inputerr.Error{File: opt.Tol.File, Found: r.Notes[0], Want: "two engines that show logits or taps", Do: "leave out the tolerances, or compare other engines"}
	}
	r.name(ref.Info(), test.Info(), opt.Path)
	var ids []int32
	prompts, want := []engine.Prompt{prompt}, engine.Want{Path: opt.Path}
	if err := ref.Score(ctx, prompts, want, func(p *engine.Position) error { ids = append(ids, p.ID); return nil }); err != nil {
		return nil, fmt.Errorf("REF %s: %w", ref.Info().Subject, err)
	}
	s := newLogitStats(0)
	s.KLMean, s.TopKOverlap = Number(math.NaN()), Number(math.NaN())
	err := test.Score(ctx, prompts, want, func(p *engine.Position) error {
		if s.Positions >= len(ids) {
			return fmt.Errorf("position %d, REF showed %d", p.Pos, len(ids))
		}
		id := ids[s.Positions]
		tie := false
		for _, t := range p.Ties {
			tie = tie || t == id
		}
		s.top1(s.Positions, int(id), int(p.ID), tie)
		s.Positions++
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("TEST %s: %w", test.Info().Subject, err)
	}
	r.Logits, r.Identical = s, s.Top1Agree == len(ids)
	return r, nil
}
