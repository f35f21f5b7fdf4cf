package metal

import (
	"math"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/metal/gpu"
	"sibyl/metal/ops"
	"sibyl/precision"
	"sibyl/quant"
)

// decoder is a model bound to a device: weights, and the sizes its kernels are told.
type decoder struct {
	cfg    *config.Config
	plan   *plan
	set    *ops.Set
	mem    *memory
	counts map[string]int64

	embed, head *ops.Weight
	layers      []layer
	finalNorm   norm
	invFreq     []float32 // [rot/2]
	axis        []uint8   // [rot/2]: which position a frequency takes, 0 T, 1 H, 2 W
}

// norm is an RMSNorm's gain one + w: one is 0 where a bundle stores 1+w.
type norm struct {
	w     gpu.Slice
	one   float32
	round precision.Round
}

type layer struct {
	input, post norm
	gdn         *gdn
	attn        *attn
	mlp         *mlp
	moe         *moe
	mixerAdd    precision.Round // x + mixer
	mlpAdd      precision.Round // h + mlp
}

type gdn struct {
	qkv, z, b, a, out        *ops.Weight
	conv, rate, dtBias, norm gpu.Slice
	c                        *precision.Contract
}

type attn struct {
	q, k, v, o   *ops.Weight
	qNorm, kNorm norm
	c            *precision.Contract
}

type mlp struct {
	gate, up, down *ops.Weight
	c              *precision.Contract
}

type moe struct {
	router, sharedGate *ops.Weight
	gate, up, down     *ops.Experts
	shared             mlp
	c                  *precision.Contract
}

// bind puts a checkpoint or a bundle on a device. What a bundle's exporter folded (1+w, -exp(A_log), the rope's frequencies) is used as
// it is stored.
func bind(src bundle.Source, p *plan, scheme *quant.Assignment, set *ops.Set, mem *memory) (*decoder, error) {
	cfg := src.Config()
	ld := &loader{src: src, mem: mem, scheme: scheme, plan: p, counts: map[string]int64{}}
	d := &decoder{cfg: cfg, plan: p, set: set, mem: mem, counts: ld.counts}
	d.embed = ld.matrix(config.Embed, -1, precision.PartEmbed)
	tied := cfg.TieWordEmbeddings && (scheme == nil || !scheme.HeadUntied) &&
		p.contract(-1, precision.PartEmbed).Weights == p.contract(-1, precision.PartHead).Weights
	if d.head = d.embed; !tied {
		d.head = ld.matrix(config.Head, -1, precision.PartHead)
	}
	d.finalNorm = ld.norm(config.FinalNorm, -1, precision.PartFinalNorm)
	d.rope(src.InvFreq())
	for l, kind := range cfg.Layers {
		mixer, ffn := p.contract(l, mixerPart(kind)), p.contract(l, mlpPart(cfg))
		w := layer{input: ld.norm(config.InputNorm, l, precision.PartInputNorm), post: ld.norm(config.PostAttnNorm, l, precision.PartPostAttnNorm),
			mixerAdd: mixer.At[precision.Residual], mlpAdd: ffn.At[precision.Residual]}
		if kind == config.GatedDeltaNet {
			w.gdn = ld.gdn(l)
		} else {
			w.attn = ld.attn(l)
		}
		if cfg.MoE != nil {
			w.moe = ld.moe(l)
		} else {
			w.mlp = ld.mlp(l, precision.PartMLP, config.GateProj, config.UpProj, config.DownProj)
		}
		d.layers = append(d.layers, w)
	}
	return d, ld.err
}

// rope computes the frequencies and, for interleaved mRoPE, which axis each takes. Source: DESIGN section 2; transformers 5.23,
// Qwen3_5TextRotaryEmbedding.apply_interleaved_mrope.
func (d *decoder) rope(stored []float32) {
	c := d.cfg
	if d.invFreq = stored; stored == nil {
		d.invFreq = precision.InvFreq(c.RopeTheta, c.RotaryDim)
	}
	d.axis = make([]uint8, len(d.invFreq))
	for j := range d.axis {
		for axis := 1; axis <= 2; axis++ {
			if j%3 == axis && j < 3*c.MRopeSection[axis] {
				d.axis[j] = uint8(axis)
			}
		}
	}
}

func (ld *loader) norm(r config.Role, l int, part precision.Part) norm {
	one := float32(1)
	if ld.form(r, l) == bundle.OnePlus {
		one = 0
	}
	return norm{ld.resident(ld.vector(r, l, part)), one, ld.plan.contract(l, part).At[precision.Norm]}
}

func (ld *loader) gdn(l int) *gdn {
	const part = precision.PartLinearAttn
	rate, folded := ld.vector(config.ALog, l, part), ld.form(config.ALog, l) == bundle.NegExp
	for h, v := range rate { // a constant of the weights, one rounding
		if rate[h] = precision.ExpR32(v); folded {
			rate[h] = -v
		}
	}
	return &gdn{
		qkv: ld.matrix(config.InProjQKV, l, part), z: ld.matrix(config.InProjZ, l, part),
		b: ld.matrix(config.InProjB, l, part), a: ld.matrix(config.InProjA, l, part), out: ld.matrix(config.OutProj, l, part),
		conv: ld.resident(ld.vector(config.Conv1D, l, part)), rate: ld.resident(rate),
		dtBias: ld.resident(ld.vector(config.DtBias, l, part)), norm: ld.resident(ld.vector(config.GatedNorm, l, part)),
		c: ld.plan.contract(l, part),
	}
}

func (ld *loader) attn(l int) *attn {
	const part = precision.PartSelfAttn
	return &attn{
		q: ld.matrix(config.QProj, l, part), k: ld.matrix(config.KProj, l, part), v: ld.matrix(config.VProj, l, part), o: ld.matrix(config.OProj, l, part),
		qNorm: ld.norm(config.QNorm, l, part), kNorm: ld.norm(config.KNorm, l, part), c: ld.plan.contract(l, part),
	}
}

func (ld *loader) mlp(l int, part precision.Part, gate, up, down config.Role) *mlp {
	m := &mlp{gate: ld.matrix(gate, l, part), up: ld.matrix(up, l, part), down: ld.matrix(down, l, part), c: ld.plan.contract(l, part)}
	if ld.err == nil && !m.fused() {
		ld.counts[apartSwiglu]++
	}
	return m
}

// fused says whether gate and up are of one kernel.
func (m *mlp) fused() bool { return m.gate.Format == m.up.Format && m.gate.Round == m.up.Round }

func (ld *loader) moe(l int) *moe {
	const part = precision.PartMoE
	return &moe{
		router: ld.matrix(config.Router, l, part), sharedGate: ld.matrix(config.SharedExpertGate, l, part),
		gate: ld.experts(l, 0), up: ld.experts(l, 1), down: ld.experts(l, 2),
		shared: *ld.mlp(l, part, config.SharedGateProj, config.SharedUpProj, config.SharedDownProj), c: ld.plan.contract(l, part),
	}
}

// headScale is hd^-0.5 as the contract holds it.
func headScale(hd int, c *precision.Contract) float32 {
	return c.ScaleRound.Value(float32(1 / math.Sqrt(float64(hd))))
}

func mlpRounds(c *precision.Contract) ops.MLPRounds {
	return ops.MLPRounds{Linear: c.At[precision.Linear], Silu: c.At[precision.MLPSilu], Mul: c.At[precision.MLPMul]}
}
