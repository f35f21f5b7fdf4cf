package kernels

import (
	"math"

	"sibyl/precision"
)

// Noisy is ar with every result of an operation that is not a single IEEE operation moved by step units in the last place of
// the grid that c rounds it to: step gives -1, 0 or +1 for the value x of the operation's entry op. It stands for a sound
// engine that shares no bit with another. Elementwise products and sums have no entry, because one IEEE operation is the
// same in every engine. The result may be used from as many goroutines as step.
func Noisy(ar *Arith, name string, c *precision.Contract, step func(op uint32, x float32) int) *Arith {
	move := func(op uint32, r precision.Round, x []float32) {
		for i, v := range x {
			x[i] = neighbour(r, v, step(op, v))
		}
	}
	one := func(op uint32, r precision.Round, x float32) float32 { return neighbour(r, x, step(op, x)) }
	each := func(op uint32, f func(dst, x []float32), grid func(inPlace bool) precision.Round) func(dst, x []float32) {
		return func(dst, x []float32) {
			r := grid(&dst[0] == &x[0])
			f(dst, x)
			move(op, r, dst)
		}
	}
	at := func(p precision.Point) func(bool) precision.Round {
		return func(bool) precision.Round { return c.At[p] }
	}
	out := *ar
	out.Name = name
	product := func(op uint32, sound func(*Pool, []float32, []float32, int, *Matrix)) func(*Pool, []float32, []float32, int, *Matrix) {
		return func(p *Pool, y, x []float32, rows int, w *Matrix) {
			sound(p, y, x, rows, w)
			move(op, c.At[precision.Linear], y)
		}
	}
	out.Linear, out.Matmul, out.Linears = product(0, ar.Linear), product(16, ar.Matmul), nil
	out.Dot = func(a, b []float32) float32 { return one(1, c.At[precision.Score], ar.Dot(a, b)) }
	out.Conv = func(y, w, x []float32) { ar.Conv(y, w, x); move(2, c.At[precision.ConvSum], y) }
	out.Sum = func(x []float32) float32 { return one(3, c.At[precision.L2Sum], ar.Sum(x)) }
	out.WeightedRows = func(y, w, v []float32, stride int) {
		ar.WeightedRows(y, w, v, stride)
		move(4, c.At[precision.AttnOut], y)
	}
	out.InvRMS = func(x []float32, eps float32) float32 { return one(5, precision.F32, ar.InvRMS(x, eps)) }
	out.Rsqrt = func(x float32) float32 { return one(6, c.At[precision.L2Rsqrt], ar.Rsqrt(x)) }
	out.Exp = each(7, ar.Exp, func(bool) precision.Round { return precision.F32 })
	out.Sigmoid = each(8, ar.Sigmoid, at(precision.Beta))
	out.SiLU = each(9, ar.SiLU, func(inPlace bool) precision.Round {
		if inPlace {
			return c.At[precision.ConvOut] // the conv's and the MLP's
		}
		return precision.F32 // silu(z), whose product alone is rounded
	})
	out.Softplus, out.Softplus3 = each(10, ar.Softplus, at(precision.G)), each(11, ar.Softplus3, at(precision.G))
	out.Softmax = func(x []float32) { ar.Softmax(x); move(12, c.At[precision.Softmax], x) }
	out.RouterSoftmax = func(x []float32) { ar.RouterSoftmax(x); move(13, c.At[precision.RouterProb], x) }
	out.DeltaStep = func(S, q, k, v, y []float32, decay, beta float32, tmp []float64) {
		ar.DeltaStep(S, q, k, v, y, decay, beta, tmp)
		move(14, c.State, S)
		move(15, c.At[precision.CoreOut], y)
	}
	return &out
}

// HashStep is a step for Noisy that depends on nothing but the seed, the operation and the value: the same bits for any
// number of threads, in prefill and in steps, on every machine.
func HashStep(seed uint64) func(op uint32, x float32) int {
	return func(op uint32, x float32) int {
		h := (seed*64 + uint64(op)) << 32
		h ^= uint64(math.Float32bits(x))
		h += 0x9e3779b97f4a7c15 // splitmix64
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		return int((h^h>>31)>>8%3) - 1
	}
}

// neighbour is the value of the grid that is steps units above x rounded to it, where that is a finite number. 0 stays.
func neighbour(r precision.Round, x float32, steps int) float32 {
	y := r.Value(x)
	if y == 0 || y != y || math.IsInf(float64(y), 0) || steps == 0 {
		return y
	}
	bits, unit := math.Float32bits(y), uint32(1)
	switch r {
	case precision.F16:
		h := precision.F32ToF16(y)
		if z := precision.F16ToF32(uint16(int(h) + steps)); !math.IsInf(float64(z), 0) {
			return z // away from or towards 0: the sign of a random step means nothing
		}
		return y
	case precision.BF16:
		unit = 1 << 16
	}
	if z := math.Float32frombits(bits + unit*uint32(steps)); !math.IsInf(float64(z), 0) && z == z {
		return z
	}
	return y
}
