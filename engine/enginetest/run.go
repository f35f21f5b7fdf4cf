package enginetest

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/trace"
)

// Hashed gives pseudo-random logits in [-8, 8), multiples of 2^-10, that depend on seed and on every token
// consumed, and on nothing else: not on the call, the path or the other sequences.
func Hashed(seed uint64) func(At) []float64 {
	return func(at At) []float64 {
		row := make([]float64, TinyConfig().VocabSize)
		h := hash(fmt.Sprint("logits", seed), at.Prefix)
		for i := range row {
			row[i] = float64(hashed(h, i))
		}
		return row
	}
}

// hash is FNV-1a over a name and the tokens consumed.
func hash(name string, prefix []int32) uint64 {
	h := uint64(14695981039346656037)
	mix := func(x uint64) { h = (h ^ x) * 1099511628211 }
	for _, c := range []byte(name) {
		mix(uint64(c))
	}
	for _, id := range prefix {
		mix(uint64(id) + 256)
	}
	return h
}

// hashed is value i of the stream that h starts, a multiple of 2^-10 in [-8, 8).
func hashed(h uint64, i int) float32 {
	h ^= uint64(i) * 0x9e3779b97f4a7c15
	h = (h ^ h>>29) * 0xbf58476d1ce4e5b9
	return float32(h>>40%(1<<14))/(1<<10) - 8
}

// run is one sequence on its way.
type run struct {
	f      *Fake
	ctx    context.Context
	call   Call
	seq    int
	topK   int
	logits bool
	sink   engine.Sink
	prefix []int32
}

// consume takes one token and gives what is seen after it.
func (r *run) consume(id int32) (*engine.Position, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, fmt.Errorf("fake stopped after %d tokens: %w", len(r.prefix), err)
	}
	r.prefix = append(r.prefix, id)
	at := At{r.call, r.seq, r.prefix}
	if r.f.Fail != nil {
		if err := r.f.Fail(at); err != nil {
			return nil, err
		}
	}
	row := r.f.Row(at)
	if err := r.taps(row); err != nil {
		return nil, err
	}
	p := Describe(row, r.topK)
	p.Seq, p.Pos = r.seq, len(r.prefix)-1
	if !r.f.Describes.Shows.Has(engine.TopK) {
		p.Top, p.LSE, p.Ties = nil, math.NaN(), []int32{p.ID}
	}
	if r.logits {
		for _, l := range row {
			p.Logits = append(p.Logits, float32(l))
		}
	}
	return p, nil
}

// Describe is the position of a row of logits: argmax, ties, the topK (at least 2) largest, log-sum-exp. A NaN
// counts as the maximum, so that it cannot hide, and ties with nothing.
func Describe(row []float64, topK int) *engine.Position {
	key := func(x float64) float64 {
		if math.IsNaN(x) {
			return math.Inf(1)
		}
		return x
	}
	order := make([]int32, len(row))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(key(row[b]), key(row[a])) })
	p := &engine.Position{ID: order[0]}
	sum, top := 0.0, row[order[0]]
	for i, l := range row {
		sum += math.Exp(l - top)
		if l == top {
			p.Ties = append(p.Ties, int32(i))
		}
	}
	if p.Ties == nil {
		p.Ties = []int32{p.ID} // NaN equals nothing
	}
	p.LSE = top + math.Log(sum)
	for _, id := range order[:min(len(order), max(2, topK))] {
		p.Top = append(p.Top, engine.Candidate{ID: id, Logit: row[id]})
	}
	return p
}

// taps hands over the rows of the current token: the row of logits itself, and hashed values for the others.
func (r *run) taps(row []float64) error {
	if r.sink == nil {
		return nil
	}
	pos := len(r.prefix) - 1
	for _, e := range trace.All(r.f.Config) {
		if e.Tap.Cache() || e.Tap == trace.InputIDs || !r.sink.Wants(e.Name) {
			continue
		}
		x := make([]float32, volume(e.Shape(r.f.Config, 1)))
		h := hash(e.Name, r.prefix)
		for i := range x {
			x[i] = hashed(h, i)
			if e.Tap == trace.Logits {
				x[i] = float32(row[i])
			}
		}
		if err := r.sink.Put(e.Name, r.seq, pos, 1, x); err != nil {
			return err
		}
	}
	return nil
}

// finish hands over the state at the end.
func (r *run) finish(final *engine.State) error {
	s := r.f.state(r.prefix)
	if final != nil {
		*final = *s
	}
	for _, e := range trace.All(r.f.Config) {
		if !e.Tap.Cache() || r.sink == nil || !r.sink.Wants(e.Name) {
			continue
		}
		if err := r.sink.Put(e.Name, r.seq, 0, 1, s.Tensors[e.Name].Data); err != nil {
			return err
		}
	}
	return nil
}

// state is the state after prefix: hashed values, but the first kv head's first element of each key is the
// token itself, which is how tokens reads a state back. Ids up to 256 survive a rounding to bfloat16.
func (f *Fake) state(prefix []int32) *engine.State {
	s := &engine.State{Len: len(prefix), Tensors: map[string]engine.StateTensor{}}
	for _, e := range trace.All(f.Config) {
		if !e.Tap.Cache() {
			continue
		}
		shape := e.Shape(f.Config, len(prefix))
		t := engine.StateTensor{Shape: shape, Data: make([]float32, volume(shape))}
		h := hash(e.Name, prefix)
		for i := range t.Data {
			t.Data[i] = hashed(h, i)
		}
		for i, id := range prefix {
			if e.Tap == trace.CacheKey {
				t.Data[i*f.Config.HeadDim] = float32(id)
			}
		}
		s.Tensors[e.Name] = t
	}
	return s
}

// tokens reads the tokens a state has consumed, none for nil. A state that is not of this model is refused.
func (f *Fake) tokens(s *engine.State) ([]int32, error) {
	if s == nil {
		return nil, nil
	}
	var ids []int32
	for _, e := range trace.All(f.Config) {
		if !e.Tap.Cache() {
			continue
		}
		t, ok := s.Tensors[e.Name]
		want := e.Shape(f.Config, s.Len)
		if !ok || !slices.Equal(t.Shape, want) || len(t.Data) != volume(want) {
			return nil, f.bad("state "+e.Name, fmt.Sprintf("shape %v, %d values", t.Shape, len(t.Data)), fmt.Sprint(want))
		}
		for i := 0; e.Tap == trace.CacheKey && i < s.Len; i++ {
			ids = append(ids, int32(t.Data[i*f.Config.HeadDim]))
		}
	}
	return ids, f.limits().CheckIDs("state", ids)
}

func volume(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
