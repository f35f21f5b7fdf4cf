package suite

import (
	"fmt"
	"math"

	"sibyl/metal/gpu"
	"sibyl/metal/ops"
	"sibyl/precision"
)

// raggedOf gives sequences of lens rows, of which sequence i stands in slot n-1-i, and their rows together.
func raggedOf(lens []int, pos int) (seqs []ops.Seq, rows int) {
	for i, n := range lens {
		seqs = append(seqs, ops.Seq{Row: uint32(rows), Len: uint32(n), Pos: uint32(pos), Slot: uint32(len(lens) - 1 - i)})
		rows += n
	}
	return seqs, rows
}

type convCase struct {
	channels, taps int
	lens           []int
	round          precision.Round
}

func (c convCase) op() string { return "conv_silu" }
func (c convCase) vars() string {
	return fmt.Sprintf("channels=%d taps=%d lens=%v round=%s", c.channels, c.taps, c.lens, c.round)
}
func (c convCase) bytes() int {
	_, rows := raggedOf(c.lens, 0)
	return 4 * c.channels * (2*rows + c.taps*(1+2*len(c.lens)))
}

func (c convCase) build(b *bench) func(*ops.List) {
	seqs, rows := raggedOf(c.lens, 0)
	C, K := c.channels, c.taps
	x, w := b.normals(rows*C, 1, c.round), b.normals(C*K, 0.5, c.round)
	old := b.normals(len(seqs)*C*K, 1, c.round)
	state := b.inout("state", old, precision.F32)
	pre, out := b.out("pre", rows*C), b.out("out", rows*C)
	pre.want, out.want, state.want = make([]num, rows*C), make([]num, rows*C), make([]num, len(old))
	for _, s := range seqs {
		for ch := range C {
			win := append([]float32(nil), old[(int(s.Slot)*C+ch)*K:][:K]...)
			for t := range int(s.Len) {
				i := (int(s.Row)+t)*C + ch
				win = append(win[1:], x[i])
				var p []num
				for j := range K {
					p = append(p, exactly(w[ch*K+j]).mul(exactly(win[j])))
				}
				pre.want[i] = sum(p).on(c.round)
				out.want[i] = pre.want[i].silu().on(c.round)
			}
			for j := range K {
				state.want[(int(s.Slot)*C+ch)*K+j] = exactly(win[j]).on(c.round)
			}
		}
	}
	xb, wb, sb := b.in(x), b.in(w), b.seqs(seqs)
	return func(l *ops.List) {
		l.Conv(xb, wb, state.slice(), pre.slice(), out.slice(), sb, len(seqs), C, K, ops.ConvRounds{Sum: c.round, Out: c.round, State: c.round}, true)
	}
}

func convCases() (out []opCase) {
	for _, ch := range []int{1, 33, 64, 100} {
		for _, taps := range []int{2, 4} {
			for _, lens := range [][]int{{1}, {2}, {3}, {33}, {64}, {65}, {127}, {1, 1, 1}, {5, 1, 2}} {
				for _, r := range grids {
					out = append(out, convCase{ch, taps, lens, r})
				}
			}
		}
	}
	return append(out, convCase{8, 8, []int{3, 256}, precision.F32}, convCase{8, 1, []int{3}, precision.F32})
}

// gdnCase runs T tokens of each sequence in one dispatch and demands the bits of T dispatches; each of those is one step from a
// state that is known, whose bound a running error analysis can give.
type gdnCase struct {
	d     ops.GDNDims
	lens  []int
	state precision.Round // of the state, and of every point where coreai-fp16 rounds
}

func (c gdnCase) op() string {
	return "gdn_step_" + map[precision.Round]string{precision.F32: "f32", precision.F16: "f16"}[c.state]
}
func (c gdnCase) vars() string {
	return fmt.Sprintf("nk=%d nv=%d dk=%d dv=%d lens=%v", c.d.KeyHeads, c.d.ValueHeads, c.d.KeyDim, c.d.ValueDim, c.lens)
}
func (c gdnCase) bytes() int {
	_, rows := raggedOf(c.lens, 0)
	return 4*rows*(2*c.d.KeyHeads*c.d.KeyDim+2*c.d.ValueHeads*c.d.ValueDim) + 2*len(c.lens)*c.d.ValueHeads*c.d.KeyDim*c.d.ValueDim*4
}

