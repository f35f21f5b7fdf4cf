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

// rowPair is the logits of one position by both engines, [vocab] each, valid during a call only.
type rowPair struct{ a, b []float32 }

// beside is teacher forcing of two engines over the same texts, side by side where both show whole rows: a row of one
// waits for that of the other, in at most MaxHeld bytes, so that no input is too long to be compared row by row. onA
// and onB are told what each shows, from two goroutines; onB gets the rows, if both show them. If b ends early, a goes
// on alone; if a does, b's error is a skip. Texts are cut into batches whose rows fit, or of one text.
func beside(ctx context.Context, a, b engine.Engine, texts [][]int32, p *Protocol,
	onA func(seq int, s Seen), onB func(seq, pos int, s Seen, rows *rowPair)) (errA, errB error) {
	rowBytes := 4 * a.Info().VocabSize
	rows := a.Info().Shows.Has(engine.Logits) && b.Info().Shows.Has(engine.Logits) && a.Info().VocabSize == b.Info().VocabSize
	if !rows {
		rowBytes = 0
	}
	for lo := 0; lo < len(texts); {
		hi := batchEnd(texts, lo, rowBytes)
		m := newMeeting()
		if !rows || errB != nil {
			m.leave()
		}
		part := texts[lo:hi]
		one := func() {
			errA = scoreRows(ctx, a, "the reference", part, p, rows && errB == nil, func(seq, pos int, s Seen, row []float32) error {
				onA(lo+seq, s)
				m.put(seq, pos, row)
				return nil
			})
			m.end()
		}
		two := func() error {
			return scoreRows(ctx, b, "the test engine", part, p, rows, func(seq, pos int, s Seen, row []float32) error {
				var pair *rowPair
				if rows {
					held, ok := m.take(seq, pos)
					if !ok {
						return errAlone
					}
					pair = &rowPair{held, row}
					defer m.done(held)
				}
				onB(lo+seq, pos, s, pair)
				return nil
			})
		}
		if !rows || errB != nil {
			one()
			if errA == nil && errB == nil {
				errB = two()
			}
		} else {
			var wg sync.WaitGroup
			wg.Go(one)
			err := two()
			m.leave()
			wg.Wait()
			errB = err
		}
		if errA != nil || ctx.Err() != nil {
			break
		}
		lo = hi
	}
	if errA == nil && errB == nil && ctx.Err() != nil {
		errA = ctx.Err()
	}
	if errA != nil && (errB == nil || errors.Is(errB, errAlone)) {
		errB = skip{"the reference did not get this far"}
	}
	return errA, errB
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

// meeting is where the rows of one engine wait for those of another. Both show a text's positions in order, so within
// one text the wait always ends; if engines order several texts differently, the batch's rows are few enough to be
// held at once, and an engine whose row is asked for never waits.
type meeting struct {
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
	for !m.left && !m.asked && m.held > 0 && m.held+4*len(row) > MaxHeld {
		m.moved.Wait()
	}
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
	for m.rows[at] == nil && !m.ended {
		m.asked, m.want = true, at
		m.moved.Broadcast()
		m.moved.Wait()
	}
	m.asked = false
	row, ok := m.rows[at]
	delete(m.rows, at)
	return row, ok
}

// done gives a taken row back for reuse.
func (m *meeting) done(row []float32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held -= 4 * len(row)
	m.spare = append(m.spare, row)
	m.moved.Broadcast()
}

func (m *meeting) set(flag *bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*flag = true
	m.moved.Broadcast()
}

func (m *meeting) leave() { m.set(&m.left) }
func (m *meeting) end()   { m.set(&m.ended) }

// scoreRows is score that also hands over the rows of logits, if they are wanted.
func scoreRows(ctx context.Context, e engine.Engine, who string, texts [][]int32, p *Protocol, rows bool,
	each func(seq, pos int, s Seen, row []float32) error) error {
	shows := e.Info().Shows
	want := engine.Want{TopK: p.candidates(shows), Path: p.Path, Logits: rows}
	return scoreWant(ctx, e, who, texts, want, func(q *engine.Position) error {
		return each(q.Seq, q.Pos, see(q, shows), slices.Clip(q.Logits))
	})
}
