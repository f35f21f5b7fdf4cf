// Package plain64 is the fp64 engine: a second implementation of the model, in float64 from the embedding to the
// logits, written from DESIGN section 2 alone and in its order. It is the oracle's error bar.
//
// It is plain on purpose and it repeats on purpose what model, gdn and attention do. Do not "remove duplication":
// a helper shared with the first implementation is a mistake shared with it, and the two would agree on it.
// imports_test.go holds the list of packages this one may import. gonum's blas64 does the matrix products, math the
// functions; the last bits of a result may therefore differ between machines, and between prefill and steps
// (the tests see 4e-14).
//
// Only the rotary angles are float32, by definition: see inverseFrequencies.
package plain64

import (
	"context"
	"fmt"
	"math"

	"sibyl/config"
	"sibyl/trace"
)

// decoder is the model: its sizes and its weights. Matrices are [out, in], vectors float64.
type decoder struct {
	cfg     *config.Config
	embed   *matrix // [V, H]
	layers  []layer
	norm    []float64 // [H]
	head    *matrix   // [V, H], the embedding itself when tied
	invFreq []float32 // [rot/2]
	run     running
}

// layer is one decoder layer: one of gdn and attn, one of mlp and moe.
type layer struct {
	inputNorm, postAttnNorm []float64 // [H]
	gdn                     *gdn
	attn                    *attn
	mlp                     *mlp
	moe                     *moe
}

// gdn is the GatedDeltaNet mixer. C = 2*nk*dk + nv*dv channels: q of all key heads, k of all key heads, v of all value heads.
type gdn struct {
	inProjQKV        *matrix   // [C, H]
	inProjZ          *matrix   // [nv*dv, H]
	inProjB, inProjA *matrix   // [nv, H]
	conv             []float64 // [C, K]
	aLog, dtBias     []float64 // [nv]
	norm             []float64 // [dv]
	outProj          *matrix   // [H, nv*dv]
}

// attn is the gated attention mixer.
type attn struct {
	qProj        *matrix   // [heads*2*hd, H]: query and gate of head 0, query and gate of head 1, ...
	kProj, vProj *matrix   // [kv*hd, H]
	qNorm, kNorm []float64 // [hd]
	oProj        *matrix   // [H, heads*hd]
}

// mlp is down(silu(gate(x)) * up(x)); gate and up are [I, H], down is [H, I].
type mlp struct{ gate, up, down *matrix }

// moe is the mixture of experts with its shared expert.
type moe struct {
	router     *matrix // [E, H]
	experts    []mlp
	shared     mlp
	sharedGate *matrix // [1, H]
}

// forward runs T tokens on the state s, which it advances, and gives the final norm's output [T, H].
// pos holds the T, H and W position of each token. Taps go to t.
func (d *decoder) forward(ctx context.Context, ids []int32, pos [][3]int32, s *state, t *taps) ([]float64, error) {
	eps := d.cfg.RMSNormEps
	t.begin(s.n, len(ids))
	t.put(trace.InputIDs, widenIDs(ids))
	x := d.embed.lookup(ids)
	t.put(trace.Embed, x)
	d.run.ctx = ctx
	for l := range d.layers {
		if err := d.stopped(ctx, l, s); err != nil {
			return nil, err
		}
		w := &d.layers[l]
		t.layer = l

		h := rmsNorm(x, w.inputNorm, eps)
		t.put(trace.InputNorm, h)
		if w.gdn != nil {
			h = d.gatedDeltaNet(w.gdn, h, &s.layers[l], t)
		} else {
			h = d.attention(w.attn, h, pos, &s.layers[l], t)
		}
		add(x, h)
		t.put(trace.AfterMixer, x)

		h = rmsNorm(x, w.postAttnNorm, eps)
		t.put(trace.PostAttnNorm, h)
		if w.moe != nil {
			h = d.mixtureOfExperts(w.moe, h, t)
		} else {
			h = w.mlp.forward(h)
		}
		t.put(trace.MLPOut, h)
		add(x, h)
		t.put(trace.LayerOut, x)
		if t.err != nil {
			return nil, t.err
		}
	}
	if err := d.stopped(ctx, len(d.layers), s); err != nil {
		return nil, err
	}
	for _, p := range pos {
		s.next = max(s.next, p[0]+1, p[1]+1, p[2]+1)
	}
	s.n += len(ids)
	x = rmsNorm(x, d.norm, eps)
	t.put(trace.FinalNorm, x)
	return x, t.err
}

