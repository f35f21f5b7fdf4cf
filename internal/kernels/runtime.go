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
	Name: "coreai-cpu", Linear: linear16, Dot: dot16, Conv: convInOrder, Sum: sumInOrder, WeightedRows: weightedRows16,
	InvRMS: invRMSSteps, Rsqrt: precision.RsqrtR32,
	Exp: each(precision.ExpLibm), Sigmoid: each(sigmoidSteps), SiLU: each(siluSteps),
	Softplus: each(softplusSteps), Softplus3: each(softplusSteps),
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

func linear16(p *Pool, out, x []float32, rows int, w *Matrix) {
	n, N := w.Cols, w.Rows
	p.For(N, 8*n*rows, func(lo, hi int) {
		row := make([]float32, n)
		for o := lo; o < hi; o++ {
			w.Row(row, o)
			for t := range rows {
				out[t*N+o] = dot16(row, x[t*n:][:n])
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

// convInOrder is the float32 running sum of float32 products.
func convInOrder(w, x []float32) float32 {
	var s float32
	for i, a := range w {
		s += float32(a * x[i])
	}
	return s
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
	return 1 / float32(math.Sqrt(float64(float32(s/float32(len(x)))+eps)))
}

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
