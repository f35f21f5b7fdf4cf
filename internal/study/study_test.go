package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/faults"
)

// TestShortStudy is the study in small: a few mistakes whole and in part, and clean runs. Every mistake is found; no run of the
// fast arithmetic or of a recorded variant is called a defect, and none shares its bits with a control. Of the noisy engines
// some are: docs/verdicts.md says how many and why, and here as there they count against the aim.
func TestShortStudy(t *testing.T) {
	t.Parallel()
	names := []string{"conv-late", "gate-split-halves", "decay-after-update", "stale-at-reset"}
	var few []*faults.Fault
	for _, f := range faults.Table() {
		if slices.Contains(names, f.Name) {
			few = append(few, f)
		}
	}
	s := &study{}
	for _, f := range few {
		g := &group{model: "tiny-asym", scheme: "int8hu-sym", faults: []*faults.Fault{f}}
		list, err := g.run(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.injected = append(s.injected, list...)
	}
	for _, i := range s.injected {
		if i.changed > 0 && !i.found(0) {
			t.Errorf("%v on %v changes %d confident ids, and the gate finds no DEFECT: %s", i.in, i.bench, i.changed, verdicts(i.verdicts))
		}
	}
	if n, _ := recall(s.injected); n < 12 {
		t.Errorf("only %d injections change a confident id: the test has lost its point", n)
	}
	clean, routes, err := cleanRuns(context.Background(), "tiny-asym", "int8hu-sym", 1001)
	if err != nil {
		t.Fatal(err)
	}
	if len(clean) != len(soundEngines) || len(routes) != 0 {
		t.Errorf("%d clean runs, %d of routers; want %d and none", len(clean), len(routes), len(soundEngines))
	}
	s.clean = clean
	wrong := false
	for _, c := range clean {
		if c.engine == noise(0).name {
			t.Logf("%s: %d false DEFECTs", c.engine, len(c.defects))
			wrong = wrong || len(c.defects) > 0
		} else if len(c.defects) > 0 || c.shares {
			t.Errorf("%s on %v: %d false DEFECTs, shares all its bits with a control: %v", c.engine, c.bench, len(c.defects), c.shares)
		}
	}
	if doc := s.document(); !strings.Contains(doc, "| conv-late | conv taps one column late | tiny-asym |") || s.good() == wrong {
		t.Errorf("the document does not show what was found:\n%s", doc)
	}
}

// TestWilson: against the score interval worked out by hand, and at the edges where a normal interval would be empty.
func TestWilson(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		k, n   int
		lo, hi float64
		why    string
	}{
		{0, 500, 0, 0.007624, "none of 500: z^2/(n+z^2)"},
		{40, 40, 0.912378, 1, "all of 40: n/(n+z^2)"},
		{5, 10, 0.236593, 0.763407, "half: the centre is 1/2 and the half width z/2/sqrt(n+z^2)"},
		{0, 0, 0, 1, "nothing is known"},
	} {
		if lo, hi := wilson(tt.k, tt.n); math.Abs(lo-tt.lo) > 1e-6 || math.Abs(hi-tt.hi) > 1e-6 {
			t.Errorf("wilson(%d, %d) = %.6f, %.6f, want %.6f, %.6f\nwhy: %s", tt.k, tt.n, lo, hi, tt.lo, tt.hi, tt.why)
		}
	}
}

// TestRemembered: what is remembered is what the engine shows, of a text's beginning too, and the engine is asked once.
func TestRemembered(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b, err := newBench(ctx, "tiny-asym", "", 7)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	e, err := engine.Open(ctx, "cpu", specOf(b, contract, "fast"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	counted := &counter{Engine: e}
	r := remember(counted, &book{})
	ids := b.prompts[0].IDs
	show := func(e engine.Engine, n, from int) (out string) {
		err := e.Score(ctx, []engine.Prompt{{IDs: ids[:n]}}, engine.Want{TopK: 3, From: from}, func(p *engine.Position) error {
			out += fmt.Sprintln(p.Seq, p.Pos, p.ID, p.Ties, p.Top, p.LSE)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	decode := func(e engine.Engine) (out string) {
		err := e.Generate(ctx, engine.Prompt{IDs: ids}, engine.Options{MaxTokens: 4, TopK: 3}, func(k *engine.Token) error {
			out += fmt.Sprintln(k.Index, k.ID, k.Top)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, n := range []int{len(ids), 9, len(ids)} {
		if got, want := show(r, n, 2), show(e, n, 2); got != want {
			t.Errorf("%d ids, remembered:\n%swant\n%s", n, got, want)
		}
	}
	for range 2 {
		if got, want := decode(r), decode(e); got != want {
			t.Errorf("decoding, remembered:\n%swant\n%s", got, want)
		}
	}
	if counted.scored != 1 || counted.generated != 1 {
		t.Errorf("the engine was asked %d and %d times, want once each", counted.scored, counted.generated)
	}
}

type counter struct {
	engine.Engine
	scored, generated int
}

func (c *counter) Score(ctx context.Context, p []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
	c.scored++
	return c.Engine.Score(ctx, p, w, each)
}

func (c *counter) Generate(ctx context.Context, p engine.Prompt, o engine.Options, each func(*engine.Token) error) error {
	c.generated++
	return c.Engine.Generate(ctx, p, o, each)
}
