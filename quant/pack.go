package quant

import (
	"encoding/binary"
	"fmt"

	"sibyl/config"
	"sibyl/internal/kernels"
)

// Packed is a quantized matrix [rows, cols] with blocks along the rows, in the bytes that a quantized checkpoint stores: for engines
// whose kernels read them.
type Packed struct {
	Format     Format
	Block      int
	Q          []byte
	Scale, Min []byte // [rows, cols/Block], two bytes each, little endian; Min of U4 only
}

// Pack quantizes m as the scheme says of the role: what View computes row by row, as bytes. ok is false where the spec is not
// quantized or its blocks run along the columns; View serves those.
func (a *Assignment) Pack(layer int, r config.Role, m *kernels.Matrix) (p *Packed, ok bool, err error) {
	s := a.Spec(r, layer)
	if !s.Format.Quantized() || s.Axis != 1 {
		return nil, false, nil
	}
	if m.Format > kernels.BF16 {
		return nil, false, fmt.Errorf("%s is %v already: scheme %s cannot quantize it again", r.Name(layer), m.Format, a.Scheme.Name)
	}
	c, row := s.codec(), make([]float32, m.Cols)
	src, size := m.WithRound(c.base()), s.Format.packed(m.Cols)
	p = &Packed{Format: s.Format, Block: s.Block, Q: make([]byte, m.Rows*size)}
	for i := range m.Rows {
		src.Row(row, i)
		for j := 0; j < m.Cols; j += s.Block {
			f := c.fit(row[j : j+s.Block])
			c.quantize(row[j:j+s.Block], f)
			p.Scale = binary.LittleEndian.AppendUint16(p.Scale, f.scale)
			if c.unsigned() {
				p.Min = binary.LittleEndian.AppendUint16(p.Min, f.min)
			}
		}
		s.Format.pack(p.Q[i*size:][:size], row)
	}
	return p, true, nil
}
