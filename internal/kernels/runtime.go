package kernels

import (
	"math"

	"sibyl/precision"
)

// CoreAICPU is the arithmetic of coreai-core's CPU runtime for Linux, which its contract (precision's coreai-cpu) is
// defined by: fp16 matrix products round every product and every running sum to fp16, k ascending; float32 sums run
// in order; rsqrt, sigmoid, silu and softmax are float32 steps. Source: formats/aimodel.md, "Executing on Linux",
// and its executable specification, which gives that runtime's bits.
var CoreAICPU = &Arith{
	Name: "coreai-cpu", Linear: linear16, Matmul: linear16, Dot: dot16, Conv: convInOrder, Sum: sumInOrder, WeightedRows: weightedRows16,
	InvRMS: invRMSSteps, Rsqrt: precision.RsqrtR32,
	Exp: each(precision.ExpLibm), Sigmoid: each(sigmoidSteps), SiLU: each(siluSteps),
	Softplus: each(softplusSteps), Softplus3: each(softplusSteps), Rate: each(precision.ExpR32),
	Softmax: softmaxSteps, RouterSoftmax: precision.SoftmaxR32, DeltaStep: deltaStepInOrder,
}

// CoreAICPUBF16 is the same runtime's arithmetic on a bf16 graph (contract coreai-cpu-bf16). A product that broadcasts one
// weight over a batch rounds every product and every running sum to bf16; one of operands with equal batch dimensions
// (out_proj, o_proj, q.k, weights.v, routed experts) sums in float32 and is rounded once, by the contract. k ascends in
// both. exp(A_log) is computed, not held. Source: formats/apple-q35.md, "The Linux runtime in bf16", and its executable
// specification, which gives that runtime's bits.
var CoreAICPUBF16 = &Arith{
	Name: "coreai-cpu-bf16", Linear: linearBF16, Matmul: linearInOrder, Dot: dotInOrder, Conv: convInOrder, Sum: sumInOrder,
	WeightedRows: weightedRowsInOrder, InvRMS: invRMSSteps, Rsqrt: rsqrtSteps,
	Exp: each(precision.ExpLibm), Sigmoid: each(sigmoidSteps), SiLU: each(siluSteps),
	Softplus: each(softplusSteps), Softplus3: each(softplusSteps), Rate: each(precision.ExpLibm),
	Softmax: softmaxSteps, RouterSoftmax: precision.SoftmaxR32, DeltaStep: deltaStepInOrder,
}

func r16(x float32) float32 { return precision.F16ToF32(precision.F32ToF16(x)) }

// dot16 rounds each product and each running sum to fp16. A float32 holds the sum of two fp16 within one rounding, and
// float32 then fp16 rounds as once: 24 bits are more than 2*11+2.
func dot16(a, b []float32) float32 {
	var s float32
	for i, x := range a {
		s = r16(s + r16(x*b[i]))
	}
	return s
}

// rb is B: the nearest bf16, ties to even.
func rb(x float32) float32 { return precision.BF16ToF32(precision.F32ToBF16(x)) }

// dotBF16Steps rounds each product and each running sum to bf16; as in dot16, float32 then bf16 rounds as once.
func dotBF16Steps(a, b []float32) float32 {
	var s float32
	for i, x := range a {
		s = rb(s + rb(x*b[i]))
	}
	return s
}

// dotInOrder is the float32 running sum of float32 products.
func dotInOrder(a, b []float32) float32 {
	var s float32
	for i, x := range a {
		s += float32(x * b[i])
	}
	return s
}

func convInOrder(out, w, x []float32) { convBy(dotInOrder, out, w, x) }

func linear16(p *Pool, out, x []float32, rows int, w *Matrix) { linearBy(dot16, p, out, x, rows, w) }
func linearBF16(p *Pool, out, x []float32, rows int, w *Matrix) {
	linearBy(dotBF16Steps, p, out, x, rows, w)
}
func linearInOrder(p *Pool, out, x []float32, rows int, w *Matrix) {
	linearBy(dotInOrder, p, out, x, rows, w)
}

// linearBy is Linear with every sum made by dot.
func linearBy(dot func(a, b []float32) float32, p *Pool, out, x []float32, rows int, w *Matrix) {
	n, N := w.Cols, w.Rows
	p.For(N, 8*n*rows, func(lo, hi int) {
		row := make([]float32, n)
		for o := lo; o < hi; o++ {
			w.Row(row, o)
			for t := range rows {
				out[t*N+o] = dot(row, x[t*n:][:n])
			}
		}
	})
}

func weightedRows16(out, w, v []float32, stride int) {
	clear(out)
	for j, a := range w {
		for d, x := range v[j*stride:][:len(out)] {
			out[d] = r16(out[d] + r16(a*x))
		}
	}
}

func weightedRowsInOrder(out, w, v []float32, stride int) {
	clear(out)
	for j, a := range w {
		for d, x := range v[j*stride:][:len(out)] {
			out[d] += float32(a * x)
		}
	}
}

func sumInOrder(x []float32) float32 {
	var s float32
	for _, v := range x {
		s += v
	}
	return s
}

func invRMSSteps(x []float32, eps float32) float32 {
	var s float32
	for _, v := range x {
		s += float32(v * v)
	}
	return rsqrtSteps(float32(s/float32(len(x))) + eps)
}

// rsqrtSteps is the float32 square root, then the float32 quotient: two roundings.
func rsqrtSteps(x float32) float32 { return 1 / float32(math.Sqrt(float64(x))) }

func sigmoidSteps(x float32) float32 { return 1 / (1 + precision.ExpLibm(-x)) }
func siluSteps(x float32) float32    { return x / (1 + precision.ExpLibm(-x)) }

func softplusSteps(x float32) float32 {
	if x > 20 {
		return x
	}
	return precision.LogLibm(1 + precision.ExpLibm(x))
}

func softmaxSteps(x []float32) {
	m := x[0]
	for _, v := range x {
		m = max(m, v)
	}
	for i, v := range x {
		x[i] = precision.ExpLibm(v - m)
	}
	sum := sumInOrder(x)
	for i := range x {
		x[i] /= sum
	}
}

func deltaStepInOrder(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
	dv := len(v)
	mem := make([]float32, dv)
	for d, kd := range k {
		row := S[d*dv:][:dv]
		for e, s := range row {
			s = float32(s * decay)
			row[e] = s
			mem[e] += float32(s * kd)
		}
	}
	for e := range mem {
		mem[e] = float32(v[e]-mem[e]) * beta // delta
	}
	clear(out)
	for d, kd := range k {
		row, qd := S[d*dv:][:dv], q[d]
		for e, s := range row {
			s += float32(kd * mem[e])
			row[e] = s
			out[e] += float32(s * qd)
		}
	}
}
