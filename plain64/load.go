package plain64

import (
	"cmp"
	"context"
	"encoding/binary"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"

	"sibyl/bundle"
	"sibyl/config"
)

const (
	// keepLimit bounds the memory of converted weights: a model whose matrices need at most this many bytes in
	// float64 is converted once, matrix by matrix at first use. A larger one is converted at every use.
	keepLimit = 1 << 30
	// pieceElems is how many numbers of a matrix are converted at a time in a model that is not kept (32 MiB).
	pieceElems = 1 << 22
)

// matrix is a stored weight [rows, cols], left where it is mapped.
type matrix struct {
	rows, cols int
	stored     bundle.Tensor
	keep       bool
	run        *running
	f64        []float64 // the whole matrix once it was used, if keep
}

// running is the pass at work: products of a large matrix take longer than who interrupts wants to wait.
type running struct{ ctx context.Context }

func (r *running) stopped() bool { return r != nil && r.ctx != nil && r.ctx.Err() != nil }

// rowsOf converts rows lo to hi.
func (m *matrix) rowsOf(lo, hi int) []float64 {
	if !m.keep {
		return widen(m.stored, lo*m.cols, hi*m.cols)
	}
	if m.f64 == nil {
		m.f64 = widen(m.stored, 0, m.rows*m.cols)
	}
	return m.f64[lo*m.cols : hi*m.cols]
}

// pieces is how many parts mul converts one after the other. They are of nearly equal size, so that gonum sums every
// row in the same order: equal rows give equal results.
func (m *matrix) pieces() int {
	if m.keep {
		return 1
	}
	return min(m.rows, (m.rows*m.cols+pieceElems-1)/pieceElems)
}

// mul gives x W^T: x [T, cols], result [T, rows]. When the pass is to stop, what it gives is not whole: who asked for the
// pass looks at its context before it uses anything.
func (m *matrix) mul(x []float64) []float64 {
	T := len(x) / m.cols
	y := make([]float64, T*m.rows)
	pieces := m.pieces()
	for p := range pieces {
		if m.run.stopped() {
			return y
		}
		lo, hi := p*m.rows/pieces, (p+1)*m.rows/pieces
		blas64.Gemm(blas.NoTrans, blas.Trans, 1,
			blas64.General{Rows: T, Cols: m.cols, Stride: m.cols, Data: x},
			blas64.General{Rows: hi - lo, Cols: m.cols, Stride: m.cols, Data: m.rowsOf(lo, hi)}, 0,
			blas64.General{Rows: T, Cols: hi - lo, Stride: m.rows, Data: y[lo:]})
	}
	return y
}

// lookup gives the rows of ids, [len(ids), cols].
func (m *matrix) lookup(ids []int32) []float64 {
	x := make([]float64, 0, len(ids)*m.cols)
	for _, id := range ids {
		x = append(x, widen(m.stored, int(id)*m.cols, (int(id)+1)*m.cols)...)
	}
	return x
}

// widen gives elements lo to hi of a tensor of F32, F16 or BF16, or of a quantized one. Every one of their values is
// exact in float64.
func widen(t bundle.Tensor, lo, hi int) []float64 {
	if t.Quant != nil {
		return dequantize(t, lo, hi)
	}
	x := make([]float64, hi-lo)
	switch t.DType {
	case bundle.F32:
		for i := range x {
			x[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*(lo+i):])))
		}
	case bundle.BF16: // the upper half of a float32
		for i := range x {
			x[i] = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*(lo+i):])) << 16))
		}
	case bundle.F16:
		for i := range x {
			x[i] = halfToFloat(binary.LittleEndian.Uint16(t.Data[2*(lo+i):]))
		}
	}
	return x
}

// loader binds tensors to the decoder's fields. bundle has checked their names, shapes, types and bytes when it opened
// the checkpoint. The first error sticks.
type loader struct {
	ck    *bundle.Checkpoint
	layer int
	all   []*matrix
	err   error
}

// load binds every weight of ck. Vectors are converted now, matrices at their use.
func load(ck *bundle.Checkpoint) (*decoder, error) {
	c := ck.Config()
	ld := &loader{ck: ck}
	d := &decoder{cfg: c, invFreq: inverseFrequencies(c.RopeTheta, c.RotaryDim)}
	d.embed, d.head, d.norm = ld.matrix(config.Embed), ld.matrix(config.Head), ld.vector(config.FinalNorm)
	for l, kind := range c.Layers {
		ld.layer = l
		d.layers = append(d.layers, ld.bind(c, kind))
	}
	keep(ld.all)
	for _, m := range ld.all {
		m.run = &d.run
	}
	return d, ld.err
}

// keep decides whether the converted matrices fit.
func keep(all []*matrix) {
	bytes := 0
	for _, m := range all {
		bytes += 8 * m.rows * m.cols
	}
	for _, m := range all {
		m.keep = bytes <= keepLimit
	}
}

func (ld *loader) bind(c *config.Config, kind config.LayerKind) layer {
	w := layer{inputNorm: ld.vector(config.InputNorm), postAttnNorm: ld.vector(config.PostAttnNorm)}
	if kind == config.GatedDeltaNet {
		w.gdn = &gdn{
			inProjQKV: ld.matrix(config.InProjQKV), inProjZ: ld.matrix(config.InProjZ),
			inProjB: ld.matrix(config.InProjB), inProjA: ld.matrix(config.InProjA),
			conv: ld.vector(config.Conv1D), aLog: ld.vector(config.ALog), dtBias: ld.vector(config.DtBias),
			norm: ld.vector(config.GatedNorm), outProj: ld.matrix(config.OutProj),
		}
	} else {
		w.attn = &attn{
			qProj: ld.matrix(config.QProj), kProj: ld.matrix(config.KProj), vProj: ld.matrix(config.VProj),
			qNorm: ld.vector(config.QNorm), kNorm: ld.vector(config.KNorm), oProj: ld.matrix(config.OProj),
		}
	}
	if c.MoE == nil {
		w.mlp = &mlp{ld.matrix(config.GateProj), ld.matrix(config.UpProj), ld.matrix(config.DownProj)}
		return w
	}
	w.moe = &moe{
		router:     ld.matrix(config.Router),
		shared:     mlp{ld.matrix(config.SharedGateProj), ld.matrix(config.SharedUpProj), ld.matrix(config.SharedDownProj)},
		sharedGate: ld.matrix(config.SharedExpertGate),
	}
	for e := range c.MoE.NumExperts {
		gate, up, down, err := ld.ck.Expert(ld.layer, e)
		w.moe.experts = append(w.moe.experts, mlp{ld.take(gate, err), ld.take(up, err), ld.take(down, err)})
	}
	return w
}

func (ld *loader) matrix(r config.Role) *matrix { return ld.take(ld.ck.Tensor(r, ld.layer)) }

func (ld *loader) vector(r config.Role) []float64 {
	t, err := ld.ck.Tensor(r, ld.layer)
	ld.err = cmp.Or(ld.err, err)
	return widen(t, 0, t.Elements())
}

func (ld *loader) take(t bundle.Tensor, err error) *matrix {
	if ld.err = cmp.Or(ld.err, err); ld.err != nil {
		return nil
	}
	m := &matrix{rows: t.Shape[0], cols: t.Shape[1], stored: t}
	ld.all = append(ld.all, m)
	return m
}
