package oracle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sibyl/engine"
	"sibyl/engine/enginetest"
)

// TestMeter: the figures of two rows, by hand.
func TestMeter(t *testing.T) {
	t.Parallel()
	inf := float32(math.Inf(-1))
	ln := func(x float64) float32 { return float32(math.Log(x)) }
	m := newMeter()
	m.add(0, 0, &rowPair{[]float32{ln(1), ln(3)}, []float32{ln(1), ln(1)}}, 1) // p = 1/4, 3/4; q = 1/2, 1/2
	m.add(0, 1, &rowPair{[]float32{0, 0, inf}, []float32{0, 0, inf}}, 0)       // a masked id on both sides
	m.add(1, 0, &rowPair{[]float32{0, 0}, []float32{0, inf}}, -1)              // TEST excludes what REF does not
	m.add(1, 1, &rowPair{[]float32{0, float32(math.NaN())}, []float32{0, 0}}, 0)
	m.same(true)
	m.same(false)
	got := m.metrics("")
	kl := 0.25*math.Log(0.25/0.5) + 0.75*math.Log(0.75/0.5)
	near := func(what string, x *float64, want float64) {
		t.Helper()
		if x == nil || math.Abs(*x-want) > 1e-7 {
			t.Errorf("%s = %s, want %v", what, number(x, "%v"), want)
		}
	}
	near("mean KL of the two finite", got.KLMean, kl/2)
	near("worst KL", got.KLWorst, kl)
	near("top-1", got.Top1Rate, 0.5)
	near("REF's perplexity of probabilities 3/4 and 1/2", got.RefPPL, 1/math.Sqrt(0.375))
	near("TEST's of 1/2 and 1/2", got.TestPPL, 2)
	near("its change", got.PPLChange, 2*math.Sqrt(0.375)-1)
	if got.KLPositions != 2 || got.KLInfinite != 1 || fmt.Sprint(got.KLWorstAt) != "[0 0]" || got.Predicted != 2 {
		t.Errorf("%+v, want 2 finite and 1 infinite divergence, the worst at 0 0, 2 tokens predicted", got)
	}
	if none := newMeter().metrics("why"); none.KLMean != nil || none.RefPPL != nil || none.Top1Rate != nil || none.Note != "why" {
		t.Errorf("nothing measured: %+v", none)
	}
}

// TestMeterInAnyOrder: the sums do not depend on which text is shown first.
func TestMeterInAnyOrder(t *testing.T) {
	t.Parallel()
	row := func(x float64) *rowPair {
		return &rowPair{[]float32{float32(x), 1, 0.3}, []float32{float32(1.1 * x), 0.9, 0.1}}
	}
	var want Metrics
	for i, order := range [][]int{{0, 1, 2}, {2, 0, 1}, {1, 2, 0}} {
		m := newMeter()
		for _, seq := range order {
			for pos := range 50 {
				m.add(seq, pos, row(float64(seq*50+pos%7)/9), int32(pos%3))
			}
		}
		got := m.metrics("")
		if i == 0 {
			want = got
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("texts in the order %v:\n%s", order, d)
		}
	}
}

// TestGateMetrics: what is measured of prompts and of a text, and what is said where it cannot be.
func TestGateMetrics(t *testing.T) {
	t.Parallel()
	s, p := gateSetup(nil, gateFlipAll(1, 2))
	s.Text = &Text{Name: "t", IDs: []int32{1, 2, 3, 1, 2, 3, 9}, Window: 3}
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	// Nine positions of two prompts; the flip, which two windows of the text hold as well, is the only distance.
	if m := r.Metrics; m.Positions != 9 || m.Top1 != 8 || m.KLPositions != 9 || fmt.Sprint(m.KLWorstAt) != "[0 1]" || m.Predicted != 3 {
		t.Errorf("metrics of the prompts: %+v", m)
	}
	tx := r.Text
	if tx == nil || tx.Windows != 2 || tx.Metrics.Positions != 6 || tx.Metrics.Top1 != 4 || tx.Metrics.Predicted != 4 || tx.Metrics.KLMean == nil {
		t.Errorf("metrics of the text: %+v", tx)
	}
	if r.Decision != Fail || r.part(TeacherForced).Positions != 9 {
		t.Errorf("%s: the text must not be judged", r.Headline)
	}

	fake(s.Test).Describes.Shows &^= engine.Logits
	if r, err = Gate(t.Context(), s, p); err != nil || r.Metrics.KLMean != nil || r.Metrics.Top1 != 8 || r.Metrics.Note != "TEST shows no whole rows of logits" {
		t.Errorf("without rows: %+v, %v", r.Metrics, err)
	}
	fake(s.Test).Describes.Shows |= engine.Logits
	fake(s.Test).Fail = func(at enginetest.At) error {
		if at.Call == enginetest.Score && at.Prefix[0] == 20 {
			return errors.New("worker exited")
		}
		return nil
	}
	if r, err = Gate(t.Context(), s, p); err != nil || r.part(Qualification).Status != PartRan || r.part(TeacherForced).Status != PartBroke || r.part(Rollout).Status != PartRan {
		t.Errorf("%v, %+v: TEST's failure in teacher forcing must leave REF's part and the rollout", err, r.Parts)
	}
	s.Text.Window = 1
	if _, err = Gate(t.Context(), s, p); err == nil || !strings.Contains(err.Error(), "--text-window: found 1, want at least 2 tokens") {
		t.Errorf("a window of one token: %v", err)
	}
}

