package suite

import (
	"fmt"

	"sibyl/metal/ops"
	"sibyl/precision"
)

// grids are the two ends of what contracts round to: nothing, and fp16.
var grids = []precision.Round{precision.F32, precision.F16}

type embedCase struct {
	f            ops.Format
	cols, tokens int
	round        precision.Round
}

func (c embedCase) op() string { return "embed_" + c.f.String() }
func (c embedCase) vars() string {
	return fmt.Sprintf("cols=%d tokens=%d round=%s", c.cols, c.tokens, c.round)
}
func (c embedCase) bytes() int { return c.tokens * c.cols * (4 + c.f.Bits()/8) }

// build: a lookup has no error: bits.
func (c embedCase) build(b *bench) func(*ops.List) {
	const vocab = 11
	w := b.weight(c.f, vocab, c.cols, 1, precision.F32)
	ids := make([]int32, c.tokens)
	out := b.out("out", c.tokens*c.cols)
	for t := range ids {
		ids[t] = int32(b.IntN(vocab))
		for _, v := range w.at[int(ids[t])*c.cols:][:c.cols] {
			out.want = append(out.want, exactly(v).on(c.round))
		}
	}
	idBuf := words(b, ids)
	return func(l *ops.List) { l.Embed(&w.Weight, idBuf, out.slice(), c.tokens, c.round) }
}

func embedCases() (out []opCase) {
	for f := range ops.NumFormats {
		cols := []int{32, 64, 96, 256}
		if !f.Quantized() {
			cols = append(cols, 1, 7, 33, 65)
		}
		for _, n := range cols {
			for _, t := range []int{1, 3} {
				for _, r := range grids {
					out = append(out, embedCase{f, n, t, r})
				}
			}
		}
	}
	return out
}

type normCase struct {
	rows, n, heads int // heads > 1: every other head of a row, as q_proj's out has them
	round          precision.Round
}

func (c normCase) op() string { return "rmsnorm" }
func (c normCase) vars() string {
	return fmt.Sprintf("rows=%d n=%d heads=%d round=%s", c.rows, c.n, c.heads, c.round)
}
func (c normCase) bytes() int { return 4 * (2*c.rows*c.heads*c.n + c.n) }

// invRMS is rsqrt(mean(x*x) + eps).
func invRMS(x []float32, eps float32) num {
	sq := make([]num, len(x))
	for i, v := range x {
		sq[i] = exactly(v).mul(exactly(v))
	}
	return sum(sq).div(exactly(float32(len(x)))).add(exactly(eps)).rsqrt()
}

func (c normCase) build(b *bench) func(*ops.List) {
	step := 1
	if c.heads > 1 {
		step = 2
	}
	scale := 3.0
	if c.rows == 1 { // so small that eps counts
		scale = 1e-3
	}
	x, w := b.normals(c.rows*c.heads*step*c.n, scale, precision.F32), b.normals(c.n, 0.5, precision.F32)
	out := b.out("out", c.rows*c.heads*c.n)
	for r := range c.rows * c.heads {
		row := x[r*step*c.n:][:c.n]
		k := invRMS(row, 1e-6)
		for i, v := range row {
			out.want = append(out.want, exactly(v).mul(k).mul(exactly(1).add(exactly(w[i]))).on(c.round))
		}
	}
	at := ops.Rows{N: c.n, Heads: c.heads, Token: c.heads * step * c.n, Head: step * c.n}
	xb, wb := b.in(x), b.in(w)
	return func(l *ops.List) { l.RMSNorm(xb, wb, 1, out.slice(), c.rows*c.heads, at, 1e-6, c.round) }
}

func normCases() (out []opCase) {
	for _, n := range []int{1, 5, 24, 31, 32, 33, 40, 64, 127, 128, 256, 257, 1000, 1024, 2560, 4096, 8193} {
		for _, rows := range []int{1, 3} {
			for _, r := range []precision.Round{precision.F32, precision.F16, precision.BF16} {
				out = append(out, normCase{rows, n, 1, r})
			}
		}
	}
	for _, heads := range []int{2, 6, 24} {
		for _, n := range []int{24, 48, 64, 256} {
			for _, r := range grids {
				out = append(out, normCase{2, n, heads, r})
			}
		}
	}
	return out
}