// stopped is the error of a pass whose context is done.
func (d *decoder) stopped(ctx context.Context, layers int, s *state) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stopped after %d of %d layers at token %d: %w", layers, len(d.layers), s.n, err)
	}
	return nil
}

// rmsNorm normalises every row of x [rows, len(w)]: x * rsqrt(mean(x^2) + eps) * (1 + w).
func rmsNorm(x, w []float64, eps float64) []float64 {
	n := len(w)
	y := make([]float64, len(x))
	for r := 0; r < len(x); r += n {
		inv := 1 / math.Sqrt(sumSquares(x[r:r+n])/float64(n)+eps)
		for i := range n {
			y[r+i] = x[r+i] * inv * (1 + w[i])
		}
	}
	return y
}

// gatedDeltaNet is the linear-attention mixer, in its recurrent form, which is the definition. x [T, H] gives [T, H].
func (d *decoder) gatedDeltaNet(w *gdn, x []float64, s *layerState, t *taps) []float64 {
	c := d.cfg
	nk, nv, dk, dv, C := c.KeyHeads, c.ValueHeads, c.KeyDim, c.ValueDim, c.QKVDim()
	T := len(x) / c.HiddenSize

	qkv := w.inProjQKV.mul(x)
	z := w.inProjZ.mul(x)
	b := w.inProjB.mul(x)
	a := w.inProjA.mul(x)
	t.put(trace.GDNInProjQKV, qkv)
	t.put(trace.GDNInProjZ, z)
	t.put(trace.GDNInProjB, b)
	t.put(trace.GDNInProjA, a)

	// The depthwise causal conv and silu, on q, k and v alike.
	conv := causalConv(w.conv, qkv, s.conv, C, c.ConvKernel)
	t.put(trace.GDNConvPreSilu, conv)
	for i := range conv {
		conv[i] = silu(conv[i])
	}
	t.put(trace.GDNConvOut, conv)

	q, k, v := make([]float64, T*nk*dk), make([]float64, T*nk*dk), make([]float64, T*nv*dv)
	for i := range T {
		row := conv[i*C : (i+1)*C]
		copy(q[i*nk*dk:], row[:nk*dk])
		copy(k[i*nk*dk:], row[nk*dk:2*nk*dk])
		copy(v[i*nv*dv:], row[2*nk*dk:])
	}
	l2norm(q, dk)
	l2norm(k, dk)
	t.put(trace.GDNQL2, q)
	t.put(trace.GDNKL2, k)
	t.put(trace.GDNV, v)
	for i := range q {
		q[i] *= 1 / math.Sqrt(float64(dk))
	}

	beta, g := make([]float64, T*nv), make([]float64, T*nv)
	for i := range beta {
		beta[i] = sigmoid(b[i])
		g[i] = -math.Exp(w.aLog[i%nv]) * softplus(a[i]+w.dtBias[i%nv])
	}
	t.put(trace.GDNG, g)
	t.put(trace.GDNBeta, beta)

	out := make([]float64, T*nv*dv)
	for i := range T {
		for h := range nv {
			kh := i*nk + h/(nv/nk) // value heads share a key head in runs: 0 0 1 1, not 0 1 0 1
			vh := i*nv + h
			deltaStep(s.recurrent[h*dk*dv:(h+1)*dk*dv], q[kh*dk:(kh+1)*dk], k[kh*dk:(kh+1)*dk],
				v[vh*dv:(vh+1)*dv], out[vh*dv:(vh+1)*dv], math.Exp(g[vh]), beta[vh])
		}
	}
	t.put(trace.GDNCoreOut, out)

	// The gated norm: per value head, plain gain w, then times silu(z).
	for r := 0; r < len(out); r += dv {
		inv := 1 / math.Sqrt(sumSquares(out[r:r+dv])/float64(dv)+c.RMSNormEps)
		for i := range dv {
			out[r+i] = out[r+i] * inv * w.norm[i] * silu(z[r+i])
		}
	}
	t.put(trace.GDNGatedNorm, out)
	y := w.outProj.mul(out)
	t.put(trace.GDNOutProj, y)
	return y
}