// rounds: coreai-fp16's for an fp16 state, none for an fp32 one.
func (c gdnCase) rounds() ops.GDNRounds {
	r := c.state
	eps := float32(1e-6)
	if r == precision.F16 {
		eps = 17 * 0x1p-24
	}
	return ops.GDNRounds{Square: r, Sum: r, Eps: r, Rsqrt: r, L2: r, Beta: r, Core: r, L2Eps: eps, Softplus3: r == precision.F16, State: r}
}

func (c gdnCase) build(b *bench) func(*ops.List) {
	d := c.d
	seqs, rows := raggedOf(c.lens, 0)
	width, cells := 2*d.KeyHeads*d.KeyDim+d.ValueHeads*d.ValueDim, d.ValueHeads*d.ValueDim*d.KeyDim
	in := gdnInputs{
		conv: b.normals(rows*width, 0.5, c.state), a: b.normals(rows*d.ValueHeads, 2, c.state), b: b.normals(rows*d.ValueHeads, 1, c.state),
		rate: b.normals(d.ValueHeads, 1, precision.F32), bias: b.normals(d.ValueHeads, 1, precision.F32),
	}
	for i, v := range in.rate {
		in.rate[i] = float32(math.Exp(float64(v)))
	}
	start := b.normals(len(seqs)*cells, 0.3, c.state)
	whole, steps := c.outputs(b, "", rows, start), c.outputs(b, "step ", rows, start)
	t := ops.GDNTensors{Conv: b.in(in.conv), A: b.in(in.a), B: b.in(in.b), Rate: b.in(in.rate), DtBias: b.in(in.bias), Seqs: b.seqs(seqs), WantTaps: true}
	scale, r := float32(1/math.Sqrt(float64(d.KeyDim))), c.rounds()
	step := c.firstStep(seqs, in, start, scale)
	// The first token of every sequence against float64; the last state and all outs against the stepped run.
	for i := range step {
		step[i](steps)
	}
	first := make([]gpu.Slice, 0, rows)
	longest := 0
	for _, n := range c.lens {
		longest = max(longest, n)
	}
	live := make([]int, 0, longest)
	for k := range longest {
		var now []ops.Seq
		for _, s := range seqs {
			if k < int(s.Len) {
				now = append(now, ops.Seq{Row: s.Row + uint32(k), Len: 1, Slot: s.Slot})
			}
		}
		first, live = append(first, b.seqs(now)), append(live, len(now))
	}
	whole.state.check = func([]float32) error { return sameAs(whole.state, steps.state) }
	whole.out.check = func([]float32) error { return sameAs(whole.out, steps.out) }
	whole.g.check = func([]float32) error { return sameAs(whole.g, steps.g) }
	return func(l *ops.List) {
		whole.bind(&t)
		l.GDNStep(t, len(seqs), d, scale, r)
		u := t
		steps.bind(&u)
		for k := range longest {
			u.Seqs = first[k]
			l.GDNStep(u, live[k], d, scale, r)
		}
	}
}

// sameAs demands equal bits of two outputs.
func sameAs(a, b *output) error {
	p, q := a.buf.Bytes()[:a.bytes()], b.buf.Bytes()[:b.bytes()]
	for i := range p {
		if p[i] != q[i] {
			return fmt.Errorf("element %d differs from the run token by token", i*a.n/a.bytes())
		}
	}
	return nil
}

type gdnInputs struct{ conv, a, b, rate, bias []float32 }

type gdnOutputs struct{ state, out, q, k, g, beta *output }

