package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// pairQ is the product of one token with quantized weights, made as fast ones are (quick), in sums of two float32 a lane (pair):
//
//	t = h + w*x	rounded once, h near c = 1.5 * 2^k
//	d = t - h	exact, since both lie between 2^k and 2^(k+1)
//	l = l + (w*x - d)	what t lost
//
// Scales bound the weights beforehand, so that k is known with which no t leaves that interval; to look would be a seventh of the time.
type pairQ struct {
	name string
	bits int
	what string
	regs func(k *quickWalk)
	// weights makes w the block's 32 weights, step by step.
	weights func(k *quickWalk) (w []reg.VecVirtual, steps []func())
}

// pairBlockCols is how many columns a pair of sums has before it joins a sum in float64.
const pairBlockCols = 1024

var pairQs = []pairQ{
	{"pairI8", 8, "q[r, i] * s[r, i/32] rounded to binary16, scale = 2^13 s and min = (2^13+1) s", func(k *quickWalk) { k.m = GP64() }, (*quickWalk).roundedI8},
	{"pairI4", 4, "table[off[r, i/32]][q[r, i]] * scale[r, i/32], x ordered", (*quickWalk).tables, (*quickWalk).roundedI4},
	{"pairU4", 4, "table[off[r, i/32]][q[r, i]] * scale[r, i/32] + min[r, i/32] rounded to bf16, x ordered", func(k *quickWalk) {
		k.m = GP64()
		k.tables()
		k.constant(two16())
		k.constant(expBits())
	}, (*quickWalk).roundedU4},
}

// roundedI8 is rounded, its scales in registers: loads are what a core has two of a cycle.
func (k *quickWalk) roundedI8() (w []reg.VecVirtual, steps []func()) {
	y, r := k.vecs(), k.vecs()
	var s, s1 reg.VecVirtual
	return r, append(k.bytes(y),
		func() { s, s1 = k.all(k.s), k.all(k.m) },
		func() { k.parts(func(p, _ int) { VMULPS(s1, y[p], r[p]) }) },
		func() { k.parts(func(p, _ int) { VFNMADD231PS(s, y[p], r[p]) }) })
}

// roundedI4 scales the block's sixteen weights and looks them up.
func (k *quickWalk) roundedI4() (w []reg.VecVirtual, steps []func()) {
	t, lookup := k.lookup()
	w, steps = k.byParity(t[0])
	return w, append([]func(){lookup, func() { VMULPS_BCST(k.ofBlock(k.s), t[0], t[0]) }}, steps...)
}

// roundedU4 makes them as roundU4 does.
func (k *quickWalk) roundedU4() (w []reg.VecVirtual, steps []func()) {
	t, lookup := k.lookup()
	w, steps = k.byParity(t[0])
	return w, append(append([]func(){lookup}, k.addMin(t)...), steps...)
}

// byParity makes w of the block's nibbles what table holds for them: the even columns, and the odd ones.
func (k *quickWalk) byParity(table reg.VecVirtual) (w []reg.VecVirtual, steps []func()) {
	i, lo, hi := ZMM(), ZMM(), ZMM()
	return []reg.VecVirtual{lo, hi}, []func(){
		func() { VPMOVZXBD(k.weights(0), i) },
		func() { VPERMPS(table, i, lo) }, // by the low four bits
		func() { VPSRLD(U8(4), i, i) },
		func() { VPERMPS(table, i, hi) },
	}
}

func (p pairQ) emit() {
	TEXT(p.name, NOSPLIT, "func(a *byte)")
	describe(p.name+": for r < rows: dst[r] = sum over i < n of x[i] times "+p.what+", n a multiple of 32 and not 0;",
		"x float32, dst float64; rows without a gap; a.scale, a.min and a.off hold four bytes a block, a.sqs where a sum of float32 begins: 1.5*2^k.")
	a := Load(Param("a"), GP64())
	k := &quickWalk{walk: newWalk(format{name: p.name, bits: p.bits, block: scaleF16}, a, 1), zmm: true, x: GP64()}
	count, dst, begin, left := load64(a, argRows), load64(a, argDst), load64(a, argSqs), GP64()
	h, l, sum := zmms(8), zmms(8), zmms(2)
	p.regs(k)
	if k.off != nil {
		MOVQ(Mem{Base: a, Disp: argOff}, k.off)
		MOVQ(Mem{Base: a, Disp: argTable}, k.table)
	}
	if k.m != nil {
		MOVQ(Mem{Base: a, Disp: argMin}, k.m)
	}
	q := quick{bits: p.bits, zmm: true, wide: true, row: func(k *quickWalk) []func() {
		w, steps := p.weights(k)
		t, x := zmms(2), zmms(2)
		at := func(i int) int { return (2*k.b + i) % len(h) }
		both := func(f func(i int)) func() {
			return func() {
				for i := range w {
					f(i)
				}
			}
		}
		return append(steps,
			both(func(i int) { VMOVAPS(h[at(i)], t[i]) }),
			both(func(i int) { VMOVUPS(k.tokens(16*i, 4), x[i]) }),
			both(func(i int) { VFMADD231PS(x[i], w[i], h[at(i)]) }),
			both(func(i int) { VSUBPS(t[i], h[at(i)], t[i]) }),
			both(func(i int) { VFMSUB132PS(x[i], t[i], w[i]) }), // w*x - d
			both(func(i int) { VADDPS(w[i], l[at(i)], l[at(i)]) }))
	}}
	Label("row")
	MOVQ(Mem{Base: a, Disp: argX}, k.x)
	MOVQ(Mem{Base: a, Disp: argN}, left)
	for _, z := range sum {
		VPXORD(z, z, z)
	}
	Label("block")
	MOVQ(U32(pairBlockCols), k.n)
	CMPQ(left, k.n)
	CMOVQLT(left, k.n)
	SUBQ(k.n, left)
	for i := range h {
		VBROADCASTSS(Mem{Base: begin}, h[i])
		VPXORD(l[i], l[i], l[i])
	}
	SUBQ(U32(32*quickRound), k.n)
	JL(LabelRef("rest"))
	loop("loop")
	for at := 0; at < 4*p.bits*quickRound; at += 64 {
		PREFETCHT1(Mem{Base: k.w, Disp: quickAhead + at})
	}
	k.blocks(q, quickRound, 128)
	JGE(LabelRef("loop"))
	Label("rest")
	ADDQ(U8(32*(quickRound-1)), k.n)
	JL(LabelRef("done"))
	Label("one")
	k.blocks(q, 1, 128)
	JGE(LabelRef("one"))
	Label("done")
	c := ZMM()
	VBROADCASTSS(Mem{Base: begin}, c)
	joinPairs(c, h, l, sum)
	TESTQ(left, left)
	JNE(LabelRef("block"))
	VADDPD(sum[1], sum[0], sum[0])
	storeSum64(sum[0], dst)
	ADDQ(U8(8), dst)
	DECQ(count)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}
