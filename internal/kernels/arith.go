package kernels

import (
	"fmt"

	"sibyl/precision"
)

// Arith is one arithmetic: a table of functions, each computing its named operation to float32. Exact and fast are
// two tables; the math asks the table and never which one it has. Elementwise products and sums of float32 need
// no entry: one IEEE operation is exact in both, written float32(a*b)+c so that it is not fused.
type Arith struct {
	Name string

	// Linear is out[t, o] = sum_i w[o, i] * x[t, i]; x [rows, w.Cols], out [rows, w.Rows].
	Linear func(p *Pool, out, x []float32, rows int, w *Matrix)
	// Linears, if not nil, is Linear of one x with several weights of one width, with the bits of each by itself: for more than a
	// few rows x is prepared once, and threads meet twice. Who replaces Linear replaces it, too, or sets nil here.
	Linears func(p *Pool, x []float32, rows int, products []Product)
	// Matmul is Linear where the exported graphs multiply operands of equal batch dimensions instead of one weight by a
	// batch: out_proj, o_proj and the products of a routed expert. A runtime may sum the two kinds differently.
	Matmul func(p *Pool, out, x []float32, rows int, w *Matrix)
	// Dot is sum a[i]*b[i]: attention scores.
	Dot func(a, b []float32) float32
	// Conv is one token of the depthwise conv: out[c] = sum_j w[j, c] * x[j, c] over the taps j; w, x [taps, len(out)].
	Conv func(out, w, x []float32)
	// Sum is sum x[i].
	Sum func(x []float32) float32
	// WeightedRows is out[d] = sum_j w[j] * v[j*stride+d], len(out) columns.
	WeightedRows func(out, w, v []float32, stride int)
	// InvRMS is rsqrt(mean(x*x) + eps), rounding x*x, the mean, the sum and the rsqrt to float32.
	InvRMS func(x []float32, eps float32) float32
	// Rsqrt is 1/sqrt(x).
	Rsqrt func(x float32) float32
	// Exp, Sigmoid, SiLU, Softplus and Softplus3 work elementwise: dst = f(x); dst may be x.
	Exp, Sigmoid, SiLU, Softplus, Softplus3 func(dst, x []float32)
	// Rate is exp(A_log), elementwise: a constant of the weights, which a graph may hold or compute.
	Rate func(dst, x []float32)
	// Softmax replaces attention scores x by softmax(x), one operation; RouterSoftmax does it for a router's logits.
	Softmax, RouterSoftmax func(x []float32)
	// LogSum is sum e^(x[i]-m) in float64, where x[i] <= m, in any order: of logits, a part of a row at a time. It is nil where
	// only the order of the ids will do.
	LogSum func(x []float32, m float64) float64
	// Attend, if not nil, is softmax attention of a block of queries as one operation, in which only the result is rounded.
	Attend func(a *Attention)
	// DeltaStep is one token of the recurrent delta rule for one head, DESIGN section 2:
	// S [dk, dv] in place: S *= decay; mem = S^T k; delta = beta*(v - mem); S += k (x) delta; out = S^T q.
	// q, k [dk]; v, out [dv]; tmp [2*dv] is scratch.
	DeltaStep func(S, q, k, v, out []float32, decay, beta float32, tmp []float64)

	// Alone is this arithmetic for rows each of which is to have the bits that it has by itself, whatever other rows there are: its
	// products are so. Nil where it is itself.
	Alone *Arith
	// ByRow says that elementwise functions are called with the elements of one row, or of rows of whole groups (Group).
	ByRow bool
}

// Product is a weight and the place for its product, [rows, W.Rows].
type Product struct {
	Out []float32
	W   *Matrix
}

// Products is Linear of x [rows, Cols] with each of several weights of Cols columns; others are a mistake of the caller's, and
// panic.
func (a *Arith) Products(p *Pool, x []float32, rows int, products ...Product) {
	if len(products) == 0 {
		return
	}
	for _, o := range products[1:] {
		if o.W.Cols != products[0].W.Cols {
			panic(fmt.Sprintf("kernels: products of one x with weights of %d and of %d columns", products[0].W.Cols, o.W.Cols))
		}
	}
	if a.Linears == nil {
		oneByOneOf(a.Linear)(p, x, rows, products)
		return
	}
	a.Linears(p, x, rows, products)
}

// Group is how many elements the elementwise functions take at once at most, with whatever instructions: those beside an element
// in its group, and whether there are as many, may count in its last place.
const Group = 16

// Exact is order-free: R32 of the exact result of each named operation, the same bits on any machine.
var Exact = &Arith{
	Name: "exact", Linear: linearExact, Matmul: linearExact, Dot: dotExact, Conv: convExact, Sum: func(x []float32) float32 { return sumExactKernel.run(x) }, WeightedRows: weightedRowsExact,
	InvRMS: invRMSExact, Rsqrt: precision.RsqrtR32,
	Exp: expExact, Sigmoid: sigmoidExact, SiLU: siluExact,
	Softplus: each(precision.SoftplusR32), Softplus3: each(precision.Softplus3R32), Rate: each(precision.ExpR32),
	Linears: func(p *Pool, x []float32, rows int, products []Product) { linearsExactKernel.run(p, x, rows, products) },
	Softmax: softmaxExact, RouterSoftmax: precision.SoftmaxR32, DeltaStep: deltaStepExact,
}

// Fast is float32 in any order.
var Fast = &Arith{
	Name: "fast", Linear: linearFast, Matmul: linearFast, Dot: dotFast, Conv: convFast, Sum: func(x []float32) float32 { return sumFastKernel.run(x) }, WeightedRows: weightedRowsFast,
	InvRMS: invRMSFast, Rsqrt: rsqrtFast,
	Exp: expFast, Sigmoid: sigmoidFast, SiLU: siluFast,
	Softplus: each(softplusFast), Softplus3: each(softplus3Fast), Rate: each(precision.ExpR32),
	Linears: func(p *Pool, x []float32, rows int, products []Product) { linearsFastKernel.run(p, x, rows, products) },
	Softmax: softmaxFast, RouterSoftmax: softmaxFastGo, LogSum: func(x []float32, m float64) float64 { return logSumKernel.run(x, m) },
	Attend: func(a *Attention) { attendKernel.run(a) }, DeltaStep: deltaStepFast,
}

func init() {
	alone := *Fast
	alone.Linear = func(p *Pool, out, x []float32, rows int, w *Matrix) { linearAloneKernel.run(p, out, x, rows, w) }
	alone.Matmul, alone.Linears, alone.ByRow = alone.Linear, nil, true
	Fast.Alone = &alone
}

// Own gives the arithmetic that alone computes a contract, by the name in precision.Contract.Arithmetic; nil if there is
// none of that name.
func Own(name string) *Arith {
	for _, a := range []*Arith{CoreAICPU, CoreAICPUBF16} {
		if a.Name == name {
			return a
		}
	}
	return nil
}

func each(f func(float32) float32) func(dst, x []float32) {
	return func(dst, x []float32) {
		for i, v := range x {
			dst[i] = f(v)
		}
	}
}
