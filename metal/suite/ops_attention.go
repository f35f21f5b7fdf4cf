package suite

import (
	"fmt"
	"math"

	"sibyl/metal/ops"
	"sibyl/precision"
)

type kvCase struct {
	kv, hd, pos int
	lens        []int
	typ         precision.Round
}

func (c kvCase) op() string { return "kv_store_" + typeName(c.typ) }
func (c kvCase) vars() string {
	return fmt.Sprintf("kv=%d hd=%d pos=%d lens=%v", c.kv, c.hd, c.pos, c.lens)
}
func (c kvCase) bytes() int {
	_, rows := raggedOf(c.lens, 0)
	return 16 * rows * c.kv * c.hd
}

func typeName(r precision.Round) string {
	if r == precision.F16 {
		return "f16"
	}
	return "f32"
}

func (c kvCase) build(b *bench) func(*ops.List) {
	seqs, rows := raggedOf(c.lens, c.pos)
	longest := 0
	for _, n := range c.lens {
		longest = max(longest, n)
	}
	room := c.pos + longest + 3
	k, v := b.normals(rows*c.kv*c.hd, 1, precision.F32), b.normals(rows*c.kv*c.hd, 1, precision.F32)
	start := b.normals(len(seqs)*c.kv*room*c.hd, 1, c.typ)
	keys, values := b.inout("keys", start, c.typ), b.inout("values", start, c.typ)
	for _, o := range []struct {
		out *output
		x   []float32
	}{{keys, k}, {values, v}} {
		for _, x := range start {
			o.out.want = append(o.out.want, exactly(x))
		}
		for _, s := range seqs {
			for t := range int(s.Len) {
				for h := range c.kv {
					for d := range c.hd {
						from := ((int(s.Row)+t)*c.kv+h)*c.hd + d
						o.out.want[((int(s.Slot)*c.kv+h)*room+c.pos+t)*c.hd+d] = exactly(o.x[from]).on(c.typ)
					}
				}
			}
		}
	}
	kb, vb, sb := b.in(k), b.in(v), b.seqs(seqs)
	d := ops.AttentionDims{Heads: c.kv, KVHeads: c.kv, HeadDim: c.hd, Cap: room}
	return func(l *ops.List) { l.KVStore(kb, vb, keys.slice(), values.slice(), sb, len(seqs), longest, d, c.typ) }
}

func kvCases() (out []opCase) {
	for _, kv := range []int{1, 2, 3} {
		for _, hd := range []int{24, 64} {
			for _, lens := range [][]int{{1}, {33}, {1, 1}, {5, 2}} {
				for _, pos := range []int{0, 7} {
					for _, typ := range grids {
						out = append(out, kvCase{kv, hd, pos, lens, typ})
					}
				}
			}
		}
	}
	return out
}

// attentionCase is attention with its combine: queries of sequences whose caches are filled up to their last row.
type attentionCase struct {
	nq, nkv, hd, pos int
	lens             []int
	typ              precision.Round
}

func (c attentionCase) op() string { return "attention_" + typeName(c.typ) }
func (c attentionCase) vars() string {
	return fmt.Sprintf("nq=%d nkv=%d hd=%d pos=%d lens=%v", c.nq, c.nkv, c.hd, c.pos, c.lens)
}
func (c attentionCase) bytes() int {
	_, rows := raggedOf(c.lens, 0)
	elem := 4
	if c.typ == precision.F16 {
		elem = 2
	}
	return 2*elem*len(c.lens)*c.nkv*(c.pos+c.lens[0])*c.hd + 4*rows*c.nq*c.hd*4
}

// combineRounds: coreai-fp16's for an fp16 cache.
func combineRounds(r precision.Round) ops.CombineRounds {
	return ops.CombineRounds{Out: r, Sigmoid: r, Gated: r}
}

