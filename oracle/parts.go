package oracle

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"

	"sibyl/engine"
)

// qualify is part 1, by REF alone: its greedy continuation of every prompt, then its margin at every position of
// prompt and continuation.
func (g *gate) qualify(ctx context.Context) error {
	continuation := g.decode
	if ref := g.Ref.Info(); ref.Streams && !ref.CallsMatter { // where calls matter, scoring is not decoding
		continuation = g.verify
	}
	if err := continuation(ctx); err != nil {
		return err
	}
	beside := !g.Ref.Info().Streams && !g.test.Streams // else weights are read by one at a time
	if beside {
		g.startNoise(ctx)
	}
	ref, err := g.forceBoth(ctx)
	if err != nil {
		g.tested = nil // what TEST showed meanwhile has nothing to be held against
		g.noise.drop()
		g.noise = nil
		return err
	}
	g.ref = ref
	g.checkRef()
	if beside {
		return nil
	}
	g.startNoise(ctx)
	return g.endNoise()
}

// decode finds REF's greedy continuation of every prompt along its own decode path.
func (g *gate) decode(ctx context.Context) error {
	paths := make([]decodePath, len(g.res.Prompts))
	for i, q := range g.res.Prompts {
		paths[i] = decodePath{name: q.Name, ids: q.IDs, n: g.p.MaxTokens}
	}
	gen := make([][]Seen, len(paths))
	if g.p.MaxTokens > 0 {
		tick := g.ticks("reference: greedy continuation", paths)
		err := generate(ctx, g.Ref, "the reference", paths, &g.p, func(i, _ int, s Seen) error {
			q := &g.res.Prompts[i]
			gen[i] = append(gen[i], s)
			q.RefIDs = append(q.RefIDs, s.ID)
			q.RefLogitGap = append(q.RefLogitGap, shown(s.LogitGap))
			q.RefProbGap = append(q.RefProbGap, shown(s.ProbGap))
			tick()
			return nil
		})
		if err != nil {
			for i := 0; i < len(gen) && g.complete(i); i++ {
				g.gen = append(g.gen, gen[i])
			}
			return err
		}
	}
	g.gen = gen
	return nil
}

// texts are the prompts, each with REF's continuation but its last token, which nothing follows.
func (g *gate) texts() [][]int32 {
	texts := make([][]int32, len(g.res.Prompts))
	for i, q := range g.res.Prompts {
		texts[i] = append(append(texts[i], q.IDs...), q.RefIDs[:max(0, len(q.RefIDs)-1)]...)
	}
	return texts
}

// scoreTexts keeps what e shows at every position of the texts, [text][pos]; layer is engine.Want.Layer.
func (g *gate) scoreTexts(ctx context.Context, e engine.Engine, who string, texts [][]int32, layer func(int), tell progressFunc) ([][]Seen, error) {
	seen, done, total := make([][]Seen, len(texts)), 0, size(texts)
	err := score(ctx, e, who, texts, &g.p, layer, func(seq, _ int, s Seen) error {
		seen[seq] = append(seen[seq], s)
		done++
		tell(who+": teacher forcing", done, total)
		return nil
	})
	return seen, err
}

// size is how many positions the texts have.
func size(texts [][]int32) (n int) {
	for _, ids := range texts {
		n += len(ids)
	}
	return n
}

// checkRef warns of a reference that cannot be trusted: not finite, or another id in prefill than in decode.
func (g *gate) checkRef() {
	faults, split, first := 0, 0, ""
	for i, row := range g.ref {
		for pos := range row {
			s := &row[pos]
			if s.Fault != "" {
				faults++
				if first == "" {
					first = fmt.Sprintf("prompt %d, position %d: %s", i+1, pos, s.Fault)
				}
			}
			k := pos - (len(g.res.Prompts[i].IDs) - 1)
			if k >= 0 && k < len(g.gen[i]) && g.gen[i][k].ID != s.ID && g.p.margin(s) >= g.p.Margin {
				split++
			}
		}
	}
	if faults > 0 {
		g.warn("the reference's logits are not finite at %d positions (%s); those do not qualify", faults, first)
	}
	if split > 0 {
		g.warn("the reference contradicts itself between prefill and decode at %d positions above the floor", split)
	}
	if !g.Ref.Info().Shows.Has(engine.TopK) {
		g.warn("the reference shows no margins, so no position can qualify")
	}
}

func (g *gate) warn(format string, args ...any) {
	g.res.Warnings = append(g.res.Warnings, fmt.Sprintf(format, args...))
}

// noiseRun is REF in the other of fp32 and fp64 over all texts, beside the parts of the gate.
type noiseRun struct {
	stop context.CancelFunc
	done chan struct{}
	told atomic.Bool // its progress is what is waited for

	err  error
	rows [][][]Seen   // by control, nil if it is none of noise
	info []EngineInfo // of the same
}

