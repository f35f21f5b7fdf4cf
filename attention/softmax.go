package attention

import (
	"math"
	"slices"
	"sync"

	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// queryBlock is how many rows of a sequence go through the keys together, with all query heads of a key/value head: each
// key that is read, or made of two bytes, serves them all.
const queryBlock = 64

// unit is some rows of one sequence and one key/value head.
type unit struct {
	seq, kvHead int
	t, rows     int // rows t .. of the sequence's part of the batch
}

// attend is causal softmax attention: q, out [Rows, nq, hd]. A query at position p of its sequence sees keys 0..p;
// the keys it does not see are left out, which equals adding minus infinity. Scores exist for one query head at a time.
func (m *Mixer) attend(out, q []float32, batch *ragged.Batch, caches []*Cache) {
	var units []unit
	longest := 0
	for i := range batch.Seqs {
		longest = max(longest, caches[i].Len)
		for t := 0; t < batch.Seqs[i].Len; t += queryBlock {
			for h := range m.KVHeads {
				units = append(units, unit{i, h, t, min(queryBlock, batch.Seqs[i].Len-t)})
			}
		}
	}
	group := m.Heads / m.KVHeads
	whole := m.oneOperation(batch)
	batch.Pool.For(len(units), 2*longest*m.HeadDim*group*min(queryBlock, batch.Rows), func(lo, hi int) {
		for _, u := range units[lo:hi] {
			s, cache := &batch.Seqs[u.seq], caches[u.seq]
			first := cache.Len - s.Len + u.t + 1 // keys that the first row sees
			keys, values, stride, free := m.head(cache, u.kvHead, first+u.rows-1)
			at := ((s.Row+u.t)*m.Heads + u.kvHead*group) * m.HeadDim
			if whole {
				batch.Arith.Attend(&kernels.Attention{Rows: u.rows, Group: group, HeadDim: m.HeadDim, Visible: first, Scale: m.hdScale(),
					Q: q[at:], Out: out[at:], Stride: m.Heads * m.HeadDim, K: keys, V: values, KVStride: stride})
			} else {
				query, scores := make([]float32, m.HeadDim), make([]float32, first+u.rows-1)
				for i := range u.rows * group {
					at := at + (i/group*m.Heads+i%group)*m.HeadDim
					copy(query, q[at:][:m.HeadDim])
					m.attendOne(out[at:][:m.HeadDim], query, scores[:first+i/group], keys, values, stride, batch)
				}
			}
			free()
		}
	})
	if whole {
		batch.Round(m.Contract, precision.AttnOut, out)
	}
}

// oneOperation says whether nothing is rounded between a query and its result, and the arithmetic has that as one operation.
func (m *Mixer) oneOperation(batch *ragged.Batch) bool {
	c := m.Contract
	for _, p := range []precision.Point{precision.ScoreQuery, precision.Score, precision.ScoreScaled, precision.ScoreMasked, precision.Softmax} {
		if c.At[p] != precision.F32 {
			return false
		}
	}
	return batch.Arith.Attend != nil
}

// rooms lends memory for the keys and values of a head.
var rooms = sync.Pool{New: func() any { return new([]float32) }}

// head gives the first n keys and values of a head as float32, their rows stride apart, until free is called.
func (m *Mixer) head(c *Cache, kvHead, n int) (keys, values []float32, stride int, free func()) {
	first, apart, size := kvHead*m.HeadDim, m.KVHeads*m.HeadDim, n*m.HeadDim
	if c.K.grid == precision.F32 {
		keys, stride = c.K.rows(nil, first, n, m.HeadDim, apart)
		values, _ = c.V.rows(nil, first, n, m.HeadDim, apart)
		return keys, values, stride, func() {}
	}
	room := rooms.Get().(*[]float32)
	if cap(*room) < 2*size {
		*room = make([]float32, 2*size)
	}
	keys, stride = c.K.rows((*room)[:size], first, n, m.HeadDim, apart)
	values, _ = c.V.rows((*room)[size:2*size], first, n, m.HeadDim, apart)
	return keys, values, stride, func() { rooms.Put(room) }
}

// attendOne is one query against its visible keys, rows of keys and values stride apart; query is scratch.
func (m *Mixer) attendOne(out, query, scores, keys, values []float32, stride int, batch *ragged.Batch) {
	m.scores(scores, query, keys, stride, batch)
	m.scale(scores)
	den := m.weights(scores, batch)
	m.weigh(out, scores, values, stride, den, batch)
}

// hdScale is hd^-0.5 as the contract holds it.
func (m *Mixer) hdScale() float32 {
	return m.Contract.ScaleRound.Value(float32(1 / math.Sqrt(float64(m.HeadDim))))
}

// scores is q . k for every visible key, rows stride apart; where the contract scales the query and not the
// scores, query [hd] is scaled in place first.
func (m *Mixer) scores(scores, query, keys []float32, stride int, batch *ragged.Batch) {
	c := m.Contract
	if !c.ScaleScores {
		scale := m.hdScale()
		for i := range query {
			query[i] *= scale
		}
		c.Round(precision.ScoreQuery, query)
	}
	for j := range scores {
		scores[j] = batch.Arith.Dot(query, keys[j*stride:][:m.HeadDim])
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
func (m *Mixer) weigh(out, weights, values []float32, stride int, den float32, batch *ragged.Batch) {
	batch.Arith.WeightedRows(out, weights, values, stride)
	for d := range out {
		out[d] /= den // exact where den is 1
	}
	m.Contract.Round(precision.AttnOut, out)
}
