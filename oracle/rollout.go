package oracle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/x448/float16"

	"sibyl/engine"
	"sibyl/trace"
)

// decodePath is one prompt's way through generate.
type decodePath struct {
	name  string
	ids   []int32
	force []int32 // consumed one after the other, whatever the engine chose; nil: its own greedy way
	n     int     // tokens, if they are not forced
}

// steps is how many tokens the path has, if no stop id ends it.
func (d *decodePath) steps() int {
	if d.force != nil {
		return len(d.force)
	}
	return d.n
}

// generate follows e's decode path from every prompt, together if the engine can, and gives what it showed before each token k
// of path i; of one path they come in order. With force a path is re-anchored: step k consumes force[k] whatever e chose, so one
// flip cannot hide or cause the next. Without, e goes its own greedy way for n steps or up to a stop id.
func generate(ctx context.Context, e engine.Engine, who string, paths []decodePath, p *Protocol, each func(i, k int, s Seen) error) error {
	shows := e.Info().Shows
	opt := engine.Options{Stop: p.Stop, TopK: p.candidates(shows), Path: p.Path, NonFinite: true} // NaN is judged, not avoided
	got, stopped := make([]int, len(paths)), make([]bool, len(paths))
	show := func(i int, t *engine.Token) error {
		if want := paths[i].steps(); t.Index != got[i] || got[i] >= want {
			return fmt.Errorf("showed token %d where token %d of %d was next", t.Index, got[i], want)
		}
		got[i]++
		stopped[i] = paths[i].force == nil && slices.Contains(p.Stop, t.ID)
		return each(i, t.Index, see(&t.Position, shows))
	}
	failed := func(i int, err error) error {
		if want := paths[i].steps(); err == nil && got[i] < want && !stopped[i] {
			err = fmt.Errorf("ended after %d of %d tokens", got[i], want)
		}
		if err == nil {
			return nil
		}
		return &breach{who, "decoding after prompt " + paths[i].name, err}
	}
	if b, ok := e.(engine.Batcher); ok && len(paths) > 1 {
		all := make([]engine.Continuation, len(paths))
		for i, d := range paths {
			all[i] = engine.Continuation{Prompt: engine.Prompt{IDs: d.ids}, MaxTokens: d.n, Force: d.force}
		}
		err := b.GenerateAll(ctx, all, opt, func(t *engine.Token) error {
			if t.Seq < 0 || t.Seq >= len(paths) {
				return fmt.Errorf("showed a token of prompt %d of %d", t.Seq, len(paths))
			}
			if err := show(t.Seq, t); err != nil {
				return &engine.PromptError{Seq: t.Seq, Err: err}
			}
			return nil
		})
		var one *engine.PromptError
		if errors.As(err, &one) && one.Seq >= 0 && one.Seq < len(paths) {
			return failed(one.Seq, one.Err)
		} else if err != nil {
			return &breach{who, fmt.Sprintf("decoding after %d prompts", len(paths)), err}
		}
		for i := range paths {
			if err := failed(i, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for i, d := range paths {
		if opt.MaxTokens, opt.Force, opt.Stop = d.n, d.force, p.Stop; d.force != nil {
			opt.Stop = nil
		}
		err := e.Generate(ctx, engine.Prompt{IDs: d.ids}, opt, func(t *engine.Token) error { return show(i, t) })
		if err := failed(i, err); err != nil {
			return err
		}
	}
	return nil
}

// score is teacher forcing of e over texts as one ragged batch.
func score(ctx context.Context, e engine.Engine, who string, texts [][]int32, p *Protocol, layer func(int),
	each func(seq, pos int, s Seen) error) error {
	shows := e.Info().Shows
	return scoreWant(ctx, e, who, texts, engine.Want{TopK: p.candidates(shows), Path: p.Path, Layer: layer}, func(q *engine.Position) error {
		return each(q.Seq, q.Pos, see(q, shows))
	})
}

// scoreWant is teacher forcing of e over texts that trusts e with nothing: each position must come once and in order.
func scoreWant(ctx context.Context, e engine.Engine, who string, texts [][]int32, want engine.Want, each func(*engine.Position) error) error {
	prompts := make([]engine.Prompt, len(texts))
	next, left := make([]int, len(texts)), 0
	for i, ids := range texts {
		prompts[i].IDs = ids
		left += len(ids)
	}
	err := e.Score(ctx, prompts, want, func(q *engine.Position) error {
		if q.Seq < 0 || q.Seq >= len(texts) || q.Pos != next[q.Seq] || q.Pos >= len(texts[q.Seq]) {
			return fmt.Errorf("showed position %d of prompt %d out of turn", q.Pos, q.Seq)
		}
		next[q.Seq]++
		left--
		return each(q)
	})
	if err == nil && left > 0 {
		err = fmt.Errorf("left out %d positions", left)
	}
	if err != nil {
		return &breach{who, "teacher forcing", err}
	}
	return nil
}

// rounders round to a state's storage type and back, by dtype. F64 states come to us in float32 already.
var rounders = map[string]func(float32) float32{
	"": nil, "F32": nil, "F64": nil,
	"F16":  func(x float32) float32 { return float16.Fromfloat32(x).Float32() },
	"BF16": roundBF16,
}

// roundBF16 rounds to the nearest bfloat16, ties to even; NaN stays NaN.
func roundBF16(x float32) float32 {
	b := math.Float32bits(x)
	if x != x {
		return math.Float32frombits(b | 0x400000)
	}
	return math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
}

// roundState copies s with each tensor rounded to the type TEST stores it in. overflowed counts finite values
// that became infinite.
func roundState(s *engine.State, d engine.StateDTypes) (out *engine.State, overflowed int, err error) {
	out = &engine.State{Len: s.Len, Tensors: make(map[string]engine.StateTensor, len(s.Tensors))}
	for _, name := range slices.Sorted(maps.Keys(s.Tensors)) {
		dtype := ""
		tap, _, ok := trace.Parse(name)
		switch {
		case ok && tap == trace.CacheRecurrentState:
			dtype = d.Recurrent
		case ok && tap == trace.CacheConvState:
			dtype = d.Conv
		case ok && (tap == trace.CacheKey || tap == trace.CacheValue):
			dtype = d.KV
		default:
			return nil, 0, fmt.Errorf("state tensor %q is none of the cache tensors", name)
		}
		round, known := rounders[dtype]
		if !known {
			return nil, 0, fmt.Errorf("state dtype %q of %s is not one of F64, F32, F16, BF16", dtype, name)
		}
		t := s.Tensors[name]
		data := slices.Clone(t.Data)
		for i, x := range data {
			if round == nil {
				break
			}
			data[i] = round(x)
			if finite(float64(x)) && !finite(float64(data[i])) {
				overflowed++
			}
		}
		out.Tensors[name] = engine.StateTensor{Shape: slices.Clone(t.Shape), Data: data}
	}
	return out, overflowed, nil
}
