package faults

import (
	"context"
	"math"
	"math/rand/v2"

	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/model"
	"sibyl/precision"
)

// OpenNoisy gives the CPU engine of spec with every result of every operation that is not a single IEEE operation moved by
// -1, 0 or +1 unit in the last place, at random, of the grid that the contract rounds it to. It is no fault: it stands for a
// sound engine that shares no bit with any other. One seed gives one engine, the same on every machine; what it computes
// depends on what it was asked before.
func OpenNoisy(ctx context.Context, spec engine.Spec, seed uint64) (engine.Engine, error) {
	spec.Threads = 1
	e, err := engine.Open(ctx, "cpu", spec)
	if err != nil {
		return nil, err
	}
	c, err := precision.Lookup(spec.Contract)
	if err == nil {
		err = e.(*model.Engine).Change(func(_ *model.Decoder, ar *kernels.Arith) (*kernels.Arith, error) {
			return noisy(ar, c, seed), nil
		})
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// noisy is ar with noise, for one thread. Each entry's grid is that of the point its result goes to; elementwise
// products and sums have no entry, because one IEEE operation is the same in every engine.
func noisy(ar *kernels.Arith, c *precision.Contract, seed uint64) *kernels.Arith {
	rng := rand.New(rand.NewPCG(seed, 0x5169))
	move := func(r precision.Round, x []float32) {
		for i, v := range x {
			x[i] = neighbour(r, v, int(rng.Uint32()>>8%3)-1)
		}
	}
	one := func(r precision.Round, x float32) float32 { return neighbour(r, x, int(rng.Uint32()>>8%3)-1) }
	each := func(f func(dst, x []float32), grid func(inPlace bool) precision.Round) func(dst, x []float32) {
		return func(dst, x []float32) {
			f(dst, x)
			move(grid(&dst[0] == &x[0]), dst)
		}
	}
	at := func(p precision.Point) func(bool) precision.Round {
		return func(bool) precision.Round { return c.At[p] }
	}
	out := *ar
	product := func(sound func(*kernels.Pool, []float32, []float32, int, *kernels.Matrix)) func(*kernels.Pool, []float32, []float32, int, *kernels.Matrix) {
		return func(p *kernels.Pool, y, x []float32, rows int, w *kernels.Matrix) {
			sound(p, y, x, rows, w)
			move(c.At[precision.Linear], y)
		}
	}
	out.Linear, out.Matmul = product(ar.Linear), product(ar.Matmul)
	out.Dot = func(a, b []float32) float32 { return one(c.At[precision.Score], ar.Dot(a, b)) }
	out.Conv = func(w, x []float32) float32 { return one(c.At[precision.ConvSum], ar.Conv(w, x)) }
	out.Sum = func(x []float32) float32 { return one(c.At[precision.L2Sum], ar.Sum(x)) }
	out.WeightedRows = func(y, w, v []float32, stride int) {
		ar.WeightedRows(y, w, v, stride)
		move(c.At[precision.AttnOut], y)
	}
	out.InvRMS = func(x []float32, eps float32) float32 { return one(precision.F32, ar.InvRMS(x, eps)) }
	out.Rsqrt = func(x float32) float32 { return one(c.At[precision.L2Rsqrt], ar.Rsqrt(x)) }
	out.Exp = each(ar.Exp, func(bool) precision.Round { return precision.F32 })
	out.Sigmoid = each(ar.Sigmoid, at(precision.Beta))
	out.SiLU = each(ar.SiLU, func(inPlace bool) precision.Round {
		if inPlace {
			return c.At[precision.ConvOut] // the conv's and the MLP's
		}
		return precision.F32 // silu(z), whose product alone is rounded
	})
	out.Softplus, out.Softplus3 = each(ar.Softplus, at(precision.G)), each(ar.Softplus3, at(precision.G))
	out.Softmax = func(x []float32) { ar.Softmax(x); move(c.At[precision.Softmax], x) }
	out.RouterSoftmax = func(x []float32) { ar.RouterSoftmax(x); move(c.At[precision.RouterProb], x) }
	out.DeltaStep = func(S, q, k, v, y []float32, decay, beta float32, tmp []float64) {
		ar.DeltaStep(S, q, k, v, y, decay, beta, tmp)
		move(c.State, S)
		move(c.At[precision.CoreOut], y)
	}
	return &out
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
