package metal

import (
	"context"
	"encoding/binary"

	"sibyl/engine"
	"sibyl/metal/gpu"
	"sibyl/metal/ops"
	"sibyl/precision"
	"sibyl/trace"
)

// call is one pass of new rows through the layers: what is in flight, and who listens.
type call struct {
	d      *decoder
	s      *scratch
	list   *ops.List
	rows   int
	seqs   []ops.Seq
	index  []int // which prompt a sequence is
	tiles  int
	splits int
	sink   engine.Sink
	states *states
	err    error
}

// flush runs what was listed so far.
func (c *call) flush() {
	if c.err == nil {
		_, c.err = c.list.Commit()
		c.list = c.d.set.Begin()
	}
}

// wants says whether a tap is asked for.
func (c *call) wants(tap trace.Tap, l int) bool {
	return c.sink != nil && c.err == nil && c.sink.Wants(tap.Name(l))
}

// put shows x [rows, width] where somebody wants it: only then the device is waited for.
func (c *call) put(tap trace.Tap, l int, x gpu.Slice, width int) {
	c.putWith(tap, l, width, func(row, rows int) []float32 { return getFloats(x, row*width, rows*width) })
}

func (c *call) putWith(tap trace.Tap, l, width int, get func(row, rows int) []float32) {
	if !c.wants(tap, l) {
		return
	}
	c.flush()
	for i, s := range c.seqs {
		if c.err == nil {
			c.err = c.sink.Put(tap.Name(l), c.index[i], int(s.Pos), int(s.Len), get(int(s.Row), int(s.Len)))
		}
	}
}

// forward runs the call's rows through all layers; the residual stream is left in s.x.
func (c *call) forward(ctx context.Context) error {
	d, s := c.d, c.s
	H := d.cfg.HiddenSize
	e := d.plan.contract(-1, precision.PartEmbed)
	c.list.Embed(d.embed, s.ids, s.x, c.rows, e.At[precision.Embed])
	c.put(trace.Embed, -1, s.x, H)
	for l := range d.layers {
		if c.err == nil {
			c.err = ctx.Err()
		}
		if c.err != nil {
			return c.err
		}
		c.layer(l)
		if c.rows > len(c.seqs) { // a prefill: a list a layer, so that it can be stopped and no list is long
			c.flush()
		}
	}
	return c.err
}

// layer is h = x + mixer(norm(x)); y = h + mlp(norm(h)).
func (c *call) layer(l int) {
	w, s, H := &c.d.layers[l], c.s, c.d.cfg.HiddenSize
	eps := float32(c.d.cfg.RMSNormEps)
	c.list.RMSNorm(s.x, w.input.w, w.input.one, s.n, c.rows, ops.Matrix(H), eps, w.input.round)
	c.put(trace.InputNorm, l, s.n, H)
	if w.gdn != nil {
		c.gdn(l, w.gdn)
	} else {
		c.attn(l, w.attn)
	}
	c.list.Residual(s.x, s.y, c.rows*H, w.mixerAdd)
	c.put(trace.AfterMixer, l, s.x, H)
	c.list.RMSNorm(s.x, w.post.w, w.post.one, s.n, c.rows, ops.Matrix(H), eps, w.post.round)
	c.put(trace.PostAttnNorm, l, s.n, H)
	if w.mlp != nil {
		c.mlp(w.mlp, s.y)
	} else {
		c.moe(l, w.moe)
	}
	c.put(trace.MLPOut, l, s.y, H)
	c.list.Residual(s.x, s.y, c.rows*H, w.mlpAdd)
	c.put(trace.LayerOut, l, s.x, H)
}

// linear is out = R(w x), shown as tap.
func (c *call) linear(w *ops.Weight, x, out gpu.Slice, r precision.Round, tap trace.Tap, l int) {
	c.list.Linear(w, x, out, c.rows, r)
	c.put(tap, l, out, w.Rows)
}