type gatedNormCase struct {
	rows, n int
	round   precision.Round
}

func (c gatedNormCase) op() string { return "gated_norm" }
func (c gatedNormCase) vars() string {
	return fmt.Sprintf("rows=%d n=%d round=%s", c.rows, c.n, c.round)
}
func (c gatedNormCase) bytes() int { return 4 * (3*c.rows*c.n + c.n) }

func (c gatedNormCase) build(b *bench) func(*ops.List) {
	x, w, z := b.normals(c.rows*c.n, 0.3, precision.F32), b.normals(c.n, 1, precision.F32), b.normals(c.rows*c.n, 2, precision.F32)
	out := b.out("out", c.rows*c.n)
	for r := range c.rows {
		row := x[r*c.n:][:c.n]
		k := invRMS(row, 1e-6)
		for i, v := range row {
			o := exactly(v).mul(k).on(c.round).mul(exactly(w[i])).on(c.round)
			out.want = append(out.want, o.mul(exactly(z[r*c.n+i]).silu()).on(c.round))
		}
	}
	xb, wb, zb := b.in(x), b.in(w), b.in(z)
	return func(l *ops.List) {
		l.GatedNorm(xb, wb, zb, out.slice(), c.rows, c.n, 1e-6, ops.GatedRounds{Normed: c.round, Weight: c.round, Out: c.round})
	}
}

func gatedNormCases() (out []opCase) {
	for _, n := range []int{1, 24, 31, 32, 33, 40, 64, 96, 128, 256, 300} {
		for _, rows := range []int{1, 5, 48} {
			for _, r := range grids {
				out = append(out, gatedNormCase{rows, n, r})
			}
		}
	}
	return out
}

type linearCase struct {
	f                  ops.Format
	rows, cols, tokens int
	round, weights     precision.Round
}

func (c linearCase) op() string {
	if c.tokens > 1 {
		return "gemm_" + c.f.String()
	}
	return "gemv_" + c.f.String()
}
func (c linearCase) vars() string {
	return fmt.Sprintf("rows=%d cols=%d tokens=%d round=%s weights=%s", c.rows, c.cols, c.tokens, c.round, c.weights)
}
func (c linearCase) bytes() int {
	w := ops.Weight{Format: c.f, Rows: c.rows, Cols: c.cols}
	return w.Bytes() + 4*c.tokens*(c.rows+c.cols)
}

func (c linearCase) build(b *bench) func(*ops.List) {
	w := b.weight(c.f, c.rows, c.cols, 1, c.weights)
	x := b.normals(c.tokens*c.cols, 1, precision.F32)
	out := b.out("out", c.tokens*c.rows)
	for t := range c.tokens {
		for r := range c.rows {
			out.want = append(out.want, w.dot(r, x[t*c.cols:]).on(c.round))
		}
	}
	xb := b.in(x)
	return func(l *ops.List) { l.Linear(&w.Weight, xb, out.slice(), c.tokens, c.round) }
}

// shapes of matrices: rows about a simdgroup's four and a threadgroup's eight, columns about a lane's 8, 32 lanes' 256.
func columns(f ops.Format) []int {
	if f.Quantized() {
		return []int{32, 64, 96, 256, 288, 1024}
	}
	return []int{1, 7, 8, 24, 33, 64, 72, 256, 257, 264, 1024}
}

func linearCases() (out []opCase) {
	for f := range ops.NumFormats {
		for _, cols := range columns(f) {
			for _, rows := range []int{1, 3, 5, 8, 9, 33} {
				for _, r := range grids {
					out = append(out, linearCase{f, rows, cols, 1, r, precision.F32})
				}
			}
			for _, tokens := range []int{2, 5} {
				for _, r := range grids {
					out = append(out, linearCase{f, 9, cols, tokens, r, precision.F32})
				}
			}
		}
		for _, tokens := range []int{33, 64, 65, 127} {
			out = append(out, linearCase{f, 6, 64, tokens, precision.F32, precision.F32})
		}
		for _, w := range []precision.Round{precision.F16, precision.BF16} { // a contract that rounds stored weights
			out = append(out, linearCase{f, 5, 96, 1, precision.F16, w}, linearCase{f, 5, 96, 3, precision.F16, w})
		}
	}
	return out
}