// TestBeside: whatever the order and the speed of two engines, each row meets its twin, REF's rows are not held beyond
// the bound, and nobody waits for ever.
func TestBeside(t *testing.T) {
	t.Parallel()
	texts := [][]int32{{1, 2, 3, 4}, {5, 6}, {7, 8, 9}}
	p := DefaultProtocol()
	for _, tt := range []struct {
		name, why  string
		a, b       func(engine.Engine) engine.Engine
		errA, errB string
	}{
		{"same-order", "the usual case", nil, nil, "", ""},
		{"other-order", "a ragged batch may show its sequences in any order", nil, func(e engine.Engine) engine.Engine { return backwards{e} }, "", ""},
		{"b-fails", "REF goes on alone", nil, func(e engine.Engine) engine.Engine { return failsAt{e, 3} }, "", "broke at 3"},
		{"a-fails", "TEST is not kept waiting", func(e engine.Engine) engine.Engine { return failsAt{e, 3} }, nil, "broke at 3", "did not get this far"},
		{"both-fail", "the first reason is REF's", func(e engine.Engine) engine.Engine { return failsAt{e, 5} }, func(e engine.Engine) engine.Engine { return failsAt{e, 2} }, "broke at 5", "broke at 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var a, b engine.Engine = enginetest.New(enginetest.Hashed(1)), enginetest.New(enginetest.Hashed(1))
			if tt.a != nil {
				a = tt.a(a)
			}
			if tt.b != nil {
				b = tt.b(b)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			pairs, seenA := 0, 0
			errA, errB := beside(ctx, a, b, texts, &p, func(int, Seen) { seenA++ }, func(seq, pos int, s Seen, rows *rowPair) {
				pairs++
				for i := range rows.a {
					if rows.a[i] != rows.b[i] {
						t.Errorf("text %d, position %d: the rows are of two positions", seq, pos)
						break
					}
				}
			})
			for _, e := range []struct {
				who  string
				got  error
				want string
			}{{"a", errA, tt.errA}, {"b", errB, tt.errB}} {
				if (e.want == "") != (e.got == nil) || e.got != nil && !strings.Contains(e.got.Error(), e.want) {
					t.Errorf("%s: %v, want %q\nwhy: %s", e.who, e.got, e.want, tt.why)
				}
			}
			if tt.errA == "" && seenA != 9 || tt.errB == "" && pairs != 9 {
				t.Errorf("%d positions of a and %d pairs, want 9\nwhy: %s", seenA, pairs, tt.why)
			}
		})
	}
}

// TestMeetingHoldsLittle: within one text, however slow the second engine is, the first waits with a bounded store.
func TestMeetingHoldsLittle(t *testing.T) {
	t.Parallel()
	m := newMeeting()
	row := make([]float32, MaxHeld/4/3) // three fit
	go func() {
		for pos := range 12 {
			m.put(0, pos, row)
		}
		m.end()
	}()
	for pos := range 12 {
		got, ok := m.take(0, pos)
		if !ok || len(got) != len(row) {
			t.Fatalf("position %d: %v", pos, ok)
		}
		m.mu.Lock()
		if m.held > MaxHeld {
			t.Errorf("position %d: %d bytes held, at most %d are allowed", pos, m.held, MaxHeld)
		}
		m.mu.Unlock()
		m.done(got)
	}
	if _, ok := m.take(0, 12); ok {
		t.Error("a row that was never put was taken")
	}
	if got := batchEnd([][]int32{make([]int32, 10), make([]int32, 10), make([]int32, 10)}, 0, MaxHeld/20); got != 2 {
		t.Errorf("a batch of %d texts, want the 2 whose rows fit", got)
	}
	if got := batchEnd([][]int32{make([]int32, 100), {1}}, 0, MaxHeld/20); got != 1 {
		t.Errorf("a batch of %d texts, want the one that is too long for any", got)
	}
}

// backwards shows the sequences of a batch last to first, one by one.
type backwards struct{ engine.Engine }

func (e backwards) Score(ctx context.Context, prompts []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
	for i := len(prompts) - 1; i >= 0; i-- {
		err := e.Engine.Score(ctx, prompts[i:i+1], w, func(p *engine.Position) error {
			q := *p
			q.Seq = i
			return each(&q)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// failsAt breaks off before position n of the batch.
type failsAt struct {
	engine.Engine
	n int
}

func (e failsAt) Score(ctx context.Context, prompts []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
	left := e.n
	return e.Engine.Score(ctx, prompts, w, func(p *engine.Position) error {
		if left--; left < 0 {
			return fmt.Errorf("broke at %d", e.n)
		}
		return each(p)
	})
}