// gdn is the GatedDeltaNet mixer on s.n; its out is left in s.y.
func (c *call) gdn(l int, w *gdn) {
	s, cfg, at := c.s, c.d.cfg, &w.c.At
	lin := at[precision.Linear]
	c.linear(w.qkv, s.n, s.qkv, lin, trace.GDNInProjQKV, l)
	c.linear(w.z, s.n, s.z, lin, trace.GDNInProjZ, l)
	c.linear(w.b, s.n, s.b, lin, trace.GDNInProjB, l)
	c.linear(w.a, s.n, s.a, lin, trace.GDNInProjA, l)
	st := &c.states.layers[l]
	c.list.Conv(s.qkv, w.conv, st.conv.Slice, s.pre, s.conv, s.seqs, len(c.seqs), cfg.QKVDim(), cfg.ConvKernel,
		ops.ConvRounds{Sum: at[precision.ConvSum], Out: at[precision.ConvOut], State: w.c.Conv}, c.wants(trace.GDNConvPreSilu, l))
	c.put(trace.GDNConvPreSilu, l, s.pre, cfg.QKVDim())
	c.put(trace.GDNConvOut, l, s.conv, cfg.QKVDim())

	taps := c.wants(trace.GDNQL2, l) || c.wants(trace.GDNKL2, l) || c.wants(trace.GDNG, l) || c.wants(trace.GDNBeta, l)
	dims := ops.GDNDims{KeyHeads: cfg.KeyHeads, ValueHeads: cfg.ValueHeads, KeyDim: cfg.KeyDim, ValueDim: cfg.ValueDim}
	c.list.GDNStep(ops.GDNTensors{Conv: s.conv, A: s.a, B: s.b, Rate: w.rate, DtBias: w.dtBias, State: st.recurrent.Slice, Out: s.core,
		QL2: s.ql2, KL2: s.kl2, G: s.g, Beta: s.beta, Seqs: s.seqs, WantTaps: taps}, len(c.seqs), dims, headScale(cfg.KeyDim, &precision.Contract{}),
		ops.GDNRounds{Square: at[precision.L2Square], Sum: at[precision.L2Sum], Eps: at[precision.L2Eps], Rsqrt: at[precision.L2Rsqrt],
			L2: at[precision.L2Out], QScale: at[precision.QScale], Beta: at[precision.Beta], G: at[precision.G], Core: at[precision.CoreOut],
			L2Eps: w.c.L2Eps, Softplus3: w.c.Softplus3, State: w.c.State})
	c.put(trace.GDNQL2, l, s.ql2, cfg.KeyHeads*cfg.KeyDim)
	c.put(trace.GDNKL2, l, s.kl2, cfg.KeyHeads*cfg.KeyDim)
	c.putWith(trace.GDNV, l, cfg.ValueWidth(), func(row, rows int) []float32 { return columns(s.conv, row, rows, cfg.QKVDim(), cfg.ValueWidth()) })
	c.put(trace.GDNG, l, s.g, cfg.ValueHeads)
	c.put(trace.GDNBeta, l, s.beta, cfg.ValueHeads)
	c.put(trace.GDNCoreOut, l, s.core, cfg.ValueWidth())

	c.list.GatedNorm(s.core, w.norm, s.z, s.gated, c.rows*cfg.ValueHeads, cfg.ValueDim, float32(cfg.RMSNormEps),
		ops.GatedRounds{Normed: at[precision.GatedNormed], Weight: at[precision.GatedWeight], Out: at[precision.GatedOut]})
	c.put(trace.GDNGatedNorm, l, s.gated, cfg.ValueWidth())
	c.linear(w.out, s.gated, s.y, lin, trace.GDNOutProj, l)
}

// columns gives the last width columns of rows of x [., of].
func columns(x gpu.Slice, row, rows, of, width int) (out []float32) {
	for r := row; r < row+rows; r++ {
		out = append(out, getFloats(x, r*of+of-width, width)...)
	}
	return out
}

