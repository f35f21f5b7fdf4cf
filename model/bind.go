package model

import (
	"fmt"

	"sibyl/attention"
	"sibyl/bundle"
	"sibyl/config"
	"sibyl/gdn"
	"sibyl/internal/kernels"
)

// Bind makes a decoder of a checkpoint or a bundle under a plan. It reads small vectors (norm gains, A_log, conv taps)
// and copies nothing else: matrices stay views of the mapped file. What a bundle's exporter folded (1+w, -exp(A_log),
// the rope's frequencies) is used as it is stored, under every contract.
func Bind(src bundle.Source, plan *Plan) (*Decoder, error) {
	cfg := src.Config()
	b := &binder{src: src, cfg: cfg, plan: plan}
	d := &Decoder{
		Config: cfg, Plan: plan,
		Embed:     b.matrix(config.Embed, -1, ModEmbed),
		FinalNorm: b.norm(config.FinalNorm, -1, ModFinalNorm),
		Head:      b.matrix(config.Head, -1, ModHead),
		rope:      attention.NewRope(cfg.RopeTheta, cfg.RotaryDim, cfg.MRopeSection),
	}
	if f := src.InvFreq(); f != nil {
		d.rope.InvFreq = f
	}
	for l, kind := range cfg.Layers {
		layer := Layer{
			InputNorm:    b.norm(config.InputNorm, l, ModInputNorm),
			PostAttnNorm: b.norm(config.PostAttnNorm, l, ModPostAttnNorm),
			MixerAdd:     plan.At(l, ModMixer),
			MLPAdd:       plan.At(l, ModMLP),
		}
		if kind == config.GatedDeltaNet {
			layer.GDN = b.gdn(l)
		} else {
			layer.Attention = b.attention(l, d.rope)
		}
		if cfg.MoE != nil {
			layer.MLP = b.moe(l)
		} else {
			layer.MLP = b.mlp(l, config.GateProj, config.UpProj, config.DownProj)
		}
		d.Layers = append(d.Layers, layer)
	}
	if b.err != nil {
		return nil, b.err
	}
	return d, nil
}

// binder keeps the first error, so that binding reads as a list.
type binder struct {
	src  bundle.Source
	cfg  *config.Config
	plan *Plan
	err  error
}

func (b *binder) fail(err error) *kernels.Matrix {
	if b.err == nil {
		b.err = err
	}
	return &kernels.Matrix{}
}

// matrix views a tensor as [rows, cols]: 2-D as it is, a vector as [1, n], the conv [C, 1, K] as [C, K].
func (b *binder) matrix(r config.Role, layer int, mod Module) *kernels.Matrix {
	t, err := b.src.Tensor(r, max(layer, 0))
	if err != nil {
		return b.fail(err)
	}
	shape := r.Shape(b.cfg)
	rows, cols := 1, shape[len(shape)-1]
	if len(shape) > 1 {
		rows = shape[0]
	}
	return b.view(t, r, layer, mod, rows, cols)
}

func (b *binder) view(t bundle.Tensor, r config.Role, layer int, mod Module, rows, cols int) *kernels.Matrix {
	m, err := b.plan.view(Place{layer, mod}, r, t, rows, cols)
	if err != nil {
		return b.fail(err)
	}
	return m
}

func (b *binder) vector(r config.Role, layer int, mod Module) []float32 {
	m := b.matrix(r, layer, mod)
	if b.err != nil {
		return make([]float32, 1)
	}
	return m.Floats()
}

func (b *binder) norm(r config.Role, layer int, mod Module) Norm {
	return Norm{Weight: b.vector(r, layer, mod), One: b.one(r, layer), Eps: float32(b.cfg.RMSNormEps), Contract: b.plan.At(layer, mod)}
}

// form is how a role's tensor is stored.
func (b *binder) form(r config.Role, layer int) bundle.Form {
	t, err := b.src.Tensor(r, max(layer, 0))
	if err != nil {
		b.fail(err)
	}
	return t.Form
}

