package gdn

import (
	"sync/atomic"

	"sibyl/internal/ragged"
	"sibyl/precision"
)

// ChunkSize is the chunk form's block of tokens, as in transformers' torch_chunk_gated_delta_rule.
const ChunkSize = 64

// The chunk form is used for a chunk only while its error can be bounded; else the recurrent form takes the chunk.
const (
	// maxDecay bounds the log decay summed over a chunk: up to 30 the two forms differ by 3.5e-6, up to 1e3 by 5e-5.
	maxDecay = 30
	// maxGrowth bounds the largest row sum of |(I+L)^-1|, by which the substitution multiplies rounding errors.
	maxGrowth = 64
)

// ChunkFallbacks counts chunks of one head that took the recurrent form because the bound failed.
var ChunkFallbacks atomic.Int64

// chunkHead runs one value head of one sequence in chunks. Every product sum runs in float64 in one fixed order and
// is rounded to float32 once, so the result does not depend on threads or machine; it does depend on where chunks
// begin. Phases and names follow torch_chunk_gated_delta_rule.
func (m *Mixer) chunkHead(out, q, k, v, g, beta, decay, S []float32, s *ragged.Seq, h int, batch *ragged.Batch) {
	for lo := 0; lo < s.Len; lo += ChunkSize {
		n := min(ChunkSize, s.Len-lo)
		w := m.newChunk(q, k, v, g, beta, s.Row+lo, n, h)
		if !w.bounded() {
			ChunkFallbacks.Add(1)
			m.recurrentHead(out, q, k, v, decay, beta, S, s.Row+lo, s.Row+lo+n, h, batch)
			continue
		}
		w.run(S)
		for t := range n {
			copy(out[((s.Row+lo+t)*m.ValueHeads+h)*m.ValueDim:][:m.ValueDim], w.out[t*w.dv:][:w.dv])
		}
	}
}

// chunk is one block of n tokens of one head.
type chunk struct {
	n, dk, dv int
	q, k      []float32 // [n, dk]
	v         []float32 // [n, dv]
	beta      []float32 // [n]
	cum       []float64 // [n] cumulative log decay
	T         []float32 // [n, n] (I + L)^-1, unit lower triangular
	out       []float32 // [n, dv]
}

func (m *Mixer) newChunk(q, k, v, g, beta []float32, row, n, h int) *chunk {
	nk, nv := m.KeyHeads, m.ValueHeads
	kh := h / (nv / nk)
	w := &chunk{n: n, dk: m.KeyDim, dv: m.ValueDim, q: make([]float32, n*m.KeyDim), k: make([]float32, n*m.KeyDim),
		v: make([]float32, n*m.ValueDim), beta: make([]float32, n), cum: make([]float64, n),
		T: make([]float32, n*n), out: make([]float32, n*m.ValueDim)}
	sum := 0.0
	for t := range n {
		copy(w.q[t*w.dk:][:w.dk], q[((row+t)*nk+kh)*w.dk:])
		copy(w.k[t*w.dk:][:w.dk], k[((row+t)*nk+kh)*w.dk:])
		copy(w.v[t*w.dv:][:w.dv], v[((row+t)*nv+h)*w.dv:])
		w.beta[t] = beta[(row+t)*nv+h]
		sum += float64(g[(row+t)*nv+h])
		w.cum[t] = sum
	}
	return w
}

// bounded inverts I + L, L[i, j] = beta_i (k_i . k_j) exp(cum_i - cum_j) for j < i, and says whether the chunk may
// be used.
func (w *chunk) bounded() bool {
	if !(w.cum[w.n-1] >= -maxDecay) { // also NaN and -Inf
		return false
	}
	n := w.n
	L := make([]float32, n*n)
	for i := range n {
		for j := range i {
			kk := dot(w.k[i*w.dk:][:w.dk], w.k[j*w.dk:][:w.dk])
			L[i*n+j] = float32(float32(w.beta[i]*kk) * w.exp(i, j))
		}
	}
	for i := range n { // row i of the inverse: e_i - sum_j L[i, j] row_j
		acc := make([]float64, n)
		for j := range i {
			l := float64(L[i*n+j])
			for c := range j + 1 {
				acc[c] -= float64(l * float64(w.T[j*n+c]))
			}
		}
		row := 1.0
		for c := range i {
			w.T[i*n+c] = float32(acc[c])
			row += max(acc[c], -acc[c])
		}
		w.T[i*n+i] = 1
		if !(row <= maxGrowth) {
			return false
		}
	}
	return true
}

// exp is exp(cum_i - cum_j).
func (w *chunk) exp(i, j int) float32 { return float32(precision.Exp64(w.cum[i] - w.cum[j])) }

// run computes out and advances S [dk, dv].
func (w *chunk) run(S []float32) {
	n, dk, dv := w.n, w.dk, w.dv
	// u = T (beta v - beta exp(cum) (k S)): the deltas of all tokens at once
	rhs := make([]float32, n*dv)
	for t := range n {
		kS := vecMat(w.k[t*dk:][:dk], S, dv)
		e := float32(precision.Exp64(w.cum[t]))
		for c := range dv {
			rhs[t*dv+c] = float32(w.beta[t] * (w.v[t*dv+c] - float32(e*kS[c])))
		}
	}
	u := make([]float32, n*dv)
	for t := range n {
		copy(u[t*dv:][:dv], vecMat(w.T[t*n:][:t+1], rhs, dv))
	}
	// out_t = exp(cum_t) q_t S + sum_{j<=t} (q_t . k_j) exp(cum_t - cum_j) u_j
	for t := range n {
		inter := vecMat(w.q[t*dk:][:dk], S, dv)
		e := float32(precision.Exp64(w.cum[t]))
		a := make([]float32, t+1)
		for j := range a {
			a[j] = float32(dot(w.q[t*dk:][:dk], w.k[j*dk:][:dk]) * w.exp(t, j))
		}
		intra := vecMat(a, u, dv)
		for c := range dv {
			w.out[t*dv+c] = float32(e*inter[c]) + intra[c]
		}
	}
	// S = exp(cum_last) S + sum_j exp(cum_last - cum_j) k_j (x) u_j
	last := float32(precision.Exp64(w.cum[n-1]))
	col := make([]float32, n)
	for d := range dk {
		for j := range n {
			col[j] = float32(w.k[j*dk+d] * w.exp(n-1, j))
		}
		add := vecMat(col, u, dv)
		for c := range dv {
			S[d*dv+c] = float32(S[d*dv+c]*last) + add[c]
		}
	}
}

// dot is the float64 sum of exact products in order, rounded once.
func dot(a, b []float32) float32 {
	var s float64
	for i, x := range a {
		s += float64(x) * float64(b[i])
	}
	return float32(s)
}

// vecMat is a [len(a)] times M [len(a), cols].
func vecMat(a, M []float32, cols int) []float32 {
	acc := make([]float64, cols)
	for i, x := range a {
		for c, y := range M[i*cols:][:cols] {
			acc[c] += float64(x) * float64(y)
		}
	}
	out := make([]float32, cols)
	for c, s := range acc {
		out[c] = float32(s)
	}
	return out
}
