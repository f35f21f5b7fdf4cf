package graph

import (
	"math"

	"sibyl/bundle/aicode"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// Arithmetic is how operations are computed: each function gives float32, which the caller rounds to the result's dtype.
// Sums, products, quotients and differences of two numbers are one IEEE operation in both, and have no entry.
type Arithmetic struct {
	Name string
	// Fused: attention whose declaration carries the scale is one operation.
	Fused bool

	Exp, Log, Sigmoid, SiLU func(float32) float32
	Rsqrt                   func(x float32, kind aicode.Kind) float32
	Sum, Mean               func(x []float32) float32
	Dot                     func(a, b []float32) float32 // of conv: products are float32 operations of their own in coreai-cpu
	Softmax                 func(x []float32, kind aicode.Kind)
	// MatMul is out[t, o] = sum_i x[t, i] * w[o, i] over rows of x. spread says that w has no batch axes and x has some.
	MatMul func(p *kernels.Pool, out, x []float32, rows int, w *kernels.Matrix, kind aicode.Kind, spread bool)
}

// Exact rounds each operation once: R32 of the exact result, whatever the order.
var Exact = &Arithmetic{
	Name: "exact", Fused: true,
	Exp: precision.ExpR32, Log: precision.LogR32, Sigmoid: precision.SigmoidR32, SiLU: precision.SiLUR32,
	Rsqrt: func(x float32, _ aicode.Kind) float32 { return precision.RsqrtR32(x) },
	Sum:   kernels.Exact.Sum, Mean: meanExact, Dot: kernels.Exact.Dot,
	Softmax: func(x []float32, _ aicode.Kind) { precision.SoftmaxR32(x) },
	MatMul: func(p *kernels.Pool, out, x []float32, rows int, w *kernels.Matrix, _ aicode.Kind, _ bool) {
		kernels.Exact.Linear(p, out, x, rows, w)
	},
}

func meanExact(x []float32) float32 {
	return precision.SumTerms(len(x), func(i int) float64 { return float64(x[i]) }, float64(len(x)))
}

// CoreAICPU is Apple's CPU runtime for Linux (coreai-core 1.0.0b3): float32 sums in order; matrix products that round every
// product and every partial sum, in fp16 always, in bf16 where the weight is spread over a batch; libm's float functions.
var CoreAICPU = &Arithmetic{
	Name: "coreai-cpu",
	Exp:  precision.ExpLibm, Log: precision.LogLibm, Sigmoid: sigmoidSteps, SiLU: siluSteps,
	Rsqrt: rsqrtSteps, Sum: kernels.CoreAICPU.Sum, Dot: kernels.CoreAICPUBF16.Dot,
	Mean: func(x []float32) float32 { return kernels.CoreAICPU.Sum(x) / float32(len(x)) },
	Softmax: func(x []float32, kind aicode.Kind) {
		if kind == aicode.F32 { // correctly rounded; the narrow ones go in float32 steps
			precision.SoftmaxR32(x)
			return
		}
		kernels.CoreAICPU.Softmax(x)
	},
	MatMul: matMulInOrder,
}

func sigmoidSteps(x float32) float32 { return 1 / (1 + precision.ExpLibm(-x)) }
func siluSteps(x float32) float32    { return x / (1 + precision.ExpLibm(-x)) }

// rsqrtSteps is 1/sqrt(x) in two roundings; in fp16 one rounding to float32 lies between.
func rsqrtSteps(x float32, kind aicode.Kind) float32 {
	if kind == aicode.F16 {
		return precision.RsqrtR32(x)
	}
	return 1 / float32(math.Sqrt(float64(x)))
}

func matMulInOrder(p *kernels.Pool, out, x []float32, rows int, w *kernels.Matrix, kind aicode.Kind, spread bool) {
	dot := dotF32
	switch {
	case kind == aicode.F16:
		kernels.CoreAICPU.Linear(p, out, x, rows, w)
		return
	case kind == aicode.BF16 && spread:
		dot = dotBF16
	}
	n := w.Cols
	p.For(w.Rows, 4*n*rows, func(lo, hi int) {
		row := make([]float32, n)
		for o := lo; o < hi; o++ {
			w.Row(row, o)
			for t := range rows {
				out[t*w.Rows+o] = dot(row, x[t*n:][:n])
			}
		}
	})
}

// dotF32 is the float32 running sum of float32 products.
func dotF32(a, b []float32) float32 {
	var s float32
	for i, x := range a {
		s += float32(x * b[i])
	}
	return s
}

// dotBF16 rounds each product and each running sum to bf16.
func dotBF16(a, b []float32) float32 {
	var s float32
	for i, x := range a {
		s = rbf(s + rbf(float32(x*b[i])))
	}
	return s
}

func rbf(x float32) float32 { return precision.BF16ToF32(precision.F32ToBF16(x)) }
