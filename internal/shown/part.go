package shown

import (
	"math"

	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// Parts reduces a row of logits that comes a part at a time, in the order of ids, to what Quick shows of it; parts but the last
// are whole stretches long.
type Parts struct {
	at   At
	k    int
	top  []engine.Candidate
	ties []int32 // the ids of the largest logit so far
	expSum
}

// expSum is a sum of exponentials that is made stretch by stretch, each under the largest logit so far and moved to the next:
// beside the roundings of the sums one a stretch at most.
type expSum struct {
	most float64 // the largest logit so far; NaN once there was one
	sum  float64 // of e^(logit-most)
}

// add takes the next stretch, whose largest logit is m if none is a NaN.
func (s *expSum) add(part []float32, m float64, nan bool, logSum func(x []float32, m float64) float64) {
	if nan {
		s.most = math.NaN()
	}
	if m > s.most {
		if s.sum > 0 {
			s.sum *= precision.Exp64(s.most - m)
		}
		s.most = m
	}
	if s.most-s.most == 0 {
		s.sum += logSum(part, s.most)
	}
}

// value is the log-sum-exp.
func (s *expSum) value() float64 {
	if s.most-s.most != 0 {
		return s.most
	}
	return s.most + precision.Log64(s.sum)
}

// Quick is Position with the log-sum-exp that Parts finds: its sum is that of stretches, by logSum (kernels.Arith).
func Quick(at At, logits []float32, topK int, rows bool, logSum func(x []float32, m float64) float64) *engine.Position {
	parts := NewParts(at, 0)
	parts.Add(logits, 0, logSum)
	p := parts.Position()
	if topK > len(p.Top) {
		p.Top = Largest(logits, topK) // which sorts where most of a row is asked for
	}
	if rows {
		p.Logits = logits
	}
	return p
}

// NewParts is before the first part.
func NewParts(at At, topK int) *Parts {
	k := max(2, topK)
	return &Parts{at: at, k: k, top: make([]engine.Candidate, 0, k+1), expSum: expSum{most: math.Inf(-1)}}
}

// Add takes the next part, of which first is the first id. logSum is the arithmetic's (kernels.Arith).
func (p *Parts) Add(logits []float32, first int, logSum func(x []float32, m float64) float64) {
	for lo := 0; lo < len(logits); lo += stretch {
		part := logits[lo:min(lo+stretch, len(logits))]
		top, nan := kernels.Max(part)
		m := float64(top)
		if nan || len(p.top) < p.k || m > p.top[p.k-1].Logit {
			p.top = insert(p.top, p.k, part, first+lo)
		}
		if m > p.most {
			p.ties = p.ties[:0]
		}
		p.add(part, m, nan, logSum)
		if m == p.most {
			for i, v := range part {
				if v == top {
					p.ties = append(p.ties, int32(first+lo+i))
				}
			}
		}
	}
}

// Position is what the parts were, all of a row.
func (p *Parts) Position() *engine.Position {
	out := &engine.Position{Seq: p.at.Seq, Pos: p.at.Pos, ID: p.top[0].ID, Top: p.top, Ties: p.ties, LSE: p.value()}
	if p.most != p.most {
		out.Ties = []int32{out.ID}
	}
	return out
}
