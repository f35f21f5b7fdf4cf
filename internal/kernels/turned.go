package kernels

import "sibyl/precision"

// NewTurned is the matrix [rows, cols] whose transpose is stored, [cols, rows] row-major in a plain format: a weight that
// an exporter has transposed. No copy is made; reading a row touches every row that is stored.
func NewTurned(f Format, rows, cols int, data []byte, round precision.Round) (*Matrix, error) {
	stored, err := NewMatrix(f, cols, rows, data, precision.F32)
	if err != nil {
		return nil, err
	}
	return NewComputed(rows, cols, turned{stored}, round), nil
}

// turned reads columns of what is stored.
type turned struct{ stored *Matrix }

func (t turned) Row(dst []float32, i int) {
	m, size := t.stored, elemSize[t.stored.Format]
	one := Matrix{Format: m.Format, Rows: 1, Cols: 1}
	for j := range m.Rows {
		one.Data = m.Data[(j*m.Cols+i)*size:][:size]
		one.Row(dst[j:j+1], 0)
	}
}

func (t turned) Bytes() int64 { return t.stored.Bytes() }
