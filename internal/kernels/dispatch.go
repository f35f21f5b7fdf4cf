package kernels

import "sibyl/precision"

type (
	linearFunc  = func(p *Pool, out, x []float32, rows int, w *Matrix)
	linearsFunc = func(p *Pool, x []float32, rows int, products []Product)
	dotFunc     = func(a, b []float32) float32
	convFunc    = func(out, w, x []float32)
	columnsFunc = func(out, w, v []float32, stride int)
	rmsFunc     = func(x []float32, eps float32) float32
	deltaFunc   = func(S, q, k, v, out []float32, decay, beta float32, tmp []float64)
	pairFunc    = func(dst, x []float32)
	gainFunc    = func(dst, x, gain []float32, r float32)
	turnFunc    = func(a, b, cos, sin []float32)
	expSumFunc  = func(x []float32, m float32) float32
	logSumFunc  = func(x []float32, m float64) float64
	mapFunc     = func(dst, x []float32)
)

// Every kernel that has variants, by its portable definition.
var (
	linearExactKernel  = define[linearFunc]("linear exact", linearExactGo)
	linearFastKernel   = define[linearFunc]("linear fast", linearFastGo)
	linearAloneKernel  = define[linearFunc]("linear fast, rows alone", linearAloneGo)
	linearsExactKernel = define[linearsFunc]("linear exact, several weights", oneByOneOf(linearExactGo))
	linearsFastKernel  = define[linearsFunc]("linear fast, several weights", oneByOneOf(linearFastGo))
	dotExactKernel     = define[dotFunc]("dot exact", dotExactGo)
	dotFastKernel      = define[dotFunc]("dot fast", dotFastGo)
	sumExactKernel     = define("sum exact", sumExactGo)
	sumFastKernel      = define("sum fast", sumFastGo)
	convExactKernel    = define[convFunc]("conv exact", convExactGo)
	convFastKernel     = define[convFunc]("conv fast", convFastGo)
	columnsExactKernel = define[columnsFunc]("weighted rows exact", weightedRowsExactGo)
	columnsFastKernel  = define[columnsFunc]("weighted rows fast", weightedRowsFastGo)
	rmsExactKernel     = define[rmsFunc]("inverse rms exact", invRMSExactGo)
	rmsFastKernel      = define[rmsFunc]("inverse rms fast", invRMSFastGo)
	deltaExactKernel   = define[deltaFunc]("delta step exact", deltaStepExactGo)
	deltaFastKernel    = define[deltaFunc]("delta step fast", deltaStepFastGo)
	expExactKernel     = define("exp exact", each(precision.ExpR32))
	expFastKernel      = define("exp fast", each(exp1))
	sigmoidExactKernel = define("sigmoid exact", each(precision.SigmoidR32))
	sigmoidFastKernel  = define("sigmoid fast", each(sigmoid1))
	siluExactKernel    = define("silu exact", each(precision.SiLUR32))
	siluFastKernel     = define("silu fast", each(silu1))
	softmaxExactKernel = define("softmax exact", precision.SoftmaxR32)
	softmaxFastKernel  = define("softmax fast", softmaxFastGo)
	expSumKernel       = define[expSumFunc]("sum of exp fast", expSumGo)
	attendKernel       = define("attention fast", attendGo)
	widenF16Kernel     = define("widen f16", widenF16Go)
	narrowF16Kernel    = define("narrow f16", narrowF16Go)
	multiplyKernel     = define("multiply", multiplyGo)
	addKernel          = define("add", addGo)
	scaleKernel        = define("scale", scaleGo)
	gainKernel         = define("gain", gainGo)
	turnKernel         = define("turn", turnGo)
	expDiffKernel      = define("exp of a difference", expDiffGo)
	logSumKernel       = define[logSumFunc]("sum of exp in float64", logSumGo)
	maxKernel          = define("max", maxGo)
	roundF16Kernel     = define("round f16", precision.RoundF16Go)
	roundBF16Kernel    = define("round bf16", precision.RoundBF16Go)
)

// Package precision rounds at the points of a contract, with the loops chosen here.
func init() {
	tell := func(func([]float32)) { precision.UseRounding(roundF16Kernel.run, roundBF16Kernel.run) }
	roundF16Kernel.taken, roundBF16Kernel.taken = tell, tell
	tell(nil)
}

func linearExact(p *Pool, out, x []float32, rows int, w *Matrix) {
	linearExactKernel.run(p, out, x, rows, w)
}

func linearFast(p *Pool, out, x []float32, rows int, w *Matrix) {
	linearFastKernel.run(p, out, x, rows, w)
}

// oneByOneOf is linear of each weight by itself.
func oneByOneOf(linear linearFunc) linearsFunc {
	return func(p *Pool, x []float32, rows int, products []Product) {
		for _, o := range products {
			linear(p, o.Out, x, rows, o.W)
		}
	}
}

func dotExact(a, b []float32) float32 { return dotExactKernel.run(a, b) }
func dotFast(a, b []float32) float32  { return dotFastKernel.run(a, b) }

func convExact(out, w, x []float32) { convExactKernel.run(out, w, x) }
func convFast(out, w, x []float32)  { convFastKernel.run(out, w, x) }

func weightedRowsExact(out, w, v []float32, stride int) { columnsExactKernel.run(out, w, v, stride) }
func weightedRowsFast(out, w, v []float32, stride int)  { columnsFastKernel.run(out, w, v, stride) }

func invRMSExact(x []float32, eps float32) float32 { return rmsExactKernel.run(x, eps) }
func invRMSFast(x []float32, eps float32) float32  { return rmsFastKernel.run(x, eps) }

func deltaStepExact(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
	deltaExactKernel.run(S, q, k, v, out, decay, beta, tmp)
}

func deltaStepFast(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
	deltaFastKernel.run(S, q, k, v, out, decay, beta, tmp)
}

func expExact(dst, x []float32)     { expExactKernel.run(dst, x) }
func expFast(dst, x []float32)      { expFastKernel.run(dst, x) }
func sigmoidExact(dst, x []float32) { sigmoidExactKernel.run(dst, x) }
func sigmoidFast(dst, x []float32)  { sigmoidFastKernel.run(dst, x) }
func siluExact(dst, x []float32)    { siluExactKernel.run(dst, x) }
func siluFast(dst, x []float32)     { siluFastKernel.run(dst, x) }

func softmaxExact(x []float32) { softmaxExactKernel.run(x) }
func softmaxFast(x []float32)  { softmaxFastKernel.run(x) }

// ExpDiff writes e^(x-m) in float64, precision.Exp64's bits in every variant: what a log-sum-exp sums. dst has x's
// length.
func ExpDiff(dst []float64, x []float32, m float64) { expDiffKernel.run(dst, x, m) }

func expDiffGo(dst []float64, x []float32, m float64) {
	for i, v := range x {
		dst[i] = precision.Exp64(float64(v) - m)
	}
}

// logSumGo is the sum of e^(x[i]-m), where x[i] <= m.
func logSumGo(x []float32, m float64) (sum float64) {
	for _, v := range x {
		sum += precision.Exp64(float64(v) - m)
	}
	return sum
}

// Max is the largest element of x, which is not empty, and whether any is a NaN; then the other means nothing.
func Max(x []float32) (top float32, nan bool) { return maxKernel.run(x) }

func maxGo(x []float32) (top float32, nan bool) {
	top = x[0]
	for _, v := range x {
		if v != v {
			nan = true
		}
		if v > top {
			top = v
		}
	}
	return top, nan
}
