package oracle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"sibyl/engine"
	"sibyl/internal/inputerr"
)

// Metrics says how far TEST's distribution is from REF's over teacher-forced positions. They describe and do not
// decide. A number that was not measured is null, for the reason in Note.
type Metrics struct {
	Positions int      `json:"positions"`
	Top1      int      `json:"top1_same"` // positions with the same argmax
	Top1Rate  *float64 `json:"top1_rate"`
	// KL is KL(REF || TEST) in nats over the full vocabulary, softmax at temperature 1.
	KLPositions int      `json:"kl_positions"` // where both rows are finite
	KLMean      *float64 `json:"kl_mean_nats"`
	KLWorst     *float64 `json:"kl_worst_nats"`
	KLWorstAt   []int    `json:"kl_worst_at"`    // prompt (or window of a text) and position
	KLInfinite  int      `json:"kl_infinite"`    // positions where TEST excludes what REF does not
	Predicted   int      `json:"ppl_tokens"`     // tokens of the text itself, predicted from those before them
	RefPPL      *float64 `json:"ref_perplexity"` // exp of the mean negative log-likelihood
	TestPPL     *float64 `json:"test_perplexity"`
	PPLChange   *float64 `json:"perplexity_change"` // TEST over REF, less 1
	Note        string   `json:"note,omitempty"`
}

// Text is a text to be scored beside the prompts: in windows of at most Window tokens, each from an empty state, so
// that memory and cost do not grow with its length but linearly in time.
type Text struct {
	Name   string
	IDs    []int32
	Window int
}

// TextResult is what scoring a text gave.
type TextResult struct {
	Name    string  `json:"name"`
	Tokens  int     `json:"tokens"`
	Window  int     `json:"window_tokens"`
	Windows int     `json:"windows"`
	Metrics Metrics `json:"metrics"`
}

// Check refuses a text that cannot be scored; nil can. The error is an *inputerr.Error.
func (t *Text) Check() error {
	switch {
	case t == nil:
		return nil
	case len(t.IDs) < 2:
		return &inputerr.Error{File: "gate", Field: "--text", Found: plural(len(t.IDs), "token"), Want: "at least two: one predicts the next"}
	case t.Window < 2:
		return &inputerr.Error{File: "gate", Field: "--text-window", Found: fmt.Sprint(t.Window), Want: "at least 2 tokens"}
	}
	return nil
}

// windows cuts the text; the last window may be short, and one of a single token is left out: it predicts nothing.
func (t *Text) windows() (out [][]int32) {
	for ids := t.IDs; len(ids) > 1; {
		n := min(t.Window, len(ids))
		out, ids = append(out, ids[:n]), ids[n:]
	}
	return out
}

// scoreText scores Setup.Text on REF and TEST. An engine that cannot leaves a note: the text decides nothing.
func (g *gate) scoreText(ctx context.Context) error {
	if g.Text == nil {
		return nil
	}
	windows := g.Text.windows()
	r := &TextResult{Name: g.Text.Name, Tokens: len(g.Text.IDs), Window: g.Text.Window, Windows: len(windows)}
	g.res.Text = r
	m := newMeter()
	// The argmax of both is compared where they meet; REF's waits in a list of ids, four bytes a token.
	ids, done, total := make([][]int32, len(windows)), 0, size(windows)
	test := make([][]int32, len(windows))
	errRef, errTest := beside(ctx, g.Ref, g.Test, windows, &g.p,
		func(seq int, s Seen) { ids[seq] = append(ids[seq], s.ID) },
		func(seq, pos int, s Seen, rows *rowPair) {
			test[seq] = append(test[seq], s.ID)
			if rows != nil {
				m.add(seq, pos, rows, nextOf(windows[seq], pos))
			}
			done++
			g.progress("REF and TEST: scoring the text", done, total)
		})
	if ctx.Err() != nil {
		return fmt.Errorf("gate stopped while scoring the text: %w", ctx.Err())
	}
	note := g.rowsNote()
	for _, err := range []error{errRef, errTest} {
		var bad *inputerr.Error
		if errors.As(err, &bad) {
			return err
		}
		if err != nil && !errors.As(err, new(skip)) {
			note = oneLine(err.Error())
		}
	}
	for seq := range ids {
		for pos := range min(len(ids[seq]), len(test[seq])) {
			m.same(ids[seq][pos] == test[seq][pos])
		}
	}
	r.Metrics = m.metrics(note)
	return nil
}

