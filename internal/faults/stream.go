package faults

import (
	"context"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/model"
)

func pow(x, y float32) float32 { return float32(math.Pow(float64(x), float64(y))) }

var streamFaults = []*Fault{
	{
		Name: "ids-shifted", Part: Whole,
		Mistake: "token stream shifted by one",
		around: func(_ *subject, e *model.Engine, _ []int, _ float32) engine.Engine {
			return &caller{Engine: e, feed: func(all []int32, from int) []int32 {
				late := append([]int32{all[0]}, all[:len(all)-1]...)
				return late[from:]
			}}
		},
	},
	{
		Name: "id-skipped", Part: Whole,
		Mistake: "a token skipped: the middle one of each prompt",
		around:  func(_ *subject, e *model.Engine, _ []int, _ float32) engine.Engine { return &skipper{e} },
	},
}

// skipper never feeds the middle id of a prompt; at its place it shows what it showed before.
type skipper struct{ *model.Engine }

// Score implements engine.Engine.
func (s *skipper) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	short := slices.Clone(prompts)
	for i, p := range prompts {
		short[i] = without(p)
	}
	return s.Engine.Score(ctx, short, want, func(p *engine.Position) error {
		n := len(prompts[p.Seq].IDs)
		if n < 3 || p.Pos < n/2-1 {
			return each(p)
		}
		if p.Pos == n/2-1 {
			if err := each(p); err != nil {
				return err
			}
		}
		q := *p
		q.Pos++
		return each(&q)
	})
}

// Generate implements engine.Engine.
func (s *skipper) Generate(ctx context.Context, p engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	return s.Engine.Generate(ctx, without(p), opt, each)
}

// without leaves out the middle id; a prompt of one or two stays whole.
func without(p engine.Prompt) engine.Prompt {
	n := len(p.IDs)
	if n < 3 {
		return p
	}
	q := engine.Prompt{IDs: slices.Delete(slices.Clone(p.IDs), n/2, n/2+1)}
	if p.PositionIDs != nil {
		q.PositionIDs = p.PositionIDs[:n-1] // positions are counted, not skipped
	}
	return q
}

// highestOfTie shows the last id of every tie.
func highestOfTie(_ *subject, e *model.Engine, _ []int, _ float32) engine.Engine { return &highest{e} }

type highest struct{ *model.Engine }

// Score implements engine.Engine.
func (h *highest) Score(ctx context.Context, prompts []engine.Prompt, want engine.Want, each func(*engine.Position) error) error {
	return h.Engine.Score(ctx, prompts, want, func(p *engine.Position) error {
		q := *p
		q.ID = q.Ties[len(q.Ties)-1]
		return each(&q)
	})
}

// Generate implements engine.Engine.
func (h *highest) Generate(ctx context.Context, p engine.Prompt, opt engine.Options, each func(*engine.Token) error) error {
	return h.Engine.Generate(ctx, p, opt, func(t *engine.Token) error {
		q := *t
		q.Position.ID = q.Ties[len(q.Ties)-1]
		return each(&q)
	})
}
