package model

import (
	"encoding/binary"
	"fmt"
	"math"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// Module is a part of the decoder that may have a contract and a weight format of its own.
type Module uint8

// The modules, in the order of the math.
const (
	ModEmbed Module = iota
	ModInputNorm
	ModMixer
	ModPostAttnNorm
	ModMLP
	ModFinalNorm
	ModHead
)

// String is the module's name in globs.
func (m Module) String() string {
	return [...]string{"embed", "input_norm", "mixer", "post_attn_norm", "mlp", "final_norm", "head"}[m]
}

// Place is one module of one layer; Layer is -1 for the embedding, the final norm and the head.
type Place struct {
	Layer  int
	Module Module
}

// Plan says which contract and which weight format every module of every layer gets. It is what bisect edits: a
// Decoder is bound under a plan and asks for nothing else.
type Plan struct {
	Contract  *precision.Contract           // where Contracts has no entry
	Contracts map[Place]*precision.Contract // exceptions
	// View, if not nil, replaces how a stored tensor is read: a scheme's seam. It gets the place, the role and the
	// view under the place's contract.
	View func(p Place, r config.Role, m *kernels.Matrix) (*kernels.Matrix, error)

	chosen *precision.Custom // where UseContract took the contracts from
	scheme string            // what output calls the scheme behind View
	// Keep says to keep in memory, as float32, what would be rounded or quantized anew at every reading: the same
	// values, for models so small that memory is cheaper than time.
	Keep bool
}

// At gives the contract of a place.
func (p *Plan) At(layer int, m Module) *precision.Contract {
	if c, ok := p.Contracts[Place{layer, m}]; ok {
		return c
	}
	return p.Contract
}

// formats maps stored dtypes to kernel formats.
var formats = map[bundle.DType]kernels.Format{
	"F32": kernels.F32, "F16": kernels.F16, "BF16": kernels.BF16,
	"I8": kernels.I8Block, "I4": kernels.I4Block, "U4": kernels.U4Minval,
}

// view makes a tensor [rows, cols] readable under the plan. Vectors are [1, n].
func (p *Plan) view(at Place, r config.Role, t bundle.Tensor, rows, cols int) (*kernels.Matrix, error) {
	round := p.At(at.Layer, at.Module).Weights
	if t.Form != bundle.AsIs {
		round = precision.F32 // what was folded is no weight any more: neither a contract nor a scheme rounds it
	}
	m, err := matrixOf(t, rows, cols, round)
	if err != nil {
		return nil, fmt.Errorf("%s: tensor %s: %w", t.File, t.Name, err)
	}
	if p.View != nil && t.Form == bundle.AsIs {
		if m, err = p.View(at, r, m); err != nil {
			return nil, err
		}
	}
	if p.Keep && (m.Format == kernels.Computed || m.Round != precision.F32) {
		return kept(m)
	}
	return m, nil
}

// matrixOf is a tensor as a kernel reads it.
func matrixOf(t bundle.Tensor, rows, cols int, round precision.Round) (*kernels.Matrix, error) {
	if t.Parts != nil {
		var parts []*kernels.Matrix
		for _, part := range t.Parts {
			m, err := matrixOf(part, part.Shape[0], part.Shape[1], precision.F32)
			if err != nil {
				return nil, err
			}
			parts = append(parts, m)
		}
		return kernels.NewStacked(parts, round)
	}
	f, ok := formats[t.DType]
	if !ok {
		return nil, fmt.Errorf("has dtype %s, which no kernel reads", t.DType)
	}
	if q := t.Quant; q != nil {
		return kernels.NewQuantized(f, rows, cols, t.Data, kernels.Blocks{Size: q.Block, Axis: q.Axis, Scale: q.Scale, Min: q.Min}, round)
	}
	if t.Turned {
		return kernels.NewTurned(f, rows, cols, t.Data, round)
	}
	return kernels.NewMatrix(f, rows, cols, t.Data, round)
}

// keepBytes: models stored in at most this much may be kept as Plan.Keep says, in twice of it.
const keepBytes = 32 << 20

// kept is m with every row read once.
func kept(m *kernels.Matrix) (*kernels.Matrix, error) {
	data, row := make([]byte, 0, 4*m.Rows*m.Cols), make([]float32, m.Cols)
	for i := range m.Rows {
		m.Row(row, i)
		for _, v := range row {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
	}
	return kernels.NewMatrix(kernels.F32, m.Rows, m.Cols, data, precision.F32)
}
