package ops

import (
	"sibyl/metal/gpu"
	"sibyl/precision"
)

// tile is how many tokens gemm's kernels take at a time.
const tile = 4

// Embed is out[t] = R(w[ids[t]]): ids [tokens] int32, out [tokens, w.Cols]. The caller has checked the ids.
func (l *List) Embed(w *Weight, ids, out gpu.Slice, tokens int, round precision.Round) {
	name := "embed_" + w.Format.String()
	if !l.checkWeight(name, w) {
		return
	}
	a := struct{ cols, grid, round uint32 }{uint32(w.Cols), uint32(w.Round), uint32(round)}
	q, s, m := w.slices()
	add(l, name, &a, size{ceil(w.Cols, 64), tokens, 1}, size{64, 1, 1}, nil, q, s, m, ids, out)
}

// Linear is out [tokens, w.Rows] = R(x [tokens, w.Cols] w^T).
func (l *List) Linear(w *Weight, x, out gpu.Slice, tokens int, round precision.Round) {
	name, per := "gemv_", 1
	if tokens > 1 {
		name, per = "gemm_", tile
	}
	name += w.Format.String()
	if !l.checkWeight(name, w) {
		return
	}
	a := struct{ rows, cols, tokens, grid, round uint32 }{uint32(w.Rows), uint32(w.Cols), uint32(tokens), uint32(w.Round), uint32(round)}
	q, s, m := w.slices()
	add(l, name, &a, size{ceil(w.Rows, 8), ceil(tokens, per), 1}, size{64, 1, 1}, nil, q, s, m, x, out)
}

// MLPRounds are the rounding points of an MLP's inside.
type MLPRounds struct{ Linear, Silu, Mul precision.Round }

// Swiglu is out [tokens, gate.Rows] = R(R(silu(gate x)) * R(up x)). Both weights have one shape and one format.
func (l *List) Swiglu(gate, up *Weight, x, out gpu.Slice, tokens int, r MLPRounds) {
	name, per := "swiglu_", 1
	if tokens > 1 {
		name, per = "swiglu4_", tile
	}
	name += gate.Format.String()
	if !l.checkWeight(name, gate) || !l.checkWeight(name, up) {
		return
	}
	if gate.Format != up.Format || gate.Rows != up.Rows || gate.Cols != up.Cols || gate.Round != up.Round {
		l.fail(name, "gate and up differ")
		return
	}
	a := struct{ rows, cols, tokens, grid, round, silu, mul uint32 }{uint32(gate.Rows), uint32(gate.Cols), uint32(tokens), uint32(gate.Round),
		uint32(r.Linear), uint32(r.Silu), uint32(r.Mul)}
	gq, gs, gm := gate.slices()
	uq, us, um := up.slices()
	add(l, name, &a, size{ceil(gate.Rows, 4), ceil(tokens, per), 1}, size{64, 1, 1}, nil, gq, gs, gm, uq, us, um, x, out)
}

// SiluMul is gate = R(R(silu(gate)) * up), n elements each: what Swiglu does where the formats differ.
func (l *List) SiluMul(gate, up gpu.Slice, n int, r MLPRounds) {
	a := struct{ n, silu, mul uint32 }{uint32(n), uint32(r.Silu), uint32(r.Mul)}
	add(l, "silu_mul", &a, size{ceil(n, 64), 1, 1}, size{64, 1, 1}, nil, gate, up)
}

// Residual is x = R(x + y), n elements.
func (l *List) Residual(x, y gpu.Slice, n int, round precision.Round) {
	a := struct{ n, round uint32 }{uint32(n), uint32(round)}
	add(l, "residual", &a, size{ceil(n, 64), 1, 1}, size{64, 1, 1}, nil, x, y)
}

// Rows says where rows lie: row r of n numbers is at (r / Heads) * Token + (r % Heads) * Head.
type Rows struct{ N, Heads, Token, Head int }

// Matrix is the rows of a matrix of that many columns.
func Matrix(cols int) Rows { return Rows{cols, 1, cols, cols} }

// rowThreads is how many threads share a row: 32 for every 256 numbers.
func rowThreads(n int) int { return min(1024, 32*ceil(n, 256)) }

// RMSNorm is out [rows, n] = R(x * rsqrt(mean(x*x) + eps) * (one + w)); one is 0 where w is the gain itself.
func (l *List) RMSNorm(x, w gpu.Slice, one float32, out gpu.Slice, rows int, at Rows, eps float32, round precision.Round) {
	a := struct {
		n, heads, token, head, round uint32
		eps, one                     float32
	}{uint32(at.N), uint32(at.Heads), uint32(at.Token), uint32(at.Head), uint32(round), eps, one}
	threads := rowThreads(at.N)
	add(l, "rmsnorm", &a, size{rows, 1, 1}, size{threads, 1, 1}, []int{threads / 32 * 4}, x, w, out)
}

// GatedRounds are the rounding points of the gated norm.
type GatedRounds struct{ Normed, Weight, Out precision.Round }

// GatedNorm is out [rows, n] = R(R(R(x * rsqrt(mean(x*x) + eps)) * w) * silu(z)).
func (l *List) GatedNorm(x, w, z, out gpu.Slice, rows, n int, eps float32, r GatedRounds) {
	a := struct {
		n, normed, weight, out uint32
		eps                    float32
	}{uint32(n), uint32(r.Normed), uint32(r.Weight), uint32(r.Out), eps}
	threads := rowThreads(n)
	add(l, "gated_norm", &a, size{rows, 1, 1}, size{threads, 1, 1}, []int{threads / 32 * 4}, x, w, z, out)
}