// wait returns when the run has ended.
func (n *noiseRun) wait() {
	if n != nil {
		<-n.done
	}
}

// drop ends the run, which nobody asks for any more.
func (n *noiseRun) drop() {
	if n != nil {
		n.stop()
		n.wait()
	}
}

// startNoise begins to run REF in the other of fp32 and fp64. It needs a core and the texts, and nothing that other parts find.
func (g *gate) startNoise(ctx context.Context) {
	n := &noiseRun{done: make(chan struct{}), rows: make([][][]Seen, len(g.Controls)), info: make([]EngineInfo, len(g.Controls))}
	ctx, n.stop = context.WithCancel(ctx)
	g.noise = n
	texts := g.texts()
	tell := func(stage string, done, total int) {
		if n.told.Load() {
			g.progress(stage, done, total)
		}
	}
	go func() {
		defer close(n.done)
		for k, c := range g.Controls {
			if c.Kind == ControlNoise && n.err == nil {
				if n.rows[k], n.info[k], n.err = g.runControl(ctx, k, texts, nil, tell, nil); n.err != nil {
					n.rows[k] = nil
				}
			}
		}
	}()
}

// endNoise waits for the run and takes what it found.
func (g *gate) endNoise() error {
	n := g.noise
	if n == nil {
		return nil
	}
	n.told.Store(true)
	n.wait()
	n.stop()
	g.noise = nil
	for k, c := range g.Controls {
		if c.Kind != ControlNoise {
			continue
		}
		if n.info[k].Engine != "" {
			g.res.Controls[k].Engine = n.info[k]
		}
		if n.rows[k] != nil {
			g.ctls[k], g.res.Controls[k].Positions = n.rows[k], size(g.texts())
		}
	}
	if n.err != nil {
		return n.err
	}
	g.measureNoise()
	return nil
}

// measureNoise is the rms distance of REF's logits to the same model in the other of fp32 and fp64, over the
// candidates both show. Both ways it measures fp32's rounding, since fp64's is 2^-29 of it.
func (g *gate) measureNoise() {
	for k, c := range g.Controls {
		if c.Kind != ControlNoise || g.ctls[k] == nil {
			continue
		}
		ref, twin := g.res.Ref, g.res.Controls[k].Engine
		if (ref.LogitsDType == "F64") == (twin.LogitsDType == "F64") {
			g.res.Noise.Source = fmt.Sprintf("not measured: %s and %s are not one fp32 and one fp64", ref.Subject, twin.Subject)
			continue
		}
		sum, n := 0.0, 0
		for i := range g.ref {
			for pos := range min(len(g.ref[i]), len(g.ctls[k][i])) {
				distances(&g.ref[i][pos], &g.ctls[k][i][pos], func(d float64) {
					if finite(d) {
						sum += d * d
						n++
					}
				})
			}
		}
		g.res.Noise = Noise{shown(math.Sqrt(sum / float64(n))), fmt.Sprintf("rms of %d logits, %s against %s", n, ref.Subject, twin.Subject)}
		return
	}
}

// forceBoth feeds prompts and REF's continuation to REF and, beside it, to TEST, so that whole rows of logits can be
// compared without being kept. It gives REF's view; TEST's goes to g.tested, and how it ended to g.forced.
func (g *gate) forceBoth(ctx context.Context) (ref [][]Seen, err error) {
	texts := g.texts()
	ref = make([][]Seen, len(texts))
	done, total := 0, size(texts)
	m := newMeter()
	err, g.forced = beside(ctx, g.Ref, g.Test, texts, &g.p,
		func(seq int, s Seen) { ref[seq] = append(ref[seq], s) },
		func(seq, pos int, s Seen, rows *rowPair) {
			g.keep(TeacherForced, seq, pos, s)
			if rows != nil {
				m.add(seq, pos, rows, nextOf(g.res.Prompts[seq].IDs, pos))
			}
			done++
			g.progress("REF and TEST: teacher forcing", done, total)
		})
	if err != nil {
		return nil, err
	}
	for _, t := range g.tested {
		for k := range t.Seen {
			m.same(ref[t.Prompt][k].ID == t.Seen[k].ID)
		}
	}
	g.res.Metrics = m.metrics(g.rowsNote())
	return ref, nil
}

// nextOf is the id that follows position pos of ids, -1 at their end: what a perplexity is of.
func nextOf(ids []int32, pos int) int32 {
	if pos+1 < len(ids) {
		return ids[pos+1]
	}
	return -1
}

// teacherForce is part 2: TEST's top-1 at every position of prompt and continuation, fed by prefill.
func (g *gate) teacherForce(context.Context) error {
	if g.ref == nil {
		return skip{"the reference did not get this far"}
	}
	return g.forced
}

