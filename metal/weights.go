package metal

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
	"sibyl/metal/gpu"
	"sibyl/metal/ops"
	"sibyl/precision"
	"sibyl/quant"
)

// loader puts a checkpoint's weights on the device. Matrices stay where they are mapped wherever the kernels read their format and
// alignment; what must be copied or made is counted as a fallback and shown.
type loader struct {
	src    bundle.Source
	mem    *memory
	scheme *quant.Assignment // nil: as stored
	plan   *plan
	counts map[string]int64
	err    error
}

// What may be counted.
const (
	copiedWeights = "weights copied: not at a multiple of an element's size"
	copiedDevice  = "weights copied: the device cannot wrap them"
	remadeWeights = "weights copied row by row: no kernel for how they are stored"
	copiedBytes   = "bytes of weights copied"
	apartSwiglu   = "gate and up apart: their formats differ"
	copiedExperts = "experts copied: not one matrix in the file"
)

var plainFormats = map[bundle.DType]kernels.Format{
	"F32": kernels.F32, "F16": kernels.F16, "BF16": kernels.BF16, "I8": kernels.I8Block, "I4": kernels.I4Block, "U4": kernels.U4Minval,
}

// view reads a tensor as a matrix under the contract's rounding of weights.
func view(t bundle.Tensor, rows, cols int, round precision.Round) (m *kernels.Matrix, err error) {
	if t.Form != bundle.AsIs {
		round = precision.F32 // what was folded is no weight any more
	}
	if t.Parts != nil {
		var parts []*kernels.Matrix
		for _, part := range t.Parts {
			p, err := view(part, part.Shape[0], part.Shape[1], precision.F32)
			if err != nil {
				return nil, err
			}
			parts = append(parts, p)
		}
		return kernels.NewStacked(parts, round)
	}
	f, ok := plainFormats[t.DType]
	if !ok {
		return nil, fmt.Errorf("%s: tensor %s has dtype %s, which no kernel reads", t.File, t.Name, t.DType)
	}
	if q := t.Quant; q != nil {
		m, err = kernels.NewQuantized(f, rows, cols, t.Data, kernels.Blocks{Size: q.Block, Axis: q.Axis, Scale: q.Scale, Min: q.Min}, round)
	} else if t.Turned {
		m, err = kernels.NewTurned(f, rows, cols, t.Data, round)
	} else {
		m, err = kernels.NewMatrix(f, rows, cols, t.Data, round)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: tensor %s: %w", t.File, t.Name, err)
	}
	return m, nil
}

// host is a matrix still on the host: its bytes as the device will read them.
type host struct {
	format        ops.Format
	rows, cols    int
	round         precision.Round
	q, scale, min []byte
	mapped        bool // q lies in a mapped file
}

// prepare gives a tensor's matrix as the scheme and the contract leave it.
func (ld *loader) prepare(t bundle.Tensor, r config.Role, layer, rows, cols int, c *precision.Contract) (*host, error) {
	m, err := view(t, rows, cols, c.Weights)
	if err != nil {
		return nil, err
	}
	if ld.scheme != nil && t.Form == bundle.AsIs {
		p, ok, err := ld.scheme.Pack(max(layer, 0), r, m)
		if err != nil {
			return nil, err
		}
		if ok && p.Block == ops.Block {
			f := map[quant.Format]ops.Format{quant.Int8: ops.I8, quant.Int4: ops.I4, quant.U4: ops.U4}[p.Format]
			return &host{format: f, rows: rows, cols: cols, round: m.Asked, q: p.Q, scale: p.Scale, min: p.Min}, nil
		}
		if m, err = ld.scheme.View(max(layer, 0), r, m); err != nil {
			return nil, err
		}
	}
	switch {
	case m.Format <= kernels.BF16:
		return &host{format: ops.Format(m.Format), rows: rows, cols: cols, round: m.Round, q: m.Data, mapped: true}, nil
	case m.Format < kernels.Computed && m.Blocks.Axis == 1 && m.Blocks.Size == ops.Block:
		f := map[kernels.Format]ops.Format{kernels.I8Block: ops.I8, kernels.I4Block: ops.I4, kernels.U4Minval: ops.U4}[m.Format]
		return &host{format: f, rows: rows, cols: cols, round: m.Round, q: m.Data, scale: m.Blocks.Scale, min: m.Blocks.Min, mapped: true}, nil
	}
	ld.counts[remadeWeights]++
	h := remake(m, brainFirst(t))
	ld.counts[copiedBytes] += int64(len(h.q))
	return h, nil
}

