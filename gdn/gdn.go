package gdn

import (
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
	"sibyl/trace"
)

// Dims are the mixer's sizes.
type Dims struct {
	Hidden               int
	KeyHeads, ValueHeads int // nk, nv; nv is a multiple of nk
	KeyDim, ValueDim     int // dk, dv
	Kernel               int // conv taps
	Eps                  float32
}

// Channels is the width of in_proj_qkv and of the conv, nk*dk + nk*dk + nv*dv.
func (d *Dims) Channels() int { return 2*d.KeyHeads*d.KeyDim + d.ValueHeads*d.ValueDim }

// Weights are views of the layer's tensors.
type Weights struct {
	QKV  *kernels.Matrix // [2*nk*dk+nv*dv, H], rows q | k | v
	Z    *kernels.Matrix // [nv*dv, H]
	B, A *kernels.Matrix // [nv, H]
	Out  *kernels.Matrix // [H, nv*dv]

	Conv         []float32 // [QKV, Kernel], tap Kernel-1 meets the current token; replaced, never written to, once in use
	ALog, DtBias []float32 // [nv]
	Rate         []float32 // [nv], -exp(A_log) where a bundle stores it; else nil
	Norm         []float32 // [dv], gain as it is
}

// Mixer is one GatedDeltaNet layer under a contract.
type Mixer struct {
	Dims
	Weights
	Layer    int // for taps
	Contract *precision.Contract
	Chunk    bool // prefill by the chunk form

	taps   []float32 // [Kernel, C], of the Conv that begins at tapsOf
	tapsOf *float32
}

// Forward is the mixer on a ragged batch: x, out [Rows, Hidden]; states[i] belongs to batch.Seqs[i] and advances.
func (m *Mixer) Forward(out, x []float32, batch *ragged.Batch, states []*State) {
	c, ar, rows := m.Contract, batch.Arith, batch.Rows
	mark := batch.Mark()
	defer batch.Release(mark)
	qkv, z, b, a := batch.Room(rows*m.QKV.Rows), batch.Room(rows*m.Z.Rows), batch.Room(rows*m.B.Rows), batch.Room(rows*m.A.Rows)
	batch.Linears(c, x, kernels.Product{Out: qkv, W: m.QKV}, kernels.Product{Out: z, W: m.Z},
		kernels.Product{Out: b, W: m.B}, kernels.Product{Out: a, W: m.A})
	batch.Put(trace.GDNInProjQKV, m.Layer, qkv)
	batch.Put(trace.GDNInProjZ, m.Layer, z)
	batch.Put(trace.GDNInProjB, m.Layer, b)
	batch.Put(trace.GDNInProjA, m.Layer, a)

	conv := batch.Room(len(qkv))
	m.conv(conv, qkv, batch, states)
	batch.Put(trace.GDNConvPreSilu, m.Layer, conv)
	batch.Elementwise(len(conv), 20, func(lo, hi int) {
		y := conv[lo:hi]
		ar.SiLU(y, y)
		c.Round(precision.ConvOut, y)
	})
	batch.Put(trace.GDNConvOut, m.Layer, conv)

	q, k, v := m.split(qkv, conv, batch)
	m.l2norm(q, ar, batch)
	m.l2norm(k, ar, batch)
	batch.Put(trace.GDNQL2, m.Layer, q)
	batch.Put(trace.GDNKL2, m.Layer, k)
	batch.Put(trace.GDNV, m.Layer, v)

	g, beta, decay := a, b, batch.Room(len(a))
	m.gates(g, beta, decay, batch)
	batch.Put(trace.GDNG, m.Layer, g)
	batch.Put(trace.GDNBeta, m.Layer, beta)

	m.scaleQuery(q, batch)
	core := batch.Room(rows * m.ValueHeads * m.ValueDim)
	m.rule(core, q, k, v, g, decay, beta, batch, states)
	batch.Round(c, precision.CoreOut, core)
	batch.Put(trace.GDNCoreOut, m.Layer, core)

	m.gatedNorm(core, z, batch)
	batch.Put(trace.GDNGatedNorm, m.Layer, core)
	ar.Matmul(batch.Pool, out, core, rows, m.Out)
	batch.Round(c, precision.Linear, out)
	batch.Put(trace.GDNOutProj, m.Layer, out)
}

// split copies conv out [Rows, QKV] to room, of the same size, as q, k [Rows, nk, dk] and v [Rows, nv, dv].
func (m *Mixer) split(room, conv []float32, batch *ragged.Batch) (q, k, v []float32) {
	kd, vd := m.KeyHeads*m.KeyDim, m.ValueHeads*m.ValueDim
	q, k, v = room[:batch.Rows*kd], room[batch.Rows*kd:][:batch.Rows*kd], room[2*batch.Rows*kd:]
	batch.Pool.For(batch.Rows, 2*kd+vd, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			row := conv[t*(2*kd+vd):]
			copy(q[t*kd:][:kd], row)
			copy(k[t*kd:][:kd], row[kd:])
			copy(v[t*vd:][:vd], row[2*kd:])
		}
	})
	return q, k, v
}

// gatedNorm is o = (o * rsqrt(mean(o*o) + eps) * w) * silu(z), per value head over dv, in place.
func (m *Mixer) gatedNorm(o, z []float32, batch *ragged.Batch) {
	c, ar, dv := m.Contract, batch.Arith, m.ValueDim
	batch.Pool.For(len(o)/dv, dv*40, func(lo, hi int) {
		silu := make([]float32, dv)
		for h := lo; h < hi; h++ {
			y := o[h*dv:][:dv]
			kernels.Scale(y, ar.InvRMS(y, m.Eps))
			c.Round(precision.GatedNormed, y)
			kernels.Multiply(y, m.Norm)
			c.Round(precision.GatedWeight, y)
			ar.SiLU(silu, z[h*dv:][:dv])
			kernels.Multiply(y, silu)
			c.Round(precision.GatedOut, y)
		}
	})
}
