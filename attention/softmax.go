package attention

import (
	"math"
	"slices"

	"sibyl/internal/ragged"
	"sibyl/precision"
)

// attend is causal softmax attention: q, out [Rows, nq, hd]. A query at position p of its sequence sees keys 0..p;
// the keys it does not see are left out, which equals adding minus infinity.
func (m *Mixer) attend(out, q []float32, batch *ragged.Batch, caches []*Cache) {
	longest := 0
	for _, c := range caches {
		longest = max(longest, c.Len)
	}
	seqOf := make([]int, batch.Rows)
	for i := range batch.Seqs {
		for t := range batch.Seqs[i].Len {
			seqOf[batch.Seqs[i].Row+t] = i
		}
	}
	batch.Pool.For(batch.Rows*m.Heads, 2*longest*m.HeadDim, func(lo, hi int) {
		query, scores := make([]float32, m.HeadDim), make([]float32, longest)
		for i := lo; i < hi; i++ {
			row, head := i/m.Heads, i%m.Heads
			s := &batch.Seqs[seqOf[row]]
			cache := caches[seqOf[row]]
			visible := cache.Len - s.Len + (row - s.Row) + 1
			copy(query, q[i*m.HeadDim:][:m.HeadDim])
			m.attendOne(out[i*m.HeadDim:][:m.HeadDim], query, scores[:visible], cache, head/(m.Heads/m.KVHeads), batch)
		}
	})
}

// attendOne is one query against its visible keys; query is scratch.
func (m *Mixer) attendOne(out, query, scores []float32, cache *Cache, kvHead int, batch *ragged.Batch) {
	keys, values := cache.K[kvHead*m.HeadDim:], cache.V[kvHead*m.HeadDim:]
	m.scores(scores, query, keys, batch)
	m.scale(scores)
	den := m.weights(scores, batch)
	m.weigh(out, scores, values, den, batch)
}

// hdScale is hd^-0.5 as the contract holds it.
func (m *Mixer) hdScale() float32 {
	return m.Contract.ScaleRound.Value(float32(1 / math.Sqrt(float64(m.HeadDim))))
}

// scores is q . k for every visible key, rows of m.KVHeads*hd apart; where the contract scales the query and not the
// scores, query [hd] is scaled in place first.
func (m *Mixer) scores(scores, query, keys []float32, batch *ragged.Batch) {
	c := m.Contract
	if !c.ScaleScores {
		scale := m.hdScale()
		for i := range query {
			query[i] *= scale
		}
		c.Round(precision.ScoreQuery, query)
	}
	for j := range scores {
		scores[j] = batch.Arith.Dot(query, keys[j*m.KVHeads*m.HeadDim:][:m.HeadDim])
	}
	c.Round(precision.Score, scores)
}

// scale multiplies the scores by hd^-0.5, where the contract does so, and adds the mask: 0 for a visible key, which
// leaves only its rounding.
func (m *Mixer) scale(scores []float32) {
	c := m.Contract
	if c.ScaleScores {
		scale := m.hdScale()
		for j := range scores {
			scores[j] *= scale
		}
		c.Round(precision.ScoreScaled, scores)
	}
	c.Round(precision.ScoreMasked, scores)
}

// weights turns scores into attention weights and gives what the weighted values are yet to be divided by: 1 after
// softmax. Under SoftmaxLate (the flash form, torch's CPU kernel for sdpa) a weight is exp(s - max), which the contract
// may round, and the divisor is the sum of the exps before that rounding.
func (m *Mixer) weights(scores []float32, batch *ragged.Batch) (den float32) {
	c, ar := m.Contract, batch.Arith
	den = 1
	if c.SoftmaxLate {
		top := slices.Max(scores)
		for j := range scores {
			scores[j] -= top
		}
		ar.Exp(scores, scores)
		den = ar.Sum(scores)
	} else {
		ar.Softmax(scores)
	}
	c.Round(precision.Softmax, scores)
	return den
}

// weigh is the sum of the weighted values, out [hd], over den.
func (m *Mixer) weigh(out, weights, values []float32, den float32, batch *ragged.Batch) {
	batch.Arith.WeightedRows(out, weights, values, m.KVHeads*m.HeadDim)
	for d := range out {
		out[d] /= den // exact where den is 1
	}
	m.Contract.Round(precision.AttnOut, out)
}
