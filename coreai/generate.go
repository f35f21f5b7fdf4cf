package coreai

import (
	"context"
	"errors"
	"math"
	"slices"

	"sibyl/engine"
)

// errStop ends a generation at a stop id.
var errStop = errors.New("stop id")

// generate runs the worker's greedy loop: n tokens after the ones given.
func (s *session) generate(ctx context.Context, tokens []int32, calls []int, n int, each func(*engine.Token) error) error {
	w, i := s.e.w, 0
	m, err := w.call(ctx, request{Op: opGenerate, Pos: s.pos, Tokens: tokens, Calls: calls, MaxNew: n}, func(m *message) error {
		if m.Ev != "token" || m.I != i || i >= n || m.Tok == nil {
			return garbled("event %q of token %d where token %d of %d was due", clip(m.Ev), m.I, i, n)
		}
		t, err := s.token(m, s.pos+len(tokens)-1+i)
		if err != nil {
			return err
		}
		i++
		return each(t)
	})
	if err != nil {
		return err
	}
	if m.Ev != "done" || m.Reason != "max" || i != n {
		return w.kill(garbled("%q (%s) after %d of %d tokens", clip(m.Ev), clip(m.Reason), i, n), opGenerate)
	}
	return nil
}

// token is what an event shows of a token: its id, and the ids and the logit at the maximum if the worker says them.
func (s *session) token(m *message, pos int) (*engine.Token, error) {
	vocab, id := int32(s.e.info.VocabSize), *m.Tok
	bad := id < 0 || id >= vocab || len(m.Ties) > 0 && m.Ties[0] != id
	for i, t := range m.Ties {
		bad = bad || t >= vocab || i > 0 && t <= m.Ties[i-1]
	}
	if bad {
		return nil, garbled("token %d with ties %v, of %d ids", id, m.Ties[:min(8, len(m.Ties))], vocab)
	}
	t := &engine.Token{Index: m.I, ID: id, Position: engine.Position{Pos: pos, ID: id, Ties: slices.Clone(m.Ties), LSE: math.NaN()}}
	if len(t.Ties) == 0 {
		t.Ties = []int32{id}
	}
	switch {
	case m.NaN:
		t.Top = []engine.Candidate{{ID: id, Logit: math.NaN()}}
	case m.Max != nil:
		t.Top = []engine.Candidate{{ID: id, Logit: *m.Max}}
	}
	return t, nil
}