// causalConv is the depthwise conv of x [T, C] with w [C, K], without bias; w[:, K-1] meets the current token.
// state [C, K] holds the last K inputs of each channel, oldest first, zero before the sequence, and is advanced by T.
func causalConv(w, x, state []float64, C, K int) []float64 {
	y := make([]float64, len(x))
	for i := range x {
		ch := i % C
		last := state[ch*K : (ch+1)*K]
		copy(last, last[1:])
		last[K-1] = x[i]
		for tap := range K {
			y[i] += w[ch*K+tap] * last[tap]
		}
	}
	return y
}

// l2norm scales every run of n in x by rsqrt(sum(x^2) + 1e-6).
func l2norm(x []float64, n int) {
	for r := 0; r < len(x); r += n {
		inv := 1 / math.Sqrt(sumSquares(x[r:r+n])+1e-6)
		for i := r; i < r+n; i++ {
			x[i] *= inv
		}
	}
}

// deltaStep is one token of one value head. S [dk, dv] in place; q, k [dk]; v [dv]; o [dv], zero on entry;
// decay = exp(g), from 0 to 1.
func deltaStep(S, q, k, v, o []float64, decay, beta float64) {
	dv := len(v)
	mem := make([]float64, dv)
	for i := range k { // S *= exp(g); mem = S^T k
		row := S[i*dv : (i+1)*dv]
		for j := range row {
			row[j] *= decay
			mem[j] += row[j] * k[i]
		}
	}
	for i := range k { // S += k (x) (beta * (v - mem)); o = S^T q, after the update
		row := S[i*dv : (i+1)*dv]
		for j := range row {
			row[j] += k[i] * (beta * (v[j] - mem[j]))
			o[j] += row[j] * q[i]
		}
	}
}

// attention is the gated GQA mixer. x [T, H] gives [T, H]; k (after rope) and v join the cache of s.
func (d *decoder) attention(w *attn, x []float64, pos [][3]int32, s *layerState, t *taps) []float64 {
	c := d.cfg
	heads, kv, hd := c.NumHeads, c.NumKVHeads, c.HeadDim
	T := len(pos)

	qg := w.qProj.mul(x)
	t.put(trace.AttnQProj, qg)
	q, gate := make([]float64, T*heads*hd), make([]float64, T*heads*hd)
	for i := range T * heads { // per head: first half query, second half gate
		copy(q[i*hd:(i+1)*hd], qg[i*2*hd:])
		copy(gate[i*hd:(i+1)*hd], qg[i*2*hd+hd:])
	}
	q = rmsNorm(q, w.qNorm, c.RMSNormEps)
	t.put(trace.AttnQNorm, q)
	k := w.kProj.mul(x)
	t.put(trace.AttnKProj, k)
	k = rmsNorm(k, w.kNorm, c.RMSNormEps)
	t.put(trace.AttnKNorm, k)
	v := w.vProj.mul(x)
	t.put(trace.AttnVProj, v)
	d.rope(q, heads, pos)
	d.rope(k, kv, pos)
	t.put(trace.AttnQRope, q)
	t.put(trace.AttnKRope, k)

	out := make([]float64, T*heads*hd)
	for i := range T {
		for h := range kv {
			at := (i*kv + h) * hd
			s.key[h], s.value[h] = append(s.key[h], k[at:at+hd]...), append(s.value[h], v[at:at+hd]...)
		}
		for h := range heads { // causal: the cache ends with token i
			at, kvh := (i*heads+h)*hd, h/(heads/kv)
			attend(out[at:at+hd], q[at:at+hd], s.key[kvh], s.value[kvh])
		}
	}
	t.put(trace.AttnOutPreGate, out)
	for i := range out {
		out[i] *= sigmoid(gate[i])
	}
	t.put(trace.AttnOutGated, out)
	y := w.oProj.mul(out)
	t.put(trace.AttnOProj, y)
	return y
}