func (c attentionCase) build(b *bench) func(*ops.List) {
	seqs, rows := raggedOf(c.lens, c.pos)
	room := c.pos + 1
	for _, n := range c.lens {
		room = max(room, c.pos+n+2)
	}
	d := ops.AttentionDims{Heads: c.nq, KVHeads: c.nkv, HeadDim: c.hd, Cap: room}
	q, qg := b.normals(rows*c.nq*c.hd, 2, c.typ), b.normals(rows*c.nq*2*c.hd, 1, c.typ)
	k, v := b.normals(len(seqs)*c.nkv*room*c.hd, 1, c.typ), b.normals(len(seqs)*c.nkv*room*c.hd, 1, c.typ)
	keys, values := b.inout("keys", k, c.typ), b.inout("values", v, c.typ)
	for i := range k { // read only
		keys.want, values.want = append(keys.want, exactly(k[i])), append(values.want, exactly(v[i]))
	}
	splits := ops.Splits(seqs)
	part := b.out("part", ops.PartFloats(rows, splits, d))
	pre, out := b.out("pre", rows*c.nq*c.hd), b.out("out", rows*c.nq*c.hd)
	scale := float32(1 / math.Sqrt(float64(c.hd)))
	for _, s := range seqs {
		for t := range int(s.Len) {
			for h := range c.nq {
				at := (int(s.Row)+t)*c.nq + h
				base := (int(s.Slot)*c.nkv + h/(c.nq/c.nkv)) * room * c.hd
				o := attend(q[at*c.hd:][:c.hd], k[base:], v[base:], c.pos+t+1, scale, splits)
				for e := range c.hd {
					p := o[e].on(c.typ)
					g := exactly(qg[at*2*c.hd+c.hd+e]).sigmoid().on(c.typ)
					pre.want, out.want = append(pre.want, p), append(out.want, p.mul(g).on(c.typ))
				}
			}
		}
	}
	tiles := ops.Tiles(seqs, d)
	var w []uint32
	for _, x := range tiles {
		w = append(w, x.Row, x.Tokens, x.Seq, x.Heads)
	}
	qb, gb, sb, tb := b.in(q), b.in(qg), b.seqs(seqs), words(b, w)
	return func(l *ops.List) {
		l.Attention(qb, keys.slice(), values.slice(), part.slice(), sb, tb, len(tiles), splits, d, scale, precision.F32, c.typ)
		l.Combine(part.slice(), gb, pre.slice(), out.slice(), rows, splits, d, combineRounds(c.typ))
	}
}

// attend is one query against n keys. With m the largest score, a weight is exp(s - m): its relative error is what s and m err by
// (m is one of the computed scores: at most the largest error), 4 ulp of exp, and what rescaling by tiles and splits adds: exp(top -
// best) and a product each, over a telescoping chain whose factors' exact product is the weight; only tiles in which the maximum rises
// contribute more than rounding, and each factor errs by 9 units and its argument's unit.
func attend(q, k, v []float32, n int, scale float32, splits int) []num {
	hd := len(q)
	scores := make([]num, n)
	scaled := make([]num, hd)
	for i, x := range q {
		scaled[i] = exactly(x).mul(exactly(scale))
	}
	top, slack := math.Inf(-1), 0.0
	for p := range scores {
		terms := make([]num, hd)
		for i := range terms {
			terms[i] = scaled[i].mul(exactly(k[p*hd+i]))
		}
		scores[p] = sum(terms)
		top, slack = math.Max(top, scores[p].v), math.Max(slack, scores[p].e)
	}
	steps := float64((n+31)/32 + splits)
	den := 0.0
	weights := make([]float64, n)
	low := 0.0
	for p, s := range scores {
		weights[p] = math.Exp(s.v - top)
		den += weights[p]
		low = math.Min(low, s.v-top)
	}
	// Relative error of a weight, of which the common shift of m cancels in the quotient but is kept: slack twice, once for s, once for m.
	rel := 2*slack + unit*(10+math.Abs(low)) + steps*12*unit
	out := make([]num, hd)
	for e := range out {
		var o, m float64
		for p, w := range weights {
			o, m = o+w*float64(v[p*hd+e]), m+w*math.Abs(float64(v[p*hd+e]))
		}
		// numerator: n sums; denominator: the same; their quotient once more
		err := m*(rel+float64(n+hd)*unit) + math.Abs(o)*(rel+float64(n)*unit)
		out[e] = rounded(o/den, err/den*(1+0x1p-10), 1)
	}
	return out
}

