// Package shown reduces rows of float32 logits to what engines show of a position.
package shown

import (
	"cmp"
	"math"
	"slices"

	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// At is where a row of logits stands: which prompt, and the index of the last token consumed.
type At struct{ Seq, Pos int }

// Position reduces one logit row to what engines show. A NaN counts as the maximum, so that it cannot hide.
func Position(seq, pos int, logits []float32, topK int, rows bool) *engine.Position {
	return Positions([]At{{seq, pos}}, logits, topK, rows)[0]
}

// Positions reduces rows of logits [len(at), vocab], up to four, to what engines show of each. The sums of all rows run
// side by side: each is a chain of additions, in order.
func Positions(at []At, logits []float32, topK int, rows bool) []*engine.Position {
	V := len(logits) / len(at)
	var sums [4]float64
	tops := logSums(&sums, logits, len(at))
	out := make([]*engine.Position, len(at))
	for i, a := range at {
		row := logits[i*V:][:V:V]
		p := &engine.Position{Seq: a.Seq, Pos: a.Pos, Top: Largest(row, max(2, topK)), LSE: tops[i]}
		if m := tops[i]; m-m == 0 {
			p.LSE = m + precision.Log64(sums[i])
		}
		p.ID = p.Top[0].ID
		p.Ties = ties(row, p.ID)
		if rows {
			p.Logits = row
		}
		out[i] = p
	}
	return out
}

// ties are the ids from the first on whose logit is that of the first, the largest. Stretches of the vocabulary without one
// are passed over by their maximum.
func ties(logits []float32, first int32) []int32 {
	out, top := []int32{first}, logits[first]
	for lo := int(first) + 1; lo < len(logits); lo += stretch {
		part := logits[lo:min(lo+stretch, len(logits))]
		if m, nan := kernels.Max(part); !nan && m < top {
			continue
		}
		for i, v := range part {
			if v == top {
				out = append(out, int32(lo+i))
			}
		}
	}
	return out
}

// stretch is how many logits are looked at together.
const stretch = 256

// above orders candidates: NaN first, then the larger logit, then the lower id.
func above(a, b engine.Candidate) int {
	if an, bn := a.Logit != a.Logit, b.Logit != b.Logit; an || bn {
		if an != bn {
			if an {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.ID, b.ID)
	}
	return cmp.Or(cmp.Compare(b.Logit, a.Logit), cmp.Compare(a.ID, b.ID))
}

// Largest gives the k first candidates in order, by insertion where k is small. Stretches of the vocabulary without one are
// passed over by their maximum.
func Largest(logits []float32, k int) []engine.Candidate {
	k = min(k, len(logits))
	if k > stretch && 4*k > len(logits) { // most of the row: sorting is cheaper than inserting
		all := make([]engine.Candidate, len(logits))
		for i, v := range logits {
			all[i] = engine.Candidate{ID: int32(i), Logit: float64(v)}
		}
		slices.SortFunc(all, above)
		return all[:k:k]
	}
	top := make([]engine.Candidate, 0, k+1)
	for lo := 0; lo < len(logits); lo += stretch {
		part := logits[lo:min(lo+stretch, len(logits))]
		if len(top) == k {
			// A later id with the last one's logit stands behind it.
			if m, nan := kernels.Max(part); !nan && float64(m) <= top[k-1].Logit {
				continue
			}
		}
		top = insert(top, k, part, lo)
	}
	return top
}

// insert puts those of part, whose first id is first, into the k first candidates in order.
func insert(top []engine.Candidate, k int, part []float32, first int) []engine.Candidate {
	for i, v := range part {
		c := engine.Candidate{ID: int32(first + i), Logit: float64(v)}
		if len(top) == k && above(top[k-1], c) < 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(top, c, above)
		top = slices.Insert(top, at, c)
		top = top[:min(k, len(top))]
	}
	return top
}

// logSums gives the largest logit of each row, NaN where one is, and in sums the sum of e^(logit-largest) in float64, in
// index order: the same bits on every machine. The log-sum-exp is the largest plus the log of the sum, or the largest itself
// where it is not finite.
func logSums(sums *[4]float64, logits []float32, rows int) (tops [4]float64) {
	const block = 1024
	var e [4][block]float64
	V := len(logits) / rows
	for i := range rows {
		top, nan := kernels.Max(logits[i*V:][:V])
		if tops[i] = float64(top); nan {
			tops[i] = math.NaN()
		}
	}
	for lo := 0; lo < V; lo += block {
		n := min(block, V-lo)
		for i := range rows {
			if tops[i]-tops[i] == 0 {
				kernels.ExpDiff(e[i][:n], logits[i*V+lo:][:n], tops[i])
			}
		}
		if rows == 1 {
			for _, v := range e[0][:n] {
				sums[0] += v
			}
			continue
		}
		a, b, c, d := e[0][:n], e[1][:n], e[2][:n], e[3][:n]
		for k, v := range a {
			sums[0] += v
			sums[1] += b[k]
			sums[2] += c[k]
			sums[3] += d[k]
		}
	}
	return tops
}
