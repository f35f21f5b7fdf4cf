package attention

import (
	"math"

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
	c, ar, stride := m.Contract, batch.Arith, m.KVHeads*m.HeadDim
	scale := c.ScaleRound.Value(float32(1 / math.Sqrt(float64(m.HeadDim))))
	keys, values := cache.K[kvHead*m.HeadDim:], cache.V[kvHead*m.HeadDim:]
	if !c.ScaleScores {
		for i := range query {
			query[i] *= scale
		}
		c.Round(precision.ScoreQuery, query)
	}
	for j := range scores {
		scores[j] = ar.Dot(query, keys[j*stride:][:m.HeadDim])
	}
	c.Round(precision.Score, scores)
	if c.ScaleScores {
		for j := range scores {
			scores[j] *= scale
		}
		c.Round(precision.ScoreScaled, scores)
	}
	c.Round(precision.ScoreMasked, scores)
	ar.Softmax(scores)
	c.Round(precision.Softmax, scores)
	ar.WeightedRows(out, scores, values, stride)
	c.Round(precision.AttnOut, out)
}