// rowsNote says why there are no divergences, "" if there are.
func (g *gate) rowsNote() string {
	for _, side := range []struct {
		who string
		e   engine.Engine
	}{{"REF", g.Ref}, {"TEST", g.Test}} {
		if !side.e.Info().Shows.Has(engine.Logits) {
			return side.who + " shows no whole rows of logits"
		}
	}
	if a, b := g.Ref.Info().VocabSize, g.Test.Info().VocabSize; a != b {
		return fmt.Sprintf("REF's vocabulary has %d ids, TEST's %d", a, b)
	}
	return ""
}

// meter gathers what Metrics says, position by position, and adds it up text by text: engines differ in the order in which they
// show texts, and a sum must not. Rows are compared beside the run, on as many goroutines as there are cores.
type meter struct {
	positions, top1 int
	running         sync.WaitGroup
	places          chan *rowPair // room for rows that are being compared
	mu              sync.Mutex
	texts           [][]rowFigures
}

// rowFigures are one position's.
type rowFigures struct {
	pos               int
	kl                float64
	predicted         bool
	refLoss, testLoss float64 // -log p of the next token
}

func newMeter() *meter {
	m := &meter{places: make(chan *rowPair, runtime.GOMAXPROCS(0))}
	for range cap(m.places) {
		m.places <- new(rowPair)
	}
	return m
}

// same counts one comparison of argmax.
func (m *meter) same(is bool) {
	m.positions++
	if is {
		m.top1++
	}
}

// add takes the rows of one position, of which it makes a copy. next is the id that follows it in the text, -1 if none is to be
// predicted.
func (m *meter) add(seq, pos int, rows *rowPair, next int32) {
	own := <-m.places
	own.a, own.b = append(own.a[:0], rows.a...), append(own.b[:0], rows.b...)
	m.running.Go(func() {
		f, ok := figures(own, next)
		m.places <- own
		if !ok {
			return
		}
		f.pos = pos
		m.mu.Lock()
		defer m.mu.Unlock()
		for seq >= len(m.texts) {
			m.texts = append(m.texts, nil)
		}
		m.texts[seq] = append(m.texts[seq], f)
	})
}

// figures compares two rows; false where one holds NaN or +Inf: a verdict names it.
func figures(rows *rowPair, next int32) (f rowFigures, ok bool) {
	a, b := logSumExp(rows.a), logSumExp(rows.b)
	if !finite(a) || !finite(b) {
		return f, false
	}
	f.kl = divergenceFrom(rows.a, rows.b, a, b)
	if next >= 0 && int(next) < len(rows.a) {
		f.predicted, f.refLoss, f.testLoss = true, a-float64(rows.a[next]), b-float64(rows.b[next])
	}
	return f, true
}

// metrics sums up, when nothing is added any more. note says why rows were not compared, if they were not.
func (m *meter) metrics(note string) Metrics {
	m.running.Wait()
	out := Metrics{Positions: m.positions, Top1: m.top1, Note: note}
	if m.positions > 0 {
		out.Top1Rate = shown(float64(m.top1) / float64(m.positions))
	}
	var kl, refLoss, testLoss float64
	worst := -1.0
	for seq, text := range m.texts {
		slices.SortFunc(text, func(x, y rowFigures) int { return cmp.Compare(x.pos, y.pos) })
		var own rowFigures // the text's sums
		for _, f := range text {
			if math.IsInf(f.kl, 1) {
				out.KLInfinite++
			} else {
				own.kl += f.kl
				out.KLPositions++
				if f.kl > worst {
					worst, out.KLWorstAt = f.kl, []int{seq, f.pos}
				}
			}
			if f.predicted {
				own.refLoss += f.refLoss
				own.testLoss += f.testLoss
				out.Predicted++
			}
		}
		kl, refLoss, testLoss = kl+own.kl, refLoss+own.refLoss, testLoss+own.testLoss
	}
	if out.KLPositions > 0 {
		out.KLMean, out.KLWorst = shown(kl/float64(out.KLPositions)), shown(worst)
	}
	if out.Predicted > 0 {
		ref, test := refLoss/float64(out.Predicted), testLoss/float64(out.Predicted)
		out.RefPPL, out.TestPPL, out.PPLChange = shown(math.Exp(ref)), shown(math.Exp(test)), shown(math.Expm1(test-ref))
	}
	return out
}
