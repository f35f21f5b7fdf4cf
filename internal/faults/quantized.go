package faults

import (
	"fmt"
	"math"
	"strings"

	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/model"
	"sibyl/precision"
)

// blockSize is that of all named schemes.
const blockSize = 32

var quantFaults = []*Fault{
	{
		Name: "scale-per-channel", Part: Every, Partial: "that share of the rows",
		Mistake: "scales per block read as one per channel (int8): a row's first scale serves all of its blocks",
		layer: func(s *subject, l int, strength float32) error {
			return s.body(l, 127, func(m [][]float32) {
				for i, row := range m {
					if chosen(i, strength) {
						firstScale(row)
					}
				}
			})
		},
	},
	{
		Name: "nibbles-swapped", Part: Every, Partial: "that share of the rows",
		Mistake: "nibbles swapped (int4): columns 2j and 2j+1 change places",
		layer: func(s *subject, l int, strength float32) error {
			return s.body(l, 7, func(m [][]float32) {
				for i, row := range m {
					for j := 0; j < len(row) && chosen(i, strength); j += 2 {
						row[j], row[j+1] = row[j+1], row[j]
					}
				}
			})
		},
	},
	{
		Name: "head-other-flavour", Part: Whole,
		Mistake: "head quantized with the other flavour: clipping where symmetric is meant",
		Why:     "both are int8 with steps that differ by 0.4 %: a head row moves by at most its own step",
		scheme:  map[string]string{"int8hu-sym": "int8hu", "int8hu": "int8hu-sym"},
	},
}

// retold is an engine that reads another scheme than it says.
type retold struct {
	*model.Engine
	scheme string
}

// Info implements engine.Engine.
func (r *retold) Info() engine.Info {
	info := r.Engine.Info()
	info.Subject, info.Scheme = strings.Replace(info.Subject, ","+info.Scheme, ","+r.scheme, 1), r.scheme
	return info
}

// body changes the quantized linears of layer l, which must be on grids of top steps either side.
func (s *subject) body(l int, top float64, f func(rows [][]float32)) error {
	all := linears(&s.d.Layers[l])
	for _, m := range all {
		if (*m).Cols%blockSize != 0 {
			continue
		}
		if row := rowsOf(*m)[0]; !onGrid(row[:blockSize], top) {
			return bad("layer", fmt.Sprintf("weights of layer %d that are not quantized to %g steps", l, top), "a scheme of this fault's format")
		}
		edit(m, func(rows [][]float32) [][]float32 { f(rows); return rows })
	}
	return nil
}

// linears are the weights of a layer that schemes quantize, the shared expert and the router excepted.
func linears(layer *model.Layer) []**kernels.Matrix {
	var out []**kernels.Matrix
	if g := layer.GDN; g != nil {
		out = append(out, &g.QKV, &g.Z, &g.B, &g.A, &g.Out)
	} else {
		a := layer.Attention
		out = append(out, &a.Q, &a.K, &a.V, &a.O)
	}
	switch f := layer.MLP.(type) {
	case *model.MLP:
		out = append(out, &f.Gate, &f.Up, &f.Down)
	case *model.MoE:
		for e := range f.Experts {
			x := &f.Experts[e]
			out = append(out, &x.Gate, &x.Up, &x.Down)
		}
	}
	return out
}

func absMax(x []float32) float32 {
	var m float32
	for _, v := range x {
		m = max(m, v, -v)
	}
	return m
}

// onGrid says whether a dequantized block is integers times absmax/top, to fp16's rounding of both.
func onGrid(block []float32, top float64) bool {
	m := float64(absMax(block))
	for _, v := range block {
		q := float64(v) / m * top
		if math.Abs(q-math.Round(q)) > top*0x1p-9 {
			return false
		}
	}
	return true
}

// firstScale reads a dequantized int8 row again with its first block's scale. The scale is what the largest of a
// block, which is 127 steps, says it is: to one unit of fp16's last place.
func firstScale(row []float32) {
	first := absMax(row[:blockSize])
	for lo := blockSize; lo < len(row); lo += blockSize {
		block := row[lo:][:blockSize]
		if m := absMax(block); m > 0 {
			for i, v := range block {
				block[i] = precision.F16.Value(v / m * first)
			}
		}
	}
}
