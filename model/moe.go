package model

import (
	"slices"

	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
	"sibyl/trace"
)

// MoE is the mixture-of-experts feed-forward with a shared expert. Source: Qwen3_5MoeSparseMoeBlock.forward,
// Qwen3_5MoeTopKRouter.forward and Qwen3_5MoeExperts.forward, transformers 5.23.
//
//	p = softmax(x Wr^T) over all experts, float32; the k largest, lowest id first among equals
//	s = p / sum(p)                         over the k chosen
//	routed = sum_k s_k * expert_k(x)
//	out = routed + sigmoid(x . wg) * shared(x)
type MoE struct {
	Router     *kernels.Matrix // [E, H]
	Experts    []MLP           // E of them
	Shared     MLP
	SharedGate *kernels.Matrix // [1, H]
	TopK       int
	Layer      int // for taps
	Contract   *precision.Contract
}

// Forward writes the MoE of x [Rows, H] to out [Rows, H].
func (m *MoE) Forward(out, x []float32, batch *ragged.Batch) {
	c, ar, rows := m.Contract, batch.Arith, batch.Rows
	mark := batch.Mark()
	defer batch.Release(mark)
	H := len(x) / rows

	index, weight := m.route(x, batch)
	m.routed(out, x, index, weight, batch)
	batch.Put(trace.MoEExpertsOut, m.Layer, out)

	shared, gate := batch.Buf(rows*H), batch.Buf(rows)
	m.Shared.rows(shared, x, rows, batch)
	batch.Put(trace.MoESharedOutUngated, m.Layer, shared)
	ar.Linear(batch.Pool, gate, x, rows, m.SharedGate)
	c.Round(precision.Linear, gate)
	batch.Put(trace.MoESharedGateLogit, m.Layer, gate)
	batch.ByRow(rows, rows, func(lo, hi int) { ar.Sigmoid(gate[lo:hi], gate[lo:hi]) })
	c.Round(precision.SharedSigmoid, gate)
	for i := range shared {
		shared[i] *= gate[i/H]
	}
	c.Round(precision.SharedOut, shared)
	for i := range out {
		out[i] += shared[i]
	}
	c.Round(precision.MoEOut, out)
}

// route gives the chosen experts and their weights, [rows, k] each, by falling probability.
func (m *MoE) route(x []float32, batch *ragged.Batch) (index []int, weight []float32) {
	c, ar, rows, E, K := m.Contract, batch.Arith, batch.Rows, m.Router.Rows, m.TopK
	probs := batch.Buf(rows * E)
	ar.Linear(batch.Pool, probs, x, rows, m.Router)
	c.Round(precision.Linear, probs)
	batch.Put(trace.MoERouterLogitsRaw, m.Layer, probs)
	index, weight = make([]int, rows*K), batch.Buf(rows*K)
	logits := append([]float32(nil), probs...)
	for t := range rows {
		ar.RouterSoftmax(probs[t*E:][:E])
	}
	c.Round(precision.RouterProb, probs)
	batch.Put(trace.MoERouterProbs, m.Layer, probs)
	by := probs
	if c.SoftmaxChosen {
		by = logits
	}
	m.choose(index, by)
	m.weights(weight, by, index, batch)
	batch.Put(trace.MoETopKWeights, m.Layer, weight)
	if batch.Sink != nil {
		ids := make([]float32, len(index))
		for i, e := range index {
			ids[i] = float32(e)
		}
		batch.Put(trace.MoETopKIndex, m.Layer, ids)
	}
	return index, weight
}

// choose writes the k experts of every row with the largest scores [rows, E] to index [rows, k], lowest id first among
// equals.
func (m *MoE) choose(index []int, scores []float32) {
	E, K := m.Router.Rows, m.TopK
	order := make([]int, E)
	for t := range len(index) / K {
		row := scores[t*E:][:E]
		for e := range order {
			order[e] = e
		}
		slices.SortStableFunc(order, func(a, b int) int {
			switch {
			case row[a] > row[b]:
				return -1
			case row[a] < row[b]:
				return 1
			}
			return 0
		})
		copy(index[t*K:], order[:K])
	}
}

// weights writes the chosen experts' weights to weight [rows, k], of sum 1 before they are rounded: the chosen
// probabilities over their sum, or, where the contract says so, the softmax of the chosen logits.
func (m *MoE) weights(weight, scores []float32, index []int, batch *ragged.Batch) {
	c, ar, E, K := m.Contract, batch.Arith, m.Router.Rows, m.TopK
	for t := range len(index) / K {
		w := weight[t*K:][:K]
		for k := range w {
			w[k] = scores[t*E+index[t*K+k]]
		}
		if c.SoftmaxChosen {
			ar.RouterSoftmax(w)
			continue
		}
		sum := ar.Sum(w)
		for k := range w {
			w[k] /= sum
		}
	}
	c.Round(precision.RouterWeight, weight)
}

// routed sums the chosen experts into out. Each expert reads its weights once for all tokens routed to it.
func (m *MoE) routed(out, x []float32, index []int, weight []float32, batch *ragged.Batch) {
	rows, K := batch.Rows, m.TopK
	H := len(x) / rows
	mark := batch.Mark()
	defer batch.Release(mark)
	slots := make([][]int, len(m.Experts)) // which (token, k) an expert serves
	for i, e := range index {
		slots[e] = append(slots[e], i)
	}
	each := batch.Buf(rows * K * H) // expert outs, [rows, k, H]
	for e, use := range slots {
		if len(use) == 0 {
			continue
		}
		inner := batch.Mark()
		in, y := batch.Buf(len(use)*H), batch.Buf(len(use)*H)
		for i, s := range use {
			copy(in[i*H:][:H], x[s/K*H:])
		}
		m.Experts[e].rows(y, in, len(use), batch)
		for i, s := range use {
			copy(each[s*H:][:H], y[i*H:])
		}
		batch.Release(inner)
	}
	m.combine(out, each, index, weight, batch)
}

// combine is out [rows, H] = sum_k weight_k * each_k, in the contract's order; each [rows, k, H] is overwritten.
func (m *MoE) combine(out, each []float32, index []int, weight []float32, batch *ragged.Batch) {
	c, K := m.Contract, m.TopK
	H := len(each) / len(weight)
	for s, w := range weight {
		y := each[s*H:][:H]
		for j := range y {
			y[j] *= w
		}
	}
	c.Round(precision.ExpertWeighted, each)
	partial := c.At[precision.ExpertPartial]
	col, order := make([]float32, K), make([]int, K)
	for t := range len(weight) / K {
		for k := range order {
			order[k] = k
		}
		if c.ExpertsByID {
			slices.SortFunc(order, func(a, b int) int { return index[t*K+a] - index[t*K+b] })
		}
		for j := range H {
			for k, o := range order {
				col[k] = each[(t*K+o)*H+j]
			}
			if partial == precision.F32 {
				out[t*H+j] = batch.Arith.Sum(col)
				continue
			}
			var sum float32
			for _, v := range col {
				sum = partial.Value(sum + v)
			}
			out[t*H+j] = sum
		}
	}
	c.Round(precision.ExpertSum, out)
}
