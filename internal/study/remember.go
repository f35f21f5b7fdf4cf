package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"sibyl/engine"
)

// remembered is an engine that runs a text once, whole, and then shows what it showed, bit for bit: hundreds of gates have
// the same reference and the same controls, and a TEST is gated several times.
type remembered struct {
	engine.Engine
	book *book

	mu       sync.Mutex
	scored   map[string][]engine.Position
	decoded  map[string][]engine.Token
	prefixes map[string]*engine.State
}

// book knows the longest texts of a bench, so that a control asked for the beginning of one runs it whole, once.
type book struct {
	mu    sync.Mutex
	texts [][]int32
}

// whole gives the known text that begins with ids, or ids, which is then known.
func (b *book) whole(ids []int32) []int32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.texts {
		if len(t) >= len(ids) && slices.Equal(t[:len(ids)], ids) {
			return t
		}
	}
	b.texts = append(b.texts, slices.Clone(ids))
	return ids
}

func remember(e engine.Engine, b *book) *remembered {
	return &remembered{Engine: e, book: b, scored: map[string][]engine.Position{},
		decoded: map[string][]engine.Token{}, prefixes: map[string]*engine.State{}}
}

// keptTopK is what is asked of the engine: what the gate's protocol asks.
const keptTopK = 8

// Score implements engine.Engine.
func (r *remembered) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	if want.Taps != nil || want.State != nil || want.FinalState != nil || want.Path != (engine.Path{}) || want.TopK > keptTopK || want.Logits {
		return r.Engine.Score(ctx, prompts, want, each)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, p := range prompts {
		text := r.book.whole(p.IDs)
		key := fmt.Sprint(text)
		if r.scored[key] == nil {
			var seen []engine.Position
			err := r.Engine.Score(ctx, []engine.Prompt{{IDs: text}}, engine.Want{TopK: keptTopK}, func(q *engine.Position) error {
				seen = append(seen, copied(q))
				return nil
			})
			if err != nil {
				return err
			}
			r.scored[key] = seen
		}
		for _, q := range r.scored[key][:len(p.IDs)] {
			if q.Pos < want.From {
				continue
			}
			q.Seq, q.Top = i, q.Top[:min(len(q.Top), max(want.TopK, 2))]
			if err := each(&q); err != nil {
				return err
			}
		}
	}
	return nil
}

func copied(q *engine.Position) engine.Position {
	p := *q
	p.Ties, p.Top, p.Logits = slices.Clone(q.Ties), slices.Clone(q.Top), slices.Clone(q.Logits)
	return p
}

// Generate implements engine.Engine: greedy and forced decoding are remembered, anything else is not.
func (r *remembered) Generate(ctx context.Context, p engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	if opt.Choose != nil || opt.Logits || opt.Taps != nil || opt.State != nil || opt.FinalState != nil {
		return r.Engine.Generate(ctx, p, opt, each)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprint(p.IDs, opt.MaxTokens, opt.Force, opt.TopK, opt.Stop, opt.Path)
	if r.decoded[key] == nil {
		var seen []engine.Token
		err := r.Engine.Generate(ctx, p, opt, func(t *engine.Token) error {
			seen = append(seen, engine.Token{Index: t.Index, ID: t.ID, Position: copied(&t.Position)})
			return nil
		})
		if err != nil {
			return err
		}
		r.decoded[key] = seen
	}
	for _, t := range r.decoded[key] {
		if err := each(&t); err != nil {
			return err
		}
	}
	return nil
}

// Prefill implements engine.Stater.
func (r *remembered) Prefill(ctx context.Context, p engine.Prompt, path engine.Path) (*engine.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprint(p.IDs, path)
	if r.prefixes[key] == nil {
		st, err := r.Engine.(engine.Stater).Prefill(ctx, p, path)
		if err != nil {
			return nil, err
		}
		r.prefixes[key] = st
	}
	st := r.prefixes[key]
	return &engine.State{Len: st.Len, Tensors: maps.Clone(st.Tensors)}, nil // the gate rounds a copy of each tensor
}

// Step implements engine.Stater. The gate steps once after each prompt, from the same state.
func (r *remembered) Step(ctx context.Context, s *engine.State, id int32, topK int) (*engine.Position, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Engine.(engine.Stater).Step(ctx, s, id, topK)
}