func attentionCases() (out []opCase) {
	for _, s := range []struct{ nq, nkv, hd int }{{1, 1, 24}, {4, 2, 48}, {6, 2, 64}, {3, 1, 40}, {8, 8, 25}, {8, 2, 256}, {12, 2, 32}, {24, 4, 128}, {48, 1, 24}, {10, 1, 72}} {
		for _, pos := range []int{0, 1, 31, 32, 33, 255} {
			for _, lens := range [][]int{{1}, {3, 1}} {
				for _, typ := range grids {
					out = append(out, attentionCase{s.nq, s.nkv, s.hd, pos, lens, typ})
				}
			}
		}
	}
	for _, typ := range grids {
		for _, n := range []int{33, 64, 65} {
			out = append(out, attentionCase{4, 2, 24, 0, []int{n}, typ}, attentionCase{3, 1, 32, 5, []int{n, 2}, typ})
		}
		for _, pos := range []int{510, 511, 512, 1024, 4096} {
			out = append(out, attentionCase{4, 2, 24, pos, []int{1}, typ}, attentionCase{2, 2, 64, pos, []int{2}, typ})
		}
	}
	return out
}

// combineCase is the combine by itself, on splits of which some are empty.
type combineCase struct {
	nq, hd, rows, splits int
	round                precision.Round
}

func (c combineCase) op() string { return "attention_combine" }
func (c combineCase) vars() string {
	return fmt.Sprintf("nq=%d hd=%d rows=%d splits=%d round=%s", c.nq, c.hd, c.rows, c.splits, c.round)
}
func (c combineCase) bytes() int { return 4 * c.rows * c.nq * (c.splits*(c.hd+2) + 4*c.hd) }

func (c combineCase) build(b *bench) func(*ops.List) {
	d := ops.AttentionDims{Heads: c.nq, KVHeads: 1, HeadDim: c.hd}
	qg := b.normals(c.rows*c.nq*2*c.hd, 1, c.round)
	part := make([]float32, ops.PartFloats(c.rows, c.splits, d))
	pre, out := b.out("pre", c.rows*c.nq*c.hd), b.out("out", c.rows*c.nq*c.hd)
	for h := range c.rows * c.nq {
		p := part[h*c.splits*(c.hd+2):][:c.splits*(c.hd+2)]
		top := float32(math.Inf(-1))
		for s := range c.splits {
			x := p[s*(c.hd+2):]
			if s%3 == 2 { // no visible position: the maximum's start, and zeros
				x[0] = -math.MaxFloat32
				continue
			}
			x[0], x[1] = float32(b.NormFloat64()*3), float32(1+b.Float64()*10)
			for i := range c.hd {
				x[2+i] = float32(b.NormFloat64())
			}
			top = max(top, x[0])
		}
		var den []num
		fade := make([]num, c.splits)
		for s := range c.splits {
			fade[s] = exactly(p[s*(c.hd+2)]).sub(exactly(top)).exp()
			if s%3 == 2 {
				fade[s] = num{}
			}
			den = append(den, exactly(p[s*(c.hd+2)+1]).mul(fade[s]))
		}
		for i := range c.hd {
			var terms []num
			for s := range c.splits {
				terms = append(terms, exactly(p[s*(c.hd+2)+2+i]).mul(fade[s]))
			}
			o := sum(terms).div(sum(den)).on(c.round)
			g := exactly(qg[h*2*c.hd+c.hd+i]).sigmoid().on(c.round)
			pre.want, out.want = append(pre.want, o), append(out.want, o.mul(g).on(c.round))
		}
	}
	pb, gb := b.in(part), b.in(qg)
	return func(l *ops.List) {
		l.Combine(pb, gb, pre.slice(), out.slice(), c.rows, c.splits, d, combineRounds(c.round))
	}
}

func combineCases() (out []opCase) {
	for _, hd := range []int{24, 31, 48, 64, 256} {
		for _, splits := range []int{1, 2, 3, 9} {
			for _, r := range grids {
				out = append(out, combineCase{3, hd, 2, splits, r})
			}
		}
	}
	return out
}
