// Package attention is the gated GQA mixer: q/k norm, partial mRoPE, KV cache, causal softmax attention, output gate.
// Source: transformers 5.23, models/qwen3_5/modeling_qwen3_5.py (Qwen3_5Attention.forward, eager_attention_forward).
//
// The formulas, once. x [T, H] is the normed residual stream; nq query heads share nkv key/value heads of hd.
//
//	[q|gate] = x Wq^T per head: the first hd are the query, the next hd the gate
//	k = x Wk^T; v = x Wv^T
//	q = rope(norm(q)); k = rope(norm(k))     RMSNorm with gain 1+w over hd, rope on the first dims
//	scores = (q * hd^-0.5) . k               causal: query at p sees keys at 0..p
//	o = softmax(scores) . v                  head h reads kv head h/(nq/nkv)
//	out = (o * sigmoid(gate)) Wo^T
package attention

import (
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
	"sibyl/trace"
)

// Dims are the mixer's sizes.
type Dims struct {
	Hidden         int
	Heads, KVHeads int // nq, nkv; nq is a multiple of nkv
	HeadDim        int // hd
	Eps            float32
}

// Weights are views of the layer's tensors.
type Weights struct {
	Q            *kernels.Matrix // [nq*2*hd, H], per head query rows then gate rows
	K, V         *kernels.Matrix // [nkv*hd, H]
	O            *kernels.Matrix // [H, nq*hd]
	QNorm, KNorm []float32       // [hd], gain One+w
	One          float32         // 1; 0 where a bundle stores 1+w
}

// Mixer is one gated attention layer under a contract.
type Mixer struct {
	Dims
	Weights
	Rope     *Rope
	Layer    int // for taps
	Contract *precision.Contract
}

// Forward is the mixer on a ragged batch: x, out [Rows, Hidden]; caches[i] belongs to batch.Seqs[i] and grows.
// cos and sin are Rope.Table's.
func (m *Mixer) Forward(out, x, cos, sin []float32, batch *ragged.Batch, caches []*Cache) {
	c, ar, rows := m.Contract, batch.Arith, batch.Rows
	mark := batch.Mark()
	defer batch.Release(mark)
	qg, k, v := batch.Room(rows*m.Q.Rows), batch.Room(rows*m.K.Rows), batch.Room(rows*m.V.Rows)
	batch.Linears(c, x, kernels.Product{Out: qg, W: m.Q}, kernels.Product{Out: k, W: m.K}, kernels.Product{Out: v, W: m.V})
	batch.Put(trace.AttnQProj, m.Layer, qg)
	batch.Put(trace.AttnKProj, m.Layer, k)
	batch.Put(trace.AttnVProj, m.Layer, v)
	q, gate := m.splitGate(qg, batch)

	m.norm(q, m.QNorm, batch)
	m.norm(k, m.KNorm, batch)
	batch.Put(trace.AttnQNorm, m.Layer, q)
	batch.Put(trace.AttnKNorm, m.Layer, k)
	m.rope(q, m.Heads, cos, sin, batch)
	m.rope(k, m.KVHeads, cos, sin, batch)
	batch.Put(trace.AttnQRope, m.Layer, q)
	batch.Put(trace.AttnKRope, m.Layer, k)

	for i := range batch.Seqs {
		s, kw := &batch.Seqs[i], m.KVHeads*m.HeadDim
		cache := caches[i]
		cache.K.Append(k[s.Row*kw:][:s.Len*kw])
		cache.V.Append(v[s.Row*kw:][:s.Len*kw])
		cache.Len += s.Len
	}
	o := batch.Room(rows * m.Heads * m.HeadDim)
	m.attend(o, q, batch, caches)
	batch.Put(trace.AttnOutPreGate, m.Layer, o)

	batch.Elementwise(len(o), 20, func(lo, hi int) {
		y, g := o[lo:hi], gate[lo:hi]
		ar.Sigmoid(g, g)
		c.Round(precision.GateSigmoid, g)
		kernels.Multiply(y, g)
		c.Round(precision.AttnGated, y)
	})
	batch.Put(trace.AttnOutGated, m.Layer, o)
	ar.Matmul(batch.Pool, out, o, rows, m.O)
	batch.Round(c, precision.Linear, out)
	batch.Put(trace.AttnOProj, m.Layer, out)
}

// splitGate takes q_proj's out [Rows, nq, 2*hd] apart: query and gate [Rows, nq, hd] each.
func (m *Mixer) splitGate(qg []float32, batch *ragged.Batch) (q, gate []float32) {
	hd := m.HeadDim
	q, gate = batch.Room(len(qg)/2), batch.Room(len(qg)/2)
	batch.Pool.For(len(qg)/(2*hd), 2*hd, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			copy(q[i*hd:][:hd], qg[2*i*hd:])
			copy(gate[i*hd:][:hd], qg[(2*i+1)*hd:])
		}
	})
	return q, gate
}

// norm is RMSNorm with gain 1+w over each head, in place.
func (m *Mixer) norm(x, w []float32, batch *ragged.Batch) {
	hd := m.HeadDim
	gain := make([]float32, hd)
	for i := range gain {
		gain[i] = m.One + w[i]
	}
	batch.Pool.For(len(x)/hd, 8*hd, func(lo, hi int) {
		for h := lo; h < hi; h++ {
			y := x[h*hd:][:hd]
			kernels.Gain(y, y, gain, batch.Arith.InvRMS(y, m.Eps))
			m.Contract.Round(precision.Norm, y)
		}
	})
}

// rope turns the heads of x [Rows, heads, hd] in place.
func (m *Mixer) rope(x []float32, heads int, cos, sin []float32, batch *ragged.Batch) {
	half := m.Rope.Rot / 2
	batch.Pool.For(batch.Rows, 6*heads*half, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			for h := range heads {
				m.Rope.apply(x[(t*heads+h)*m.HeadDim:][:m.HeadDim], cos[t*half:][:half], sin[t*half:][:half], m.Contract)
			}
		}
	})
}
