package oracle

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"sibyl/engine/enginetest"
)

// TestTurns: runners go through the layers together, one at a time, whoever ends early or waits for another.
func TestTurns(t *testing.T) {
	t.Parallel()
	const layers = 20
	turns := newTurns(4)
	var mu sync.Mutex
	var log []string
	running := 0
	run := func(i, to int) {
		reach := turns.layer(i)
		for l := range to {
			reach(l)
			mu.Lock()
			log = append(log, fmt.Sprintf("%d/%d", l, i))
			if running++; running != 1 {
				t.Errorf("%d run at once in layer %d", running, l)
			}
			mu.Unlock()
			mu.Lock()
			running--
			mu.Unlock()
		}
		turns.leave(i)
	}
	come := make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() { run(0, layers) })
	wg.Go(func() { run(1, layers) })
	wg.Go(func() { run(2, 3) }) // ends early
	wg.Go(func() {              // waits for what only the others' progress brings
		turns.leave(3)
		<-come
		turns.back(3)
		turns.leave(3)
	})
	wg.Go(func() {
		for {
			mu.Lock()
			done := len(log) > layers
			mu.Unlock()
			if done {
				close(come)
				return
			}
		}
	})
	wg.Wait()
	if len(log) != 2*layers+3 {
		t.Errorf("%d layers were run, want %d", len(log), 2*layers+3)
	}
	last := 0
	for _, entry := range log {
		var l, i int
		fmt.Sscanf(entry, "%d/%d", &l, &i)
		if l < last {
			t.Fatalf("layer %d of %d after layer %d: %v", l, i, last, log)
		}
		last = l
	}
}

// readings counts how often weights are read, from what engines tell of their layers: a layer again, by an engine that has
// had it, or one before it is a new reading.
type readings struct {
	mu   sync.Mutex
	log  []string
	n    int
	last int
	had  map[string]bool
}

func (r *readings) of(name string) func(l int) {
	return func(l int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.log = append(r.log, fmt.Sprint(name, l))
		if r.had == nil || l < r.last || r.had[name] && l == r.last {
			r.n, r.had = r.n+1, map[string]bool{}
		}
		if l != r.last {
			r.had = map[string]bool{}
		}
		r.last, r.had[name] = l, true
	}
}

// TestGateReadsTogether: REF and TEST that stream go through the layers together, and so do the controls: the gate's result
// is that of engines that do not, and the weights are read once for REF and TEST, once for all controls and once for all
// noisy ones, beside REF's passes of its own and the state step.
func TestGateReadsTogether(t *testing.T) {
	t.Parallel()
	for _, flips := range []bool{false, true} {
		run := func(stream bool) (*GateResult, *readings) {
			test := func(at enginetest.At, row []float64) {
				if flips && at.Prefix[0] == 1 && len(at.Prefix) == 3 {
					gateFlip(at.Prefix, row, 1)
				}
			}
			s, p := gateSetup(nil, test)
			p.MaxTokens = 0
			for _, kind := range []ControlKind{ControlQ, ControlC, ControlE} {
				s.Controls = append(s.Controls, control(kind, nil))
			}
			for i := range 3 {
				c := control(ControlE, nil)
				c.Noisy, c.Label = true, fmt.Sprint("noisy ", i)
				s.Controls = append(s.Controls, c)
			}
			r := new(readings)
			for i, e := range append([]Control{{Engine: s.Ref}, {Engine: s.Test}}, s.Controls...) {
				f := fake(e.Engine)
				f.Describes.Streams, f.Layer = stream, r.of(fmt.Sprint(string(rune('a'+i))))
			}
			got, err := Gate(t.Context(), s, p)
			if err != nil {
				t.Fatal(err)
			}
			return got, r
		}
		want, _ := run(false)
		got, r := run(true)
		if fmt.Sprint(got.Verdicts) != fmt.Sprint(want.Verdicts) || got.Headline != want.Headline || len(got.Positions) != len(want.Positions) {
			t.Errorf("flips %v: %v, %s\nwant %v, %s", flips, got.Verdicts, got.Headline, want.Verdicts, want.Headline)
		}
		if got.Metrics.KLPositions != want.Metrics.KLPositions || *got.Metrics.KLMean != *want.Metrics.KLMean {
			t.Errorf("flips %v: KL over %d positions, want %d", flips, got.Metrics.KLPositions, want.Metrics.KLPositions)
		}
		readings := 1
		if flips {
			readings = 3
		}
		if r.n != readings {
			t.Errorf("flips %v: %d readings, want %d: %s", flips, r.n, readings, strings.Join(r.log, " "))
		}
		if layers := 3; len(slices.Compact(slices.Clone(r.log))) != len(r.log) || len(r.log)%layers != 0 {
			t.Errorf("flips %v: layers %s", flips, strings.Join(r.log, " "))
		}
	}
}
