package ops

import (
	"sibyl/metal/gpu"
	"sibyl/precision"
)

// MaxExperts is the most whose probabilities fit in threadgroup memory.
const MaxExperts = 8192

// Router is the softmax of logits [tokens, experts], the k largest of it and their weights of sum 1: probs [tokens, experts], index
// (int32) and weight [tokens, k].
func (l *List) Router(logits, probs, index, weight gpu.Slice, tokens, experts, k int, prob, chosen precision.Round) {
	if k < 1 || k > experts || experts > MaxExperts {
		l.fail("router", "%d of %d experts, want at most %d", k, experts, MaxExperts)
		return
	}
	a := struct{ experts, k, prob, weight uint32 }{uint32(experts), uint32(k), uint32(prob), uint32(chosen)}
	add(l, "router", &a, size{tokens, 1, 1}, size{32, 1, 1}, []int{experts * 4}, logits, probs, index, weight)
}

// Experts are matrices of all experts in one: expert e's Rows rows begin at row e * Stride.
type Experts struct {
	Weight
	Stride int
}

type expertArgs struct{ rows, cols, k, stride, grid, round, silu, mul uint32 }

// ExpertSwiglu is out [tokens, k, rows]: Swiglu of each token's k experts. gate and up differ in where they begin alone.
func (l *List) ExpertSwiglu(gate, up *Experts, index, x, out gpu.Slice, tokens, k int, r MLPRounds) {
	name := "expert_swiglu_" + gate.Format.String()
	if !l.checkWeight(name, &gate.Weight) || !l.checkWeight(name, &up.Weight) {
		return
	}
	a := expertArgs{uint32(gate.Rows), uint32(gate.Cols), uint32(k), uint32(gate.Stride), uint32(gate.Round), uint32(r.Linear), uint32(r.Silu), uint32(r.Mul)}
	gq, gs, gm := gate.slices()
	uq, us, um := up.slices()
	add(l, name, &a, size{ceil(gate.Rows, 4), tokens * k, 1}, size{64, 1, 1}, nil, gq, gs, gm, uq, us, um, index, x, out)
}

// ExpertLinear is out [slots, rows] = R(w[index[s]] x [slots, cols]).
func (l *List) ExpertLinear(w *Experts, index, x, out gpu.Slice, slots int, round precision.Round) {
	name := "expert_linear_" + w.Format.String()
	if !l.checkWeight(name, &w.Weight) {
		return
	}
	a := expertArgs{uint32(w.Rows), uint32(w.Cols), 1, uint32(w.Stride), uint32(w.Round), uint32(round), 0, 0}
	q, s, m := w.slices()
	add(l, name, &a, size{ceil(w.Rows, 8), slots, 1}, size{64, 1, 1}, nil, q, s, m, index, x, out)
}

// MoERounds are the rounding points after the experts.
type MoERounds struct{ Weighted, Sum, Sigmoid, Shared, Out precision.Round }

// MoECombine is routed [tokens, hidden] = R(sum over k of R(weight * each)) and out = R(routed + R(shared * R(sigmoid(gate)))):
// each [tokens, k, hidden], weight [tokens, k], shared [tokens, hidden], gate [tokens].
func (l *List) MoECombine(each, weight, shared, gate, routed, out gpu.Slice, tokens, k, hidden int, r MoERounds) {
	a := struct{ hidden, k, weighted, sum, sigmoid, shared, out uint32 }{uint32(hidden), uint32(k), uint32(r.Weighted), uint32(r.Sum), uint32(r.Sigmoid), uint32(r.Shared), uint32(r.Out)}
	add(l, "moe_combine", &a, size{ceil(hidden, 64), tokens, 1}, size{64, 1, 1}, nil, each, weight, shared, gate, routed, out)
}

// HeadChunk is how many logits the first stage of Head and TopK takes.
const HeadChunk = 2048

// HeadChunks is how many such parts a row of n has.
func HeadChunks(n int) int { return ceil(n, HeadChunk) }

// Best is what Head says of a row: the lowest id of the largest logit (NaN counts as the largest), how many ids have it, log-sum-exp.
type Best struct {
	ID    uint32
	Value float32
	Ties  uint32
	LSE   float32
}

// Head writes a Best for each row of logits [rows, n] to out; chunks is room for rows * HeadChunks(n) of them.
func (l *List) Head(logits, chunks, out gpu.Slice, rows, n int) {
	a := struct{ n, chunks uint32 }{uint32(n), uint32(HeadChunks(n))}
	add(l, "head_chunks", &a, size{HeadChunks(n), rows, 1}, size{32, 1, 1}, nil, logits, chunks)
	add(l, "head_rows", &a, size{1, rows, 1}, size{32, 1, 1}, nil, chunks, out)
}

// MaxTopK is the most that TopK gives.
const MaxTopK = 64

// TopK writes the k largest of each row of logits [rows, n], largest first, lowest id first among equals, to values and ids [rows, k].
// chunkV and chunkI are room for rows * HeadChunks(n) * k of each. An id of 2^32-1 says that the row has no more.
func (l *List) TopK(logits, chunkV, chunkI, values, ids gpu.Slice, rows, n, k int) {
	if k < 1 || k > MaxTopK {
		l.fail("topk", "the %d largest, want 1..%d", k, MaxTopK)
		return
	}
	type args struct{ n, chunks, chunk, k, byID uint32 }
	c := HeadChunks(n)
	first := args{uint32(n), uint32(c), HeadChunk, uint32(k), 0}
	add(l, "topk", &first, size{c, rows, 1}, size{32, 1, 1}, nil, logits, chunkI, chunkV, chunkI)
	second := args{uint32(c * k), 1, uint32(c * k), uint32(k), 1}
	add(l, "topk", &second, size{1, rows, 1}, size{32, 1, 1}, nil, chunkV, chunkI, values, ids)
}
