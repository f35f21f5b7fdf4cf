package faults

import (
	"math"

	"sibyl/internal/kernels"
	"sibyl/precision"
)

var numberFaults = []*Fault{
	{
		Name: "softplus-fp16", Part: GDN,
		Mistake: "softplus overflow in fp16: log(1 + exp(x)) with each step in fp16, which is Inf from x = 11.1 on",
		layer: func(s *subject, l int, _ float32) error {
			ar := s.arith(l)
			ar.Softplus, ar.Softplus3 = softplus16, softplus16
			return nil
		},
	},
	{
		Name: "flushed-denormals", Part: Whole,
		Mistake: "flushed denormals: weights, and what linears and convs give, below fp16's normal range are 0",
		decoder: flushDenormals,
	},
	{
		Name: "argmax-highest", Part: Whole,
		Mistake: "argmax taking the highest index of a tie",
		Why:     "both ids are maxima of TEST: the verdict is TIE, which is never a flip",
		around:  highestOfTie,
	},
}

func softplus16(dst, x []float32) {
	r := precision.F16.Value
	for i, v := range x {
		e := r(float32(math.Exp(float64(r(v)))))
		dst[i] = r(float32(math.Log(float64(r(1 + e)))))
	}
}

// leastNormal16 is the smallest normal number of fp16.
const leastNormal16 = 0x1p-14

func flush(x []float32) {
	for i, v := range x {
		if v < leastNormal16 && v > -leastNormal16 {
			x[i] = 0
		}
	}
}

func flushDenormals(s *subject, _ float32) error {
	sound := *s.sound
	own := sound
	flushed := map[*kernels.Matrix]*kernels.Matrix{} // a weight is copied once, when it is first met
	weight := func(w *kernels.Matrix) *kernels.Matrix {
		if flushed[w] == nil {
			own := w
			edit(&own, func(rows [][]float32) [][]float32 {
				for _, r := range rows {
					flush(r)
				}
				return rows
			})
			flushed[w] = own
		}
		return flushed[w]
	}
	own.Linear = func(p *kernels.Pool, out, x []float32, rows int, w *kernels.Matrix) {
		sound.Linear(p, out, x, rows, weight(w))
		flush(out)
	}
	own.Linears = nil
	own.Matmul = func(p *kernels.Pool, out, x []float32, rows int, w *kernels.Matrix) {
		sound.Matmul(p, out, x, rows, weight(w))
		flush(out)
	}
	own.Conv = func(y, w, x []float32) {
		sound.Conv(y, w, x)
		flush(y)
	}
	s.sound = &own
	return nil
}