// brainFirst says whether a tensor's values lie on bf16's grid rather than on fp16's.
func brainFirst(t bundle.Tensor) bool {
	if len(t.Parts) > 0 {
		return brainFirst(t.Parts[0])
	}
	return t.DType == "BF16" || t.DType == "U4"
}

// remake reads every row once and keeps the values in two bytes each if those hold every one: fp16 or, first or second, bf16. So what was
// stored in it in another order stays as large as it was, and what a scale makes on its grid is no float32.
func remake(m *kernels.Matrix, brain bool) *host {
	row := make([]float32, m.Cols)
	forms := []ops.Format{ops.F16, ops.BF16}
	if brain {
		slices.Reverse(forms)
	}
	pack := map[ops.Format]func(float32) uint16{ops.F16: precision.F32ToF16, ops.BF16: precision.F32ToBF16}
	unpack := map[ops.Format]func(uint16) float32{ops.F16: precision.F16ToF32, ops.BF16: precision.BF16ToF32}
	for _, f := range forms {
		data, to, from, exact := make([]byte, 0, 2*m.Rows*m.Cols), pack[f], unpack[f], true
		for i := 0; i < m.Rows && exact; i++ {
			m.Row(row, i)
			for _, v := range row {
				x := to(v)
				exact = exact && math.Float32bits(from(x)) == math.Float32bits(v) // bits: -0 is a value of its own
				data = binary.LittleEndian.AppendUint16(data, x)
			}
		}
		if exact {
			return &host{format: f, rows: m.Rows, cols: m.Cols, q: data}
		}
	}
	data := make([]byte, 0, 4*m.Rows*m.Cols)
	for i := range m.Rows {
		m.Row(row, i)
		for _, v := range row {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
	}
	return &host{format: ops.F32, rows: m.Rows, cols: m.Cols, q: data}
}

// upload makes the device's weight.
func (ld *loader) upload(h *host) (*ops.Weight, error) {
	w := &ops.Weight{Format: h.format, Rows: h.rows, Cols: h.cols, Round: h.round}
	for _, p := range []struct {
		to    *gpu.Slice
		from  []byte
		align int
	}{{&w.Q, h.q, h.format.Align()}, {&w.Scale, h.scale, 2}, {&w.Min, h.min, 2}} {
		if len(p.from) == 0 {
			continue
		}
		s, err := ld.place(p.from, h.mapped, p.align)
		if err != nil {
			return nil, err
		}
		*p.to = s
	}
	return w, nil
}

// place puts bytes on the device, without a copy where they are mapped at a multiple of align.
func (ld *loader) place(b []byte, mapped bool, align int) (gpu.Slice, error) {
	if !mapped {
		return ld.mem.copied(b)
	}
	if uintptr(unsafe.Pointer(&b[0]))%uintptr(align) == 0 {
		s, whole, failed := ld.mem.wrap(b)
		if whole != nil || failed == nil {
			return s, whole
		}
		ld.counts[copiedDevice]++
	} else {
		ld.counts[copiedWeights]++
	}
	ld.counts[copiedBytes] += int64(len(b))
	return ld.mem.copied(b)
}

// matrix binds a role's tensor. The first error sticks.
func (ld *loader) matrix(r config.Role, layer int, part precision.Part) *ops.Weight {
	if ld.err != nil {
		return nil
	}
	t, err := ld.src.Tensor(r, max(layer, 0))
	if err == nil {
		shape := r.Shape(ld.src.Config())
		var h *host
		if h, err = ld.prepare(t, r, layer, shape[0], shape[len(shape)-1], ld.plan.contract(layer, part)); err == nil {
			var w *ops.Weight
			if w, err = ld.upload(h); err == nil {
				return w
			}
		}
	}
	ld.err = err
	return nil
}

// form is how a role's tensor is stored.
func (ld *loader) form(r config.Role, layer int) bundle.Form {
	if ld.err != nil {
		return bundle.AsIs
	}
	t, err := ld.src.Tensor(r, max(layer, 0))
	ld.err = err
	return t.Form
}

// vector reads a small tensor as float32.
func (ld *loader) vector(r config.Role, layer int, part precision.Part) []float32 {
	if ld.err != nil {
		return nil
	}
	t, err := ld.src.Tensor(r, max(layer, 0))
	var m *kernels.Matrix
	if err == nil {
		n := t.Elements()
		if m, err = view(t, 1, n, ld.plan.contract(layer, part).Weights); err == nil && ld.scheme != nil && t.Form == bundle.AsIs {
			m, err = ld.scheme.View(max(layer, 0), r, m)
		}
	}
	if err != nil {
		ld.err = err
		return nil
	}
	return m.Floats()
}

// resident is a vector on the device.
func (ld *loader) resident(x []float32) gpu.Slice {
	if ld.err != nil {
		return gpu.Slice{}
	}
	var s gpu.Slice
	s, ld.err = ld.mem.floats(x)
	return s
}

// experts binds a projection of all experts as one matrix: a view of the file where they lie there at equal distances, else a copy.
// which is 0 gate, 1 up, 2 down.
func (ld *loader) experts(layer, which int) *ops.Experts {
	if ld.err != nil {
		return nil
	}
	cfg := ld.src.Config()
	rows, cols, role := cfg.MoE.IntermediateSize, cfg.HiddenSize, config.ExpertsGateUp
	if which == 2 {
		rows, cols, role = cols, rows, config.ExpertsDown
	}
	parts := make([]*host, cfg.MoE.NumExperts)
	for e := range parts {
		gate, up, down, err := ld.src.Expert(layer, e)
		if err == nil {
			parts[e], err = ld.prepare([]bundle.Tensor{gate, up, down}[which], role, layer, rows, cols, ld.plan.contract(layer, precision.PartMoE))
		}
		if err != nil {
			ld.err = err
			return nil
		}
	}
	for e, p := range parts {
		if p.format != parts[0].format {
			ld.err = &inputerr.Error{File: fmt.Sprintf("layer %d", layer), Field: fmt.Sprintf("expert %d", e), Found: p.format.String(),
				Want: fmt.Sprintf("%s, as expert 0 has: one kernel reads all experts of a layer", parts[0].format), Do: "use engine cpu"}
			return nil
		}
	}
	h, stride := ld.joined(parts)
	w, err := ld.upload(h)
	if err != nil {
		ld.err = err
		return nil
	}
	w.Rows = rows
	return &ops.Experts{Weight: *w, Stride: stride}
}

// joined makes one matrix of the experts', and the distance between two of them in rows.
func (ld *loader) joined(parts []*host) (*host, int) {
	all := *parts[0]
	rowBytes := all.cols * all.format.Bits() / 8
	stride, even := all.rows, parts[0].mapped && !all.format.Quantized()
	if even && len(parts) > 1 {
		step := int(uintptr(unsafe.Pointer(&parts[1].q[0])) - uintptr(unsafe.Pointer(&parts[0].q[0])))
		even = step > 0 && step%rowBytes == 0
		for e := range parts {
			even = even && uintptr(unsafe.Pointer(&parts[e].q[0])) == uintptr(unsafe.Pointer(&parts[0].q[0]))+uintptr(e*step)
		}
		stride = step / rowBytes
	}
	all.rows = (len(parts)-1)*stride + all.rows
	if even {
		// One mapping holds them all: the pieces were found at equal distances in it, in order.
		all.q = unsafe.Slice(&parts[0].q[0], all.rows*rowBytes)
		return &all, stride
	}
	for _, p := range parts {
		if p.mapped {
			ld.counts[copiedBytes] += int64(len(p.q) + len(p.scale) + len(p.min))
		}
	}
	if parts[0].mapped {
		ld.counts[copiedExperts]++
	}
	all.rows, all.mapped = len(parts)*parts[0].rows, false
	all.q, all.scale, all.min = nil, nil, nil
	for _, p := range parts {
		all.q, all.scale, all.min = append(all.q, p.q...), append(all.scale, p.scale...), append(all.min, p.min...)
	}
	return &all, parts[0].rows
}
