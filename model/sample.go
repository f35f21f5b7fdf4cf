package model

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"sibyl/precision"
)

// SamplerOptions say how the next token is drawn. The zero value is greedy.
type SamplerOptions struct {
	Temperature float64 // 0 is greedy
	TopK        int     // 0: all
	TopP        float64 // 0 or 1: all; else the smallest set whose probability reaches it
	MinP        float64 // drop ids less likely than MinP times the likeliest
	Seed        uint64
}

// Sampler draws ids. With the same options and logits it draws the same ids on every machine.
type Sampler struct {
	opt SamplerOptions
	rng *rand.Rand
}

// NewSampler checks the options.
func NewSampler(o SamplerOptions) (*Sampler, error) {
	switch {
	case !(o.Temperature >= 0) || math.IsInf(o.Temperature, 0):
		return nil, fmt.Errorf("temperature %g: want a number >= 0", o.Temperature)
	case o.TopK < 0:
		return nil, fmt.Errorf("top-k %d: want a number >= 0", o.TopK)
	case !(o.TopP >= 0 && o.TopP <= 1):
		return nil, fmt.Errorf("top-p %g: want a number in [0, 1]", o.TopP)
	case !(o.MinP >= 0 && o.MinP <= 1):
		return nil, fmt.Errorf("min-p %g: want a number in [0, 1]", o.MinP)
	}
	return &Sampler{opt: o, rng: rand.New(rand.NewPCG(o.Seed, 0x9e3779b97f4a7c15))}, nil
}

// Argmax is the index of the largest logit, the lowest of equals. NaN never wins; all NaN gives 0.
func Argmax(logits []float32) int32 {
	best := 0
	for i, v := range logits {
		if v > logits[best] || logits[best] != logits[best] {
			best = i
		}
	}
	return int32(best)
}

// Choose draws the next id. Filters apply in the order of Hugging Face's generate: temperature, top-k, top-p, min-p;
// an id that ties with the last one kept is kept only if its id is lower.
func (s *Sampler) Choose(logits []float32) int32 {
	if s.opt.Temperature == 0 {
		return Argmax(logits)
	}
	type cand struct {
		id int32
		p  float64
	}
	cs := make([]cand, 0, len(logits))
	top := float64(logits[Argmax(logits)])
	for i, v := range logits {
		if v == v {
			cs = append(cs, cand{int32(i), precision.Exp64((float64(v) - top) / s.opt.Temperature)})
		}
	}
	if len(cs) == 0 {
		return 0
	}
	slices.SortFunc(cs, func(a, b cand) int { return cmp.Or(cmp.Compare(b.p, a.p), cmp.Compare(a.id, b.id)) })
	if s.opt.TopK > 0 && s.opt.TopK < len(cs) {
		cs = cs[:s.opt.TopK]
	}
	total := 0.0
	for _, c := range cs {
		total += c.p
	}
	if s.opt.TopP > 0 && s.opt.TopP < 1 {
		sum := 0.0
		for i, c := range cs {
			if sum += c.p; sum >= s.opt.TopP*total {
				cs = cs[:i+1]
				break
			}
		}
	}
	if s.opt.MinP > 0 {
		floor := s.opt.MinP * cs[0].p
		for len(cs) > 1 && cs[len(cs)-1].p < floor {
			cs = cs[:len(cs)-1]
		}
	}
	total = 0
	for _, c := range cs {
		total += c.p
	}
	u := s.rng.Float64() * total
	for _, c := range cs {
		if u -= c.p; u < 0 {
			return c.id
		}
	}
	return cs[len(cs)-1].id
}
