package oracle

import (
	"context"
	"errors"
	"slices"
	"sync"

	"sibyl/engine"
)

// MaxHeld bounds, in bytes, the rows of logits that one engine shows before the other: 64 of the family's vocabulary of 248,320.
const MaxHeld = 64 << 20

// MaxStreamed is how many tokens an engine that streams is given at once: it holds the residual stream of each, 20 KB at the
// width of a 27B.
const MaxStreamed = 8192

// rowPair is the logits of one position by both engines, [vocab] each, valid during a call only.
type rowPair struct{ a, b []float32 }

// beside is teacher forcing of two engines over the same texts, side by side where both show whole rows: a row of one
// waits for that of the other, in about MaxHeld bytes, so that no input is too long to be compared row by row. onA
// and onB are told what each shows, from two goroutines; onB gets the rows, if both show them. If b ends early, a goes
// on alone; if a does, b's error is a skip. An engine that streams is given all texts at once, for it reads its weights once
// a call (a very long list in several); if both do, they go through the layers together. To others texts are given in batches
// whose rows of logits fit, or of one.
func beside(ctx context.Context, a, b engine.Engine, texts [][]int32, p *Protocol,
	onA func(seq int, s Seen), onB func(seq, pos int, s Seen, rows *rowPair)) (errA, errB error) {
	rowBytes := 4 * a.Info().VocabSize
	rows := a.Info().Shows.Has(engine.Logits) && b.Info().Shows.Has(engine.Logits) && a.Info().VocabSize == b.Info().VocabSize
	if !rows {
		rowBytes = 0
	}
	m := newMeeting()
	if !rows {
		m.leave()
	} else if a.Info().Streams && b.Info().Streams {
		m.turns = newTurns(2)
	}
	one := func() {
		errA = inBatches(ctx, a, "the reference", texts, rowBytes, m, runnerA, p, func(seq, pos int, s Seen, row []float32) error {
			onA(seq, s)
			m.put(seq, pos, row)
			return nil
		})
		m.turns.leave(runnerA)
		m.end()
	}
	two := func() {
		errB = inBatches(ctx, b, "the test engine", texts, rowBytes, m, runnerB, p, func(seq, pos int, s Seen, row []float32) error {
			var pair *rowPair
			if rows {
				held, ok := m.take(seq, pos)
				if !ok {
					return errAlone
				}
				pair = &rowPair{held, row}
				defer m.done(held)
			}
			onB(seq, pos, s, pair)
			return nil
		})
		m.turns.leave(runnerB)
		m.leave()
	}
	if rows {
		var wg sync.WaitGroup
		wg.Go(one)
		two()
		wg.Wait()
	} else if one(); errA == nil && ctx.Err() == nil {
		two()
	}
	if errA == nil && errB == nil && ctx.Err() != nil {
		errA = ctx.Err()
	}
	if errA != nil && (errB == nil || errors.Is(errB, errAlone)) {
		errB = skip{"the reference did not get this far"}
	}
	return errA, errB
}

// inBatches is scoreRows over all texts, in batches as beside says, each told of by its index among all.
func inBatches(ctx context.Context, e engine.Engine, who string, texts [][]int32, rowBytes int, m *meeting, runner int, p *Protocol,
	each func(seq, pos int, s Seen, row []float32) error) error {
	if e.Info().Streams {
		rowBytes = MaxHeld / MaxStreamed
	}
	for lo := 0; lo < len(texts) && ctx.Err() == nil; {
		hi := batchEnd(texts, lo, rowBytes)
		err := scoreRows(ctx, e, who, texts[lo:hi], p, m, runner, func(seq, pos int, s Seen, row []float32) error {
			return each(lo+seq, pos, s, row)
		})
		if err != nil {
			return err
		}
		lo = hi
	}
	return nil
}

// errAlone ends the second engine when the first has ended.
var errAlone = errors.New("the other engine has ended")

// batchEnd is the end of a batch that begins at lo: as many texts as have their rows in MaxHeld, at least one.
func batchEnd(texts [][]int32, lo, rowBytes int) int {
	hi, held := lo, 0
	for hi < len(texts) {
		if held += len(texts[hi]) * rowBytes; held > MaxHeld && hi > lo {
			break
		}
		hi++
	}
	return hi
}

// The two runners of a meeting.
const runnerA, runnerB = 0, 1

// meeting is where the rows of one engine wait for those of another. Both show a text's positions in order, so within
// one text the wait always ends; if engines order the texts of a batch differently, the batch's rows are few enough to be
// held at once, and an engine whose row is asked for never waits.
type meeting struct {
	turns *turns // of engines that run one at a time, else nil
	mu    sync.Mutex
	moved sync.Cond
	rows  map[[2]int][]float32
	spare [][]float32
	held  int    // bytes
	asked bool   // take waits for
	want  [2]int // this row, which has not come
	left  bool   // nobody takes any more
	ended bool   // nothing is put any more
}

func newMeeting() *meeting {
	m := &meeting{rows: map[[2]int][]float32{}}
	m.moved.L = &m.mu
	return m
}

// put keeps a copy of row until it is taken, and waits while too much is held.
func (m *meeting) put(seq, pos int, row []float32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wait(runnerA, func() bool { return !m.left && !m.asked && m.held > 0 && m.held+4*len(row) > MaxHeld })
	if m.left {
		return
	}
	var kept []float32
	if n := len(m.spare); n > 0 {
		kept, m.spare = m.spare[n-1], m.spare[:n-1]
	}
	at := [2]int{seq, pos}
	m.rows[at] = append(kept[:0], row...)
	m.held += 4 * len(row)
	m.asked = m.asked && m.want != at
	m.moved.Broadcast()
}

// take gives the row of a position when it is there; false if it will not come.
func (m *meeting) take(seq, pos int) ([]float32, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := [2]int{seq, pos}
	m.wait(runnerB, func() bool {
		missing := m.rows[at] == nil && !m.ended
		if missing {
			m.asked, m.want = true, at
			m.moved.Broadcast()
		}
		return missing
	})
	m.asked = false
	row, ok := m.rows[at]
	delete(m.rows, at)
	return row, ok
}

// wait waits while the condition holds, during which the other has its turn.
func (m *meeting) wait(who int, while func() bool) {
	if !while() {
		return
	}
	m.turns.leave(who)
	for while() {
		m.moved.Wait()
	}
	if m.turns == nil {
		return
	}
	m.mu.Unlock() // back waits for the other, which may want the lock
	m.turns.back(who)
	m.mu.Lock()
}

// done gives a taken row back for reuse.
func (m *meeting) done(row []float32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held -= 4 * len(row)
	m.spare = append(m.spare, row)
	m.moved.Broadcast()
}

// meets says whether rows are wanted.
func (m *meeting) meets() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.left
}

func (m *meeting) set(flag *bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*flag = true
	m.moved.Broadcast()
}

func (m *meeting) leave() { m.set(&m.left) }
func (m *meeting) end()   { m.set(&m.ended) }

// scoreRows is score that also hands over the rows of logits, if somebody waits for them.
func scoreRows(ctx context.Context, e engine.Engine, who string, texts [][]int32, p *Protocol, m *meeting, runner int,
	each func(seq, pos int, s Seen, row []float32) error) error {
	shows := e.Info().Shows
	want := engine.Want{TopK: p.candidates(shows), Path: p.Path, Logits: m.meets(), Layer: m.turns.layer(runner)}
	return scoreWant(ctx, e, who, texts, want, func(q *engine.Position) error {
		return each(q.Seq, q.Pos, see(q, shows), slices.Clip(q.Logits))
	})
}