// attn is the gated GQA mixer on s.n; its out is left in s.y.
func (c *call) attn(l int, w *attn) {
	s, cfg, at := c.s, c.d.cfg, &w.c.At
	lin, hd, eps := at[precision.Linear], cfg.HeadDim, float32(cfg.RMSNormEps)
	c.linear(w.q, s.n, s.qg, lin, trace.AttnQProj, l)
	c.linear(w.k, s.n, s.k, lin, trace.AttnKProj, l)
	c.linear(w.v, s.n, s.v, lin, trace.AttnVProj, l)
	// per head of q_proj's out the first half is the query, the second the gate
	c.list.RMSNorm(s.qg, w.qNorm.w, w.qNorm.one, s.q, c.rows*cfg.NumHeads, ops.Rows{N: hd, Heads: cfg.NumHeads, Token: 2 * cfg.QWidth(), Head: 2 * hd}, eps, w.qNorm.round)
	c.list.RMSNorm(s.k, w.kNorm.w, w.kNorm.one, s.kn, c.rows*cfg.NumKVHeads, ops.Matrix(hd), eps, w.kNorm.round)
	c.put(trace.AttnQNorm, l, s.q, cfg.QWidth())
	c.put(trace.AttnKNorm, l, s.kn, cfg.KVWidth())
	c.list.Rope(s.q, s.cos, s.sin, c.rows, cfg.NumHeads, hd, cfg.RotaryDim, at[precision.RopeProduct], at[precision.RopeOut])
	c.list.Rope(s.kn, s.cos, s.sin, c.rows, cfg.NumKVHeads, hd, cfg.RotaryDim, at[precision.RopeProduct], at[precision.RopeOut])
	c.put(trace.AttnQRope, l, s.q, cfg.QWidth())
	c.put(trace.AttnKRope, l, s.kn, cfg.KVWidth())

	st, d := &c.states.layers[l], ops.AttentionDims{Heads: cfg.NumHeads, KVHeads: cfg.NumKVHeads, HeadDim: hd, Cap: c.states.room}
	longest := uint32(0)
	for _, q := range c.seqs {
		longest = max(longest, q.Len)
	}
	c.list.KVStore(s.kn, s.v, st.key.Slice, st.value.Slice, s.seqs, len(c.seqs), int(longest), d, w.c.KV)
	c.list.Attention(s.q, st.key.Slice, st.value.Slice, s.part, s.seqs, s.tiles, c.tiles, c.splits, d, headScale(hd, w.c), at[precision.ScoreQuery], w.c.KV)
	c.list.Combine(s.part, s.qg, s.ungated, s.attended, c.rows, c.splits, d,
		ops.CombineRounds{Out: at[precision.AttnOut], Sigmoid: at[precision.GateSigmoid], Gated: at[precision.AttnGated]})
	c.put(trace.AttnOutPreGate, l, s.ungated, cfg.QWidth())
	c.put(trace.AttnOutGated, l, s.attended, cfg.QWidth())
	c.linear(w.o, s.attended, s.y, lin, trace.AttnOProj, l)
}

// mlp writes down(silu(gate x) * up x) of s.n to out.
func (c *call) mlp(m *mlp, out gpu.Slice) {
	s, r := c.s, mlpRounds(m.c)
	if m.fused() {
		c.list.Swiglu(m.gate, m.up, s.n, s.inner, c.rows, r)
	} else {
		c.list.Linear(m.gate, s.n, s.inner, c.rows, r.Linear)
		c.list.Linear(m.up, s.n, s.up, c.rows, r.Linear)
		c.list.SiluMul(s.inner, s.up, c.rows*m.gate.Rows, r)
	}
	c.list.Linear(m.down, s.inner, out, c.rows, r.Linear)
}

// moe is the mixture of experts on s.n; its out is left in s.y.
func (c *call) moe(l int, m *moe) {
	s, k, E, H, at := c.s, c.d.cfg.MoE.TopK, c.d.cfg.MoE.NumExperts, c.d.cfg.HiddenSize, &m.c.At
	c.linear(m.router, s.n, s.router, at[precision.Linear], trace.MoERouterLogitsRaw, l)
	c.list.Router(s.router, s.probs, s.index, s.weight, c.rows, E, k, at[precision.RouterProb], at[precision.RouterWeight])
	c.put(trace.MoERouterProbs, l, s.probs, E)
	c.put(trace.MoETopKWeights, l, s.weight, k)
	c.putWith(trace.MoETopKIndex, l, k, func(row, rows int) (ids []float32) {
		p := s.index.Buffer.Bytes()[4*row*k:]
		for i := range rows * k {
			ids = append(ids, float32(int32(binary.LittleEndian.Uint32(p[4*i:]))))
		}
		return ids
	})
	r := mlpRounds(m.c)
	c.list.ExpertSwiglu(m.gate, m.up, s.index, s.n, s.expertInner, c.rows, k, r)
	c.list.ExpertLinear(m.down, s.index, s.expertInner, s.each, c.rows*k, r.Linear)
	c.mlp(&m.shared, s.shared)
	c.list.Linear(m.sharedGate, s.n, s.gate, c.rows, r.Linear)
	c.list.MoECombine(s.each, s.weight, s.shared, s.gate, s.out, s.y, c.rows, k, H, ops.MoERounds{Weighted: at[precision.ExpertWeighted],
		Sum: at[precision.ExpertSum], Sigmoid: at[precision.SharedSigmoid], Shared: at[precision.SharedOut], Out: at[precision.MoEOut]})
	c.put(trace.MoEExpertsOut, l, s.out, H)
	c.put(trace.MoESharedOutUngated, l, s.shared, H)
	c.put(trace.MoESharedGateLogit, l, s.gate, 1)
}
