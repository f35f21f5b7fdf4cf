package quant

import (
	"fmt"
	"sync/atomic"

	"sibyl/config"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// View gives a stored weight as the scheme would leave it, without a copy: rows are quantized and dequantized when
// they are read, and are the very values that reading a quantized checkpoint gives. It is what model.Plan.View asks:
// m is the stored tensor (an expert's projection under its packed role) under its contract's rounding, which is
// applied last. A weight that is quantized already is an error.
func (a *Assignment) View(layer int, r config.Role, m *kernels.Matrix) (*kernels.Matrix, error) {
	if m.Format > kernels.BF16 {
		return nil, fmt.Errorf("%s is %v already: scheme %s cannot quantize it again", r.Name(layer), m.Format, a.Scheme.Name)
	}
	return a.Spec(r, layer).view(m)
}

// view is View of one spec.
func (s Spec) view(m *kernels.Matrix) (*kernels.Matrix, error) {
	if !s.Format.Quantized() {
		return rounded(m, formatTable[s.Format].round), nil
	}
	if n := [2]int{m.Rows, m.Cols}[s.Axis]; s.Block <= 0 || n%s.Block != 0 {
		return nil, fmt.Errorf("blocks of %d do not divide %d", s.Block, n)
	}
	c := s.codec()
	src := m.WithRound(c.base())
	var from kernels.Rows
	if s.Axis == 1 {
		from = &alongRow{src, c, s.Block}
	} else {
		from = &alongColumn{src, c, s.Block, make([]atomic.Pointer[[]fit], m.Rows/s.Block)}
	}
	return kernels.NewComputed(m.Rows, m.Cols, from, m.Asked), nil
}

// rounded is m on the grid base, and then under the contract's rounding: two roundings only where they differ.
func rounded(m *kernels.Matrix, base precision.Round) *kernels.Matrix {
	on := m.WithRound(base)
	switch {
	case on.Round == precision.F32 || m.Asked == base: // stored on the grid, or going there anyway
		return m
	case m.Asked == precision.F32:
		return on
	}
	return kernels.NewComputed(m.Rows, m.Cols, plain{on}, m.Asked)
}

// plain passes rows on.
type plain struct{ src *kernels.Matrix }

func (p plain) Row(dst []float32, i int) { p.src.Row(dst, i) }
func (p plain) Bytes() int64             { return p.src.Bytes() }

// alongRow quantizes rows whose blocks lie within them.
type alongRow struct {
	src   *kernels.Matrix
	c     codec
	block int
}

func (v *alongRow) Bytes() int64 { return v.src.Bytes() }

func (v *alongRow) Row(dst []float32, i int) {
	v.src.Row(dst, i)
	for ; len(dst) > 0; dst = dst[v.block:] {
		w := dst[:v.block]
		f := v.c.fit(w)
		v.c.quantize(w, f)
		v.c.dequantize(w, f)
	}
}

// alongColumn quantizes matrices whose blocks span rows. The fits of a band of rows are computed when one of them is
// first read and kept: 4 bytes a block.
type alongColumn struct {
	src   *kernels.Matrix
	c     codec
	block int
	fits  []atomic.Pointer[[]fit] // a band of rows each, [Cols]
}

func (v *alongColumn) Bytes() int64 { return v.src.Bytes() }

func (v *alongColumn) Row(dst []float32, i int) {
	band := i / v.block
	fits := v.fits[band].Load()
	if fits == nil { // two goroutines may both compute it: the same bits
		n := v.src.Cols
		w := make([]float32, v.block*n)
		for k := range v.block {
			v.src.Row(w[k*n:], band*v.block+k)
		}
		made := fitColumns(v.c, w, n)
		fits = &made
		v.fits[band].Store(fits)
	}
	v.src.Row(dst, i)
	for j, f := range *fits {
		v.c.quantize(dst[j:j+1], f)
		v.c.dequantize(dst[j:j+1], f)
	}
}

// fitColumns gives the fit of each of n columns of w [rows, n].
func fitColumns(c codec, w []float32, n int) []fit {
	fits, col := make([]fit, n), make([]float32, len(w)/n)
	for j := range fits {
		for k := range col {
			col[k] = w[k*n+j]
		}
		fits[j] = c.fit(col)
	}
	return fits
}
