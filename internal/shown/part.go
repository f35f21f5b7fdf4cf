package shown

import (
	"math"

	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// Parts reduces a row of logits that comes a part at a time, in the order of ids, to what Position shows of it. Only the
// log-sum-exp may differ: its sum is that of stretches, each under the largest logit so far and moved to the next. That is a
// rounding a stretch at most, beside those of the sums.
type Parts struct {
	at   At
	k    int
	top  []engine.Candidate
	ties []int32 // the ids of the largest logit so far
	most float64 // that logit; NaN once there was one
	sum  float64 // of e^(logit-most)
}

// NewParts is before the first part.
func NewParts(at At, topK int) *Parts {
	k := max(2, topK)
	return &Parts{at: at, k: k, top: make([]engine.Candidate, 0, k+1), most: math.Inf(-1)}
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
		if nan {
			p.most = math.NaN()
		}
		if m > p.most {
			if p.sum > 0 {
				p.sum *= precision.Exp64(p.most - m)
			}
			p.most, p.ties = m, p.ties[:0]
		}
		if m == p.most {
			for i, v := range part {
				if v == top {
					p.ties = append(p.ties, int32(first+lo+i))
				}
			}
		}
		if p.most-p.most == 0 {
			p.sum += logSum(part, p.most)
		}
	}
}

// Position is what the parts were, all of a row.
func (p *Parts) Position() *engine.Position {
	out := &engine.Position{Seq: p.at.Seq, Pos: p.at.Pos, ID: p.top[0].ID, Top: p.top, Ties: p.ties, LSE: p.most}
	if p.most != p.most {
		out.Ties = []int32{out.ID}
	}
	if p.most-p.most == 0 {
		out.LSE += precision.Log64(p.sum)
	}
	return out
}