type swigluCase struct {
	f                  ops.Format
	rows, cols, tokens int
	round              precision.Round
}

func (c swigluCase) op() string {
	if c.tokens > 1 {
		return "swiglu4_" + c.f.String()
	}
	return "swiglu_" + c.f.String()
}
func (c swigluCase) vars() string {
	return fmt.Sprintf("rows=%d cols=%d tokens=%d round=%s", c.rows, c.cols, c.tokens, c.round)
}
func (c swigluCase) bytes() int {
	w := ops.Weight{Format: c.f, Rows: c.rows, Cols: c.cols}
	return 2*w.Bytes() + 4*c.tokens*(c.rows+c.cols)
}

// glu is R(R(silu(R(g))) * R(u)).
func glu(g, u num, r precision.Round) num { return g.on(r).silu().on(r).mul(u.on(r)).on(r) }

func mlpRounds(r precision.Round) ops.MLPRounds { return ops.MLPRounds{Linear: r, Silu: r, Mul: r} }

func (c swigluCase) build(b *bench) func(*ops.List) {
	g, u := b.weight(c.f, c.rows, c.cols, 0.2, precision.F32), b.weight(c.f, c.rows, c.cols, 0.2, precision.F32)
	x := b.normals(c.tokens*c.cols, 1, precision.F32)
	out := b.out("out", c.tokens*c.rows)
	for t := range c.tokens {
		for r := range c.rows {
			out.want = append(out.want, glu(g.dot(r, x[t*c.cols:]), u.dot(r, x[t*c.cols:]), c.round))
		}
	}
	xb := b.in(x)
	return func(l *ops.List) { l.Swiglu(&g.Weight, &u.Weight, xb, out.slice(), c.tokens, mlpRounds(c.round)) }
}

func swigluCases() (out []opCase) {
	for f := range ops.NumFormats {
		for _, cols := range columns(f)[1:] {
			for _, rows := range []int{1, 3, 5, 8} {
				for _, r := range grids {
					out = append(out, swigluCase{f, rows, cols, 1, r})
				}
			}
		}
		for _, tokens := range []int{2, 5, 33} {
			for _, r := range grids {
				out = append(out, swigluCase{f, 5, 64, tokens, r})
			}
		}
	}
	return out
}

type siluMulCase struct {
	n     int
	round precision.Round
}

func (c siluMulCase) op() string   { return "silu_mul" }
func (c siluMulCase) vars() string { return fmt.Sprintf("n=%d round=%s", c.n, c.round) }
func (c siluMulCase) bytes() int   { return 12 * c.n }

func (c siluMulCase) build(b *bench) func(*ops.List) {
	g, u := b.normals(c.n, 4, precision.F32), b.normals(c.n, 2, precision.F32)
	gate := b.inout("gate", g, precision.F32)
	for i := range g {
		gate.want = append(gate.want, exactly(g[i]).silu().on(c.round).mul(exactly(u[i])).on(c.round))
	}
	up := b.in(u)
	return func(l *ops.List) { l.SiluMul(gate.slice(), up, c.n, mlpRounds(c.round)) }
}

type residualCase struct {
	n     int
	round precision.Round
}

func (c residualCase) op() string   { return "residual" }
func (c residualCase) vars() string { return fmt.Sprintf("n=%d round=%s", c.n, c.round) }
func (c residualCase) bytes() int   { return 12 * c.n }

func (c residualCase) build(b *bench) func(*ops.List) {
	x, y := b.normals(c.n, 10, precision.F32), b.normals(c.n, 1, precision.F32)
	out := b.inout("x", x, precision.F32)
	for i := range x {
		out.want = append(out.want, exactly(x[i]).add(exactly(y[i])).on(c.round))
	}
	yb := b.in(y)
	return func(l *ops.List) { l.Residual(out.slice(), yb, c.n, c.round) }
}

func elementwiseCases() (out []opCase) {
	for _, n := range []int{1, 31, 32, 33, 63, 64, 65, 127, 256, 1000, 4097} {
		for _, r := range []precision.Round{precision.F32, precision.F16, precision.BF16} {
			out = append(out, siluMulCase{n, r}, residualCase{n, r})
		}
	}
	return out
}