func (c gdnCase) outputs(b *bench, prefix string, rows int, start []float32) gdnOutputs {
	d := c.d
	return gdnOutputs{
		state: b.inout(prefix+"state", start, c.state), out: b.out(prefix+"out", rows*d.ValueHeads*d.ValueDim),
		q: b.out(prefix+"q_l2", rows*d.KeyHeads*d.KeyDim), k: b.out(prefix+"k_l2", rows*d.KeyHeads*d.KeyDim),
		g: b.out(prefix+"g", rows*d.ValueHeads), beta: b.out(prefix+"beta", rows*d.ValueHeads),
	}
}

func (o gdnOutputs) bind(t *ops.GDNTensors) {
	t.State, t.Out, t.QL2, t.KL2, t.G, t.Beta = o.state.slice(), o.out.slice(), o.q.slice(), o.k.slice(), o.g.slice(), o.beta.slice()
}

// firstStep gives, for each sequence, what fills in the wants of its first token; states are wanted of sequences of one token.
func (c gdnCase) firstStep(seqs []ops.Seq, in gdnInputs, start []float32, scale float32) (fill []func(gdnOutputs)) {
	d, r := c.d, c.rounds()
	for _, s := range seqs {
		fill = append(fill, func(o gdnOutputs) {
			for _, x := range []*output{o.state, o.out, o.q, o.k, o.g, o.beta} {
				if x.want == nil {
					x.want = make([]num, x.n)
					for i := range x.want {
						x.want[i] = num{e: math.Inf(1)} // not looked at
					}
				}
			}
			row := int(s.Row)
			width := 2*d.KeyHeads*d.KeyDim + d.ValueHeads*d.ValueDim
			conv := in.conv[row*width:][:width]
			q, k := make([][]num, d.KeyHeads), make([][]num, d.KeyHeads)
			for h := range d.KeyHeads {
				q[h] = l2norm(conv[h*d.KeyDim:][:d.KeyDim], r)
				k[h] = l2norm(conv[(d.KeyHeads+h)*d.KeyDim:][:d.KeyDim], r)
				copy(o.q.want[(row*d.KeyHeads+h)*d.KeyDim:], q[h])
				copy(o.k.want[(row*d.KeyHeads+h)*d.KeyDim:], k[h])
			}
			for h := range d.ValueHeads {
				i := row*d.ValueHeads + h
				beta := exactly(in.b[i]).sigmoid().on(r.Beta)
				g := exactly(-in.rate[h]).mul(exactly(in.a[i]).add(exactly(in.bias[h])).softplus(r.Softplus3)).on(r.G)
				o.g.want[i], o.beta.want[i] = g, beta
				kh := h / (d.ValueHeads / d.KeyHeads)
				for e := range d.ValueDim {
					S := start[((int(s.Slot)*d.ValueHeads+h)*d.ValueDim+e)*d.KeyDim:][:d.KeyDim]
					v := conv[2*d.KeyHeads*d.KeyDim+h*d.ValueDim+e]
					out, next := deltaRow(S, q[kh], k[kh], exactly(v), g.exp(), beta, scale, r)
					o.out.want[i*d.ValueDim+e] = out.on(r.Core)
					if s.Len == 1 {
						copy(o.state.want[((int(s.Slot)*d.ValueHeads+h)*d.ValueDim+e)*d.KeyDim:], next)
					}
				}
			}
		})
	}
	return fill
}

// l2norm is x * rsqrt(sum(x*x) + eps) with its rounding points.
func l2norm(x []float32, r ops.GDNRounds) []num {
	sq := make([]num, len(x))
	for i, v := range x {
		sq[i] = exactly(v).mul(exactly(v)).on(r.Square)
	}
	k := sum(sq).on(r.Sum).add(exactly(r.L2Eps)).on(r.Eps).rsqrt().on(r.Rsqrt)
	out := make([]num, len(x))
	for i, v := range x {
		out[i] = exactly(v).mul(k).on(r.L2)
	}
	return out
}

// deltaRow is one row of the state: its next value and the out before rounding.
func deltaRow(S []float32, q, k []num, v, decay, beta num, scale float32, r ops.GDNRounds) (o num, next []num) {
	next = make([]num, len(S))
	terms := make([]num, len(S))
	for i, s := range S {
		next[i] = exactly(s).mul(decay)
		terms[i] = next[i].mul(k[i])
	}
	delta := v.sub(sum(terms)).mul(beta)
	for i := range next {
		next[i] = next[i].add(k[i].mul(delta))
		terms[i] = next[i].mul(q[i].mul(exactly(scale)).on(r.QScale))
		next[i] = next[i].on(r.State)
	}
	return sum(terms), next
}