// stateStep is part 3: TEST decodes REF's first token from REF's own state after the prompt, rounded to the types
// TEST stores states in. A flip here is in the decode step itself, not in what prefill left behind.
func (g *gate) stateStep(ctx context.Context) error {
	if g.ref == nil {
		return skip{"the reference did not get this far"}
	}
	from, okRef := g.Ref.(engine.Stater)
	to, okTest := g.Test.(engine.Stater)
	switch {
	case !okRef || !g.Ref.Info().Shows.Has(engine.ReadState):
		return fmt.Errorf("the reference's state cannot be read: %w", engine.ErrNotShown)
	case !okTest || !g.test.Shows.Has(engine.TakeState):
		return fmt.Errorf("the test engine takes no state: %w", engine.ErrNotShown)
	}
	if differ, err := g.statesDiffer(ctx, from, to); err != nil {
		return err
	} else if differ != "" {
		return fmt.Errorf("the test engine takes no state of the reference's shapes (%s): %w", differ, engine.ErrNotShown)
	}
	ran := false
	for i, q := range g.res.Prompts {
		if len(g.gen[i]) < 2 {
			continue // REF says nothing of the position after its first token
		}
		g.progress("test: one step from the reference's state", i, len(g.res.Prompts))
		state, err := from.Prefill(ctx, engine.Prompt{IDs: q.IDs}, g.p.Path)
		if err != nil {
			return &breach{"the reference", "prefilling to a state", err}
		}
		state, overflowed, err := roundState(state, g.test.StateDTypes)
		if err != nil {
			return &breach{"the reference's state", "rounding it to TEST's types", err}
		}
		if overflowed > 0 {
			g.warn("prompt %d: %d values of the reference's state overflow TEST's state types", i+1, overflowed)
		}
		p, err := to.Step(ctx, state, q.RefIDs[0], g.p.candidates(g.test.Shows))
		if err != nil {
			return &breach{"the test engine", "one step from the reference's state", err}
		}
		g.keep(StateStep, i, len(q.IDs), see(p, g.test.Shows))
		if ran = true; g.Ref.Info().Streams && len(g.res.Prompts) > 1 {
			g.res.part(StateStep).Note = fmt.Sprintf("of prompt %d alone: the reference's weights are read anew for the state of each", i+1)
			break
		}
	}
	if !ran {
		return skip{"needs two generated tokens"}
	}
	return nil
}

// statesDiffer says where the shapes of the states of two models differ, "" if nowhere. Both run one token to show
// them; a TEST that shows none is asked by the step itself.
func (g *gate) statesDiffer(ctx context.Context, from, to engine.Stater) (string, error) {
	if g.Ref.Info().ConfigSHA256 == g.test.ConfigSHA256 || !g.test.Shows.Has(engine.ReadState) {
		return "", nil
	}
	one := engine.Prompt{IDs: g.res.Prompts[0].IDs[:1]}
	ref, err := from.Prefill(ctx, one, g.p.Path)
	if err != nil {
		return "", &breach{"the reference", "prefilling to a state", err}
	}
	test, err := to.Prefill(ctx, one, g.p.Path)
	if err != nil {
		return "", &breach{"the test engine", "prefilling to a state", err}
	}
	for _, name := range slices.Sorted(maps.Keys(ref.Tensors)) {
		if a, b := ref.Tensors[name].Shape, test.Tensors[name].Shape; !slices.Equal(a, b) {
			return fmt.Sprintf("%s is %v, TEST's %v", name, a, b), nil
		}
	}
	if len(ref.Tensors) != len(test.Tensors) {
		return fmt.Sprintf("%d tensors, TEST's %d", len(ref.Tensors), len(test.Tensors)), nil
	}
	return "", nil
}

// rollout is part 4: TEST along its own decode path, handed REF's id after every token.
func (g *gate) rollout(ctx context.Context) error {
	if g.ref == nil {
		return skip{"the reference did not get this far"}
	}
	if g.p.MaxTokens == 0 {
		return skip{"no token is to be generated"}
	}
	if g.test.Streams {
		return fmt.Errorf("TEST's weights would be read anew for every token; part 2 shows its choice at these positions: %w", engine.ErrNotShown)
	}
	paths := make([]decodePath, len(g.res.Prompts))
	for i, q := range g.res.Prompts {
		paths[i] = decodePath{name: q.Name, ids: q.IDs, force: q.RefIDs}
	}
	tick := g.ticks("test: greedy rollout", paths)
	return generate(ctx, g.Test, "the test engine", paths, &g.p, func(i, k int, s Seen) error {
		q := &g.res.Prompts[i]
		q.TestIDs = append(q.TestIDs, s.ID)
		g.keep(Rollout, i, len(q.IDs)-1+k, s)
		tick()
		return nil
	})
}
