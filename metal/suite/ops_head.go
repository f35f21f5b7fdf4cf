package suite

import (
	"fmt"
	"math"
	"slices"

	"sibyl/metal/ops"
	"sibyl/precision"
)

type routerCase struct {
	tokens, experts, k int
	ties               bool // equal logits, of which the lowest id must win
	round              precision.Round
}

func (c routerCase) op() string { return "router" }
func (c routerCase) vars() string {
	return fmt.Sprintf("tokens=%d experts=%d k=%d ties=%v round=%s", c.tokens, c.experts, c.k, c.ties, c.round)
}
func (c routerCase) bytes() int { return 8*c.tokens*c.experts + 8*c.tokens*c.k }

func (c routerCase) build(b *bench) func(*ops.List) {
	logits := make([]float32, 0, c.tokens*c.experts)
	probs, index, weight := b.out("probs", c.tokens*c.experts), b.out("index", c.tokens*c.k), b.out("weight", c.tokens*c.k)
	index.ints = true
	for range c.tokens {
		// Distinct logits a sixteenth apart are told apart whatever the rounding of their probabilities.
		row := make([]float32, c.experts)
		for e, p := range b.Perm(c.experts) {
			row[e] = float32(p%96) / 16
			if !c.ties {
				row[e] = float32(p) / 16
			}
		}
		logits = append(logits, row...)
		top := slices.Max(row)
		exps := make([]num, c.experts)
		for e, x := range row {
			exps[e] = exactly(x).sub(exactly(top)).exp()
		}
		den := sum(exps)
		order := make([]int, c.experts)
		p := make([]num, c.experts)
		for e := range order {
			order[e] = e
			p[e] = exps[e].div(den).on(c.round)
		}
		probs.want = append(probs.want, p...)
		slices.SortStableFunc(order, func(i, j int) int {
			return int(math.Copysign(1, float64(row[j])-float64(row[i]))) * btoi(row[i] != row[j])
		})
		var chosen []num
		for _, e := range order[:c.k] {
			index.want = append(index.want, exactly(float32(e)))
			chosen = append(chosen, p[e])
		}
		for _, x := range chosen {
			weight.want = append(weight.want, x.div(sum(chosen)).on(c.round))
		}
	}
	lb := b.in(logits)
	return func(l *ops.List) {
		l.Router(lb, probs.slice(), index.slice(), weight.slice(), c.tokens, c.experts, c.k, c.round, c.round)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func routerCases() (out []opCase) {
	for _, e := range []int{2, 4, 8, 31, 33, 64, 128, 256, 512} {
		for _, k := range []int{1, 2, 8} {
			if k <= e {
				out = append(out, routerCase{3, e, k, false, precision.F32}, routerCase{2, e, k, true, precision.F32})
			}
		}
	}
	return out
}

// expertCase is both experts' kernels: swiglu of the chosen, and down.
type expertCase struct {
	f                        ops.Format
	down                     bool
	tokens, experts, k, I, H int
	round                    precision.Round
}

func (c expertCase) op() string {
	if c.down {
		return "expert_linear_" + c.f.String()
	}
	return "expert_swiglu_" + c.f.String()
}
func (c expertCase) vars() string {
	return fmt.Sprintf("tokens=%d experts=%d k=%d rows=%d cols=%d round=%s", c.tokens, c.experts, c.k, c.I, c.H, c.round)
}
func (c expertCase) bytes() int {
	w := ops.Weight{Format: c.f, Rows: c.I, Cols: c.H}
	n := w.Bytes() * c.tokens * c.k
	if !c.down {
		n *= 2
	}
	return n + 4*c.tokens*(c.H+c.k*c.I)
}

func (c expertCase) build(b *bench) func(*ops.List) {
	slots := c.tokens * c.k
	index := make([]int32, slots)
	for i := range index {
		index[i] = int32(b.IntN(c.experts))
	}
	ib := words(b, index)
	out := b.out("out", slots*c.I)
	if c.down {
		w := b.weight(c.f, c.experts*c.I, c.H, 0.3, precision.F32)
		x := b.normals(slots*c.H, 1, precision.F32)
		for s, e := range index {
			for r := range c.I {
				out.want = append(out.want, w.dot(int(e)*c.I+r, x[s*c.H:]).on(c.round))
			}
		}
		m := ops.Experts{Weight: w.Weight, Stride: c.I}
		m.Rows = c.I
		xb := b.in(x)
		return func(l *ops.List) { l.ExpertLinear(&m, ib, xb, out.slice(), slots, c.round) }
	}
	g, u := b.weight(c.f, c.experts*c.I, c.H, 0.2, precision.F32), b.weight(c.f, c.experts*c.I, c.H, 0.2, precision.F32)
	x := b.normals(c.tokens*c.H, 1, precision.F32)
	for s, e := range index {
		for r := range c.I {
			xt := x[s/c.k*c.H:]
			out.want = append(out.want, glu(g.dot(int(e)*c.I+r, xt), u.dot(int(e)*c.I+r, xt), c.round))
		}
	}
	gate, up := ops.Experts{Weight: g.Weight, Stride: c.I}, ops.Experts{Weight: u.Weight, Stride: c.I}
	gate.Rows, up.Rows = c.I, c.I
	xb := b.in(x)
	return func(l *ops.List) { l.ExpertSwiglu(&gate, &up, ib, xb, out.slice(), c.tokens, c.k, mlpRounds(c.round)) }
}

func expertCases() (out []opCase) {
	for f := range ops.NumFormats {
		for _, down := range []bool{false, true} {
			for _, s := range []struct{ tokens, experts, k, I, H int }{{1, 4, 2, 5, 32}, {3, 4, 2, 8, 64}, {2, 9, 3, 11, 96}, {1, 2, 1, 1, 288}} {
				for _, r := range grids {
					out = append(out, expertCase{f, down, s.tokens, s.experts, s.k, s.I, s.H, r})
				}
			}
		}
	}
	return out
}

type moeCombineCase struct {
	tokens, k, hidden int
	round             precision.Round
}

func (c moeCombineCase) op() string { return "moe_combine" }
func (c moeCombineCase) vars() string {
	return fmt.Sprintf("tokens=%d k=%d hidden=%d round=%s", c.tokens, c.k, c.hidden, c.round)
}
func (c moeCombineCase) bytes() int { return 4 * c.tokens * c.hidden * (c.k + 3) }

func (c moeCombineCase) build(b *bench) func(*ops.List) {
	n := c.tokens * c.hidden
	each, weight, shared, gate := b.normals(n*c.k, 1, c.round), b.normals(c.tokens*c.k, 0.3, precision.F32), b.normals(n, 1, c.round), b.normals(c.tokens, 1, c.round)
	routed, out := b.out("routed", n), b.out("out", n)
	r := c.round
	for t := range c.tokens {
		g := exactly(gate[t]).sigmoid().on(r)
		for h := range c.hidden {
			var terms []num
			for k := range c.k {
				terms = append(terms, exactly(each[(t*c.k+k)*c.hidden+h]).mul(exactly(weight[t*c.k+k])))
			}
			s := sum(terms)
			routed.want = append(routed.want, s)
			out.want = append(out.want, s.add(exactly(shared[t*c.hidden+h]).mul(g).on(r)).on(r))
		}
	}
	eb, wb, sb, gb := b.in(each), b.in(weight), b.in(shared), b.in(gate)
	return func(l *ops.List) {
		l.MoECombine(eb, wb, sb, gb, routed.slice(), out.slice(), c.tokens, c.k, c.hidden, ops.MoERounds{Sigmoid: r, Shared: r, Out: r})
	}
}

func moeCombineCases() (out []opCase) {
	for _, h := range []int{1, 33, 64, 65, 200} {
		for _, k := range []int{1, 2, 8} {
			for _, r := range grids {
				out = append(out, moeCombineCase{2, k, h, r})
			}
		}
	}
	return out
}

// headCase: argmax with its ties, and log-sum-exp.
type headCase struct {
	rows, n int
	kind    string // "plain", "ties", "nan", "infinite"
}

func (c headCase) op() string   { return "head" }
func (c headCase) vars() string { return fmt.Sprintf("rows=%d n=%d %s", c.rows, c.n, c.kind) }
func (c headCase) bytes() int   { return 4 * c.rows * c.n }

func (b *bench) logits(rows, n int, kind string) []float32 {
	x := b.normals(rows*n, 4, precision.F16)
	for r := range rows {
		row := x[r*n:][:n]
		at := func() int { return b.IntN(n) }
		switch kind {
		case "ties":
			for range 4 {
				row[at()] = 31
			}
		case "nan":
			row[at()] = float32(math.NaN())
			row[at()] = float32(math.NaN())
		case "infinite":
			row[at()] = float32(math.Inf(1))
		}
	}
	return x
}

// before is the order of candidates: largest first, NaN above all, lowest id of equals.
func before(x []float32) func(i, j int) int {
	key := func(v float32) float64 {
		if v != v {
			return math.MaxFloat64 // above Inf's place below
		}
		return math.Min(float64(v), 1e300)
	}
	return func(i, j int) int {
		switch a, b := key(x[i]), key(x[j]); {
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return i - j
	}
}

func (c headCase) build(b *bench) func(*ops.List) {
	x := b.logits(c.rows, c.n, c.kind)
	chunks, out := b.out("chunks", c.rows*ops.HeadChunks(c.n)*4), b.out("out", c.rows*4)
	out.check = func(got []float32) error {
		for r := range c.rows {
			row := x[r*c.n:][:c.n]
			id := 0
			for i := range row {
				if before(row)(i, id) < 0 {
					id = i
				}
			}
			ties := 0
			for i, v := range row {
				ties += btoi(v == row[id] || i == id)
			}
			g := got[4*r:]
			if int(math.Float32bits(g[0])) != id || int(math.Float32bits(g[2])) != ties || math.Float32bits(g[1]) != math.Float32bits(row[id]) {
				return fmt.Errorf("row %d: id %d with %d ties, want %d with %d", r, math.Float32bits(g[0]), math.Float32bits(g[2]), id, ties)
			}
			if c.kind == "nan" || c.kind == "infinite" {
				continue
			}
			want := lse(row)
			if d := math.Abs(float64(g[3]) - want.v); !(d <= want.e) {
				return fmt.Errorf("row %d: log-sum-exp %v, want %v, %.3g apart, bound %.3g", r, g[3], want.v, d, want.e)
			}
		}
		return nil
	}
	xb := b.in(x)
	return func(l *ops.List) { l.Head(xb, chunks.slice(), out.slice(), c.rows, c.n) }
}

// lse is log(sum exp(x - max)) + max; a chunk's maximum adds one more exp and product to a term.
func lse(row []float32) num {
	top := slices.Max(row)
	terms := make([]num, len(row))
	for i, v := range row {
		terms[i] = exactly(v).sub(exactly(top)).exp()
		terms[i].e += terms[i].v*20*unit + tiny
	}
	return sum(terms).log().add(exactly(top))
}

func headCases() (out []opCase) {
	for _, n := range []int{1, 2, 31, 32, 33, 257, 2047, 2048, 2049, 5000, 70000} {
		for _, kind := range []string{"plain", "ties", "nan", "infinite"} {
			out = append(out, headCase{1, n, kind}, headCase{3, n, kind})
		}
	}
	return out
}

type topKCase struct {
	rows, n, k int
	kind       string
}

func (c topKCase) op() string { return "topk" }
func (c topKCase) vars() string {
	return fmt.Sprintf("rows=%d n=%d k=%d %s", c.rows, c.n, c.k, c.kind)
}
func (c topKCase) bytes() int { return 4 * c.rows * c.n * c.k }

func (c topKCase) build(b *bench) func(*ops.List) {
	x := b.logits(c.rows, c.n, c.kind)
	n := c.rows * ops.HeadChunks(c.n) * c.k
	cv, ci := b.out("chunk values", n), b.out("chunk ids", n)
	values, ids := b.out("values", c.rows*c.k), b.out("ids", c.rows*c.k)
	ids.ints = true
	ids.check = func(got []float32) error {
		for r := range c.rows {
			row := x[r*c.n:][:c.n]
			order := make([]int, c.n)
			for i := range order {
				order[i] = i
			}
			slices.SortStableFunc(order, before(row))
			for k := range c.k {
				want := -1
				if k < c.n {
					want = order[k]
				}
				if int(got[r*c.k+k]) != want {
					return fmt.Errorf("row %d: candidate %d is id %v, want %d", r, k, got[r*c.k+k], want)
				}
			}
		}
		return nil
	}
	xb := b.in(x)
	return func(l *ops.List) { l.TopK(xb, cv.slice(), ci.slice(), values.slice(), ids.slice(), c.rows, c.n, c.k) }
}

func topKCases() (out []opCase) {
	for _, n := range []int{1, 3, 32, 33, 2048, 2049, 6000} {
		for _, k := range []int{1, 2, 5, 40} {
			for _, kind := range []string{"plain", "ties", "nan"} {
				out = append(out, topKCase{2, n, k, kind})
			}
		}
	}
	return out
}
