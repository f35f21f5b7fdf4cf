package oracle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

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

// meter adds up what Metrics says: text by text, since engines differ in the order in which they show texts, and a sum must not.
type meter struct {
	positions, top1       int
	worst                 float64
	klPositions, infinite int
	worstAt               []int
	predicted             int
	texts                 []textSums
}

// textSums are one text's, in the order of its positions.
type textSums struct{ kl, refLoss, testLoss float64 } // losses are -log p

func newMeter() *meter { return &meter{worst: -1} }

// same counts one comparison of argmax.
func (m *meter) same(is bool) {
	m.positions++
	if is {
		m.top1++
	}
}

// add takes the rows of one position. next is the id that follows it in the text, -1 if none is to be predicted.
func (m *meter) add(seq, pos int, rows *rowPair, next int32) {
	a, b := logSumExp(rows.a), logSumExp(rows.b)
	if !finite(a) || !finite(b) {
		return // NaN or +Inf in a row: a verdict names it
	}
	for seq >= len(m.texts) {
		m.texts = append(m.texts, textSums{})
	}
	t := &m.texts[seq]
	kl := divergenceFrom(rows.a, rows.b, a, b)
	if math.IsInf(kl, 1) {
		m.infinite++
	} else {
		t.kl += kl
		m.klPositions++
		if kl > m.worst || kl == m.worst && slices.Compare([]int{seq, pos}, m.worstAt) < 0 {
			m.worst, m.worstAt = kl, []int{seq, pos}
		}
	}
	if next >= 0 && int(next) < len(rows.a) {
		t.refLoss += a - float64(rows.a[next])
		t.testLoss += b - float64(rows.b[next])
		m.predicted++
	}
}

// metrics sums up. note says why rows were not compared, if they were not.
func (m *meter) metrics(note string) Metrics {
	out := Metrics{Positions: m.positions, Top1: m.top1, KLPositions: m.klPositions, KLInfinite: m.infinite, Predicted: m.predicted, Note: note}
	if m.positions > 0 {
		out.Top1Rate = shown(float64(m.top1) / float64(m.positions))
	}
	var all textSums
	for _, t := range m.texts {
		all.kl, all.refLoss, all.testLoss = all.kl+t.kl, all.refLoss+t.refLoss, all.testLoss+t.testLoss
	}
	if m.klPositions > 0 {
		out.KLMean, out.KLWorst, out.KLWorstAt = shown(all.kl/float64(m.klPositions)), shown(m.worst), m.worstAt
	}
	if m.predicted > 0 {
		ref, test := all.refLoss/float64(m.predicted), all.testLoss/float64(m.predicted)
		out.RefPPL, out.TestPPL, out.PPLChange = shown(math.Exp(ref)), shown(math.Exp(test)), shown(math.Expm1(test-ref))
	}
	return out
}