func gdnCases() (out []opCase) {
	for _, d := range []ops.GDNDims{{KeyHeads: 1, ValueHeads: 1, KeyDim: 24, ValueDim: 40}, {KeyHeads: 2, ValueHeads: 6, KeyDim: 32, ValueDim: 24},
		{KeyHeads: 2, ValueHeads: 2, KeyDim: 40, ValueDim: 33}, {KeyHeads: 1, ValueHeads: 3, KeyDim: 64, ValueDim: 31},
		{KeyHeads: 3, ValueHeads: 3, KeyDim: 96, ValueDim: 5}, {KeyHeads: 2, ValueHeads: 4, KeyDim: 128, ValueDim: 16},
		{KeyHeads: 1, ValueHeads: 1, KeyDim: 200, ValueDim: 7}, {KeyHeads: 16, ValueHeads: 48, KeyDim: 24, ValueDim: 6}} {
		for _, lens := range [][]int{{1}, {2}, {33}, {64}, {65}, {1, 1, 1}, {5, 1, 2}} {
			if d.ValueHeads > 6 && lens[0] > 5 {
				continue
			}
			for _, s := range grids {
				out = append(out, gdnCase{d, lens, s})
			}
		}
	}
	d := ops.GDNDims{KeyHeads: 1, ValueHeads: 2, KeyDim: 24, ValueDim: 6}
	for _, s := range grids {
		out = append(out, gdnCase{d, []int{127}, s}, gdnCase{d, []int{256, 3}, s})
	}
	return out
}

type ropeCase struct {
	rows, heads, hd, rot int
	round                precision.Round
}

func (c ropeCase) op() string { return "rope" }
func (c ropeCase) vars() string {
	return fmt.Sprintf("rows=%d heads=%d hd=%d rot=%d round=%s", c.rows, c.heads, c.hd, c.rot, c.round)
}
func (c ropeCase) bytes() int { return 8 * c.rows * c.heads * c.rot }

func (c ropeCase) build(b *bench) func(*ops.List) {
	x := b.normals(c.rows*c.heads*c.hd, 1, c.round)
	half := c.rot / 2
	cos, sin := make([]float32, c.rows*half), make([]float32, c.rows*half)
	for i := range cos {
		s, k := math.Sincos(b.Float64() * 7)
		cos[i], sin[i] = c.round.Value(float32(k)), c.round.Value(float32(s))
	}
	out := b.inout("x", x, precision.F32)
	for r := range c.rows {
		for h := range c.heads {
			y := x[(r*c.heads+h)*c.hd:][:c.hd]
			want := make([]num, c.hd)
			for i, v := range y {
				want[i] = exactly(v)
			}
			for j := range half {
				p := func(a, t float32) num { return exactly(a).mul(exactly(t)).on(c.round) }
				k, s := cos[r*half+j], sin[r*half+j]
				want[j] = p(y[j], k).sub(p(y[j+half], s)).on(c.round)
				want[j+half] = p(y[j+half], k).add(p(y[j], s)).on(c.round)
			}
			out.want = append(out.want, want...)
		}
	}
	cb, sb := b.in(cos), b.in(sin)
	return func(l *ops.List) { l.Rope(out.slice(), cb, sb, c.rows, c.heads, c.hd, c.rot, c.round, c.round) }
}

func ropeCases() (out []opCase) {
	for _, s := range []struct{ hd, rot int }{{24, 6}, {48, 12}, {64, 16}, {64, 64}, {128, 32}, {256, 64}, {256, 130}} {
		for _, heads := range []int{1, 3, 24} {
			for _, rows := range []int{1, 5} {
				for _, r := range grids {
					out = append(out, ropeCase{rows, heads, s.hd, s.rot, r})
				}
			}
		}
	}
	return out
}