// one is what a norm adds to its weight: nothing where 1+w is stored.
func (b *binder) one(r config.Role, layer int) float32 {
	if b.form(r, layer) == bundle.OnePlus {
		return 0
	}
	return 1
}

func (b *binder) gdn(l int) *gdn.Mixer {
	c := b.cfg
	m := &gdn.Mixer{
		Dims: gdn.Dims{Hidden: c.HiddenSize, KeyHeads: c.KeyHeads, ValueHeads: c.ValueHeads, KeyDim: c.KeyDim,
			ValueDim: c.ValueDim, Kernel: c.ConvKernel, Eps: float32(c.RMSNormEps)},
		Weights: gdn.Weights{
			QKV: b.matrix(config.InProjQKV, l, ModMixer), Z: b.matrix(config.InProjZ, l, ModMixer),
			B: b.matrix(config.InProjB, l, ModMixer), A: b.matrix(config.InProjA, l, ModMixer),
			Out:  b.matrix(config.OutProj, l, ModMixer),
			Conv: b.vector(config.Conv1D, l, ModMixer), ALog: b.vector(config.ALog, l, ModMixer),
			DtBias: b.vector(config.DtBias, l, ModMixer), Norm: b.vector(config.GatedNorm, l, ModMixer),
		},
		Layer: l, Contract: b.plan.At(l, ModMixer),
	}
	if b.form(config.ALog, l) == bundle.NegExp {
		m.Rate, m.ALog = m.ALog, nil
	}
	return m
}

func (b *binder) attention(l int, rope *attention.Rope) *attention.Mixer {
	c := b.cfg
	if q, k := b.form(config.QNorm, l), b.form(config.KNorm, l); q != k {
		b.fail(fmt.Errorf("%s: layer %d: q_norm is stored as %v and k_norm as %v, want one form", b.src.Path(), l, q, k))
	}
	return &attention.Mixer{
		Dims: attention.Dims{Hidden: c.HiddenSize, Heads: c.NumHeads, KVHeads: c.NumKVHeads, HeadDim: c.HeadDim,
			Eps: float32(c.RMSNormEps)},
		Weights: attention.Weights{
			Q: b.matrix(config.QProj, l, ModMixer), K: b.matrix(config.KProj, l, ModMixer),
			V: b.matrix(config.VProj, l, ModMixer), O: b.matrix(config.OProj, l, ModMixer),
			QNorm: b.vector(config.QNorm, l, ModMixer), KNorm: b.vector(config.KNorm, l, ModMixer),
			One: b.one(config.QNorm, l),
		},
		Rope: rope, Layer: l, Contract: b.plan.At(l, ModMixer),
	}
}

func (b *binder) mlp(l int, gate, up, down config.Role) *MLP {
	return &MLP{Gate: b.matrix(gate, l, ModMLP), Up: b.matrix(up, l, ModMLP), Down: b.matrix(down, l, ModMLP),
		Contract: b.plan.At(l, ModMLP)}
}

func (b *binder) moe(l int) *MoE {
	c, contract := b.cfg.MoE, b.plan.At(l, ModMLP)
	m := &MoE{
		Router:     b.matrix(config.Router, l, ModMLP),
		Shared:     *b.mlp(l, config.SharedGateProj, config.SharedUpProj, config.SharedDownProj),
		SharedGate: b.matrix(config.SharedExpertGate, l, ModMLP),
		Experts:    make([]MLP, c.NumExperts), TopK: c.TopK, Layer: l, Contract: contract,
	}
	H, I := b.cfg.HiddenSize, c.IntermediateSize
	for e := range m.Experts {
		gate, up, down, err := b.src.Expert(l, e)
		if err != nil {
			b.fail(fmt.Errorf("layer %d, expert %d: %w", l, e, err))
			break
		}
		m.Experts[e] = MLP{
			Gate: b.view(gate, config.ExpertsGateUp, l, ModMLP, I, H), Up: b.view(up, config.ExpertsGateUp, l, ModMLP, I, H),
			Down: b.view(down, config.ExpertsDown, l, ModMLP, H, I), Contract: contract, Routed: true,
		}
	}
	return m
}