// attend is softmax(q k^T * hd^-0.5) v for one query q [hd] over all cached tokens; key, value [n, hd]; out [hd], zero on entry.
func attend(out, q, key, value []float64) {
	hd := len(q)
	p := make([]float64, len(key)/hd)
	for j := range p {
		for i, k := range key[j*hd : (j+1)*hd] {
			p[j] += q[i] * k
		}
		p[j] *= 1 / math.Sqrt(float64(hd))
	}
	softmax(p)
	for j := range p {
		for i, v := range value[j*hd : (j+1)*hd] {
			out[i] += p[j] * v
		}
	}
}

// rope rotates the pairs (j, j+rot/2) of every head of x [T, heads, hd] in place; dims from rot on pass. The angle is
// R32(position * inv_freq); frequency j takes the H or the W position by the interleaved mRoPE rule, else T.
func (d *decoder) rope(x []float64, heads int, pos [][3]int32) {
	hd, half, sec := d.cfg.HeadDim, d.cfg.RotaryDim/2, d.cfg.MRopeSection
	for i := range pos {
		for j := range half {
			axis := 0
			if r := j % 3; r != 0 && j < 3*sec[r] {
				axis = r
			}
			angle := float32(float32(pos[i][axis]) * d.invFreq[j])
			cos, sin := math.Cos(float64(angle)), math.Sin(float64(angle))
			for h := range heads {
				a, b := &x[(i*heads+h)*hd+j], &x[(i*heads+h)*hd+j+half]
				*a, *b = *a*cos-*b*sin, *b*cos+*a*sin
			}
		}
	}
}

// forward is down(silu(gate(x)) * up(x)).
func (w *mlp) forward(x []float64) []float64 {
	h, up := w.gate.mul(x), w.up.mul(x)
	for i := range h {
		h[i] = silu(h[i]) * up[i]
	}
	return w.down.mul(h)
}

// mixtureOfExperts routes each row of x [T, H] to its top-k experts and adds the gated shared expert.
func (d *decoder) mixtureOfExperts(w *moe, x []float64, t *taps) []float64 {
	H, E, K := d.cfg.HiddenSize, d.cfg.MoE.NumExperts, d.cfg.MoE.TopK
	T := len(x) / H

	probs := w.router.mul(x)
	t.put(trace.MoERouterLogitsRaw, probs)
	index, weight := make([]float64, T*K), make([]float64, T*K)
	rows := make([][]int, E) // the places in index that chose each expert
	for i := range T {
		p := probs[i*E : (i+1)*E]
		softmax(p) // over all experts; then the top k, renormalised to sum 1
		sum := 0.0
		for j, e := range largest(p, K) {
			index[i*K+j], weight[i*K+j] = float64(e), p[e]
			sum += p[e]
			rows[e] = append(rows[e], i*K+j)
		}
		for j := range K {
			weight[i*K+j] /= sum
		}
	}
	t.put(trace.MoERouterProbs, probs)
	t.put(trace.MoETopKWeights, weight)
	t.put(trace.MoETopKIndex, index)

	out := make([]float64, len(x))
	for e, chosen := range rows {
		var in []float64
		for _, ij := range chosen {
			in = append(in, x[ij/K*H:(ij/K+1)*H]...)
		}
		if len(in) == 0 {
			continue
		}
		for r, y := range w.experts[e].forward(in) {
			ij := chosen[r/H]
			out[ij/K*H+r%H] += weight[ij] * y
		}
	}
	t.put(trace.MoEExpertsOut, out)

	shared := w.shared.forward(x)
	t.put(trace.MoESharedOutUngated, shared)
	gate := w.sharedGate.mul(x)
	t.put(trace.MoESharedGateLogit, gate)
	for i := range out {
		out[i] += sigmoid(gate[i/H]) * shared[i]
	}
	return out
}
