package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// pair is a product whose sums are of two float32 a lane, which together say nearly as much as a float64 and take half its
// registers, of weights and of x:
//
//	t = h + w*x	rounded once, h near c = 1.5 * 2^k
//	d = t - h	exact, since both lie between 2^k and 2^(k+1)
//	l = l + (w*x - d)	what t lost
//
// A row in which some t left that interval (or is no number) has no sum. What bounds the others' errors is in pair_amd64.go.
type pair struct {
	name    string
	bits    int
	ordered bool // of every 32 columns, x has the even ones before the odd ones
	round   bool // weights are rounded to binary16
}

var pairs = []pair{
	{"F32", 32, false, false},
	{"F16", 16, false, false},
	{"BF16", 16, true, false},
	{"BF16R16", 16, true, true},
}

var (
	upperHalf  = constants("upperHalf", func(int) Constant { return U32(0xffff0000) }, 16)
	aboveTwo   = constants("aboveTwo", func(int) Constant { return U32(0x40004000) }, 16)
	belowGrid  = constants("belowGrid", func(int) Constant { return U32(0x37003700) }, 16)
	onGrid     = constants("onGrid", func(int) Constant { return bits(0.75) }, 16)
	signAndExp = constants("signAndExp", func(int) Constant { return U32(0xff800000) }, 16)
)

// pairAhead is how many bytes ahead of the weights lines are asked for, into the second-level cache: no prefetcher of the
// processor's crosses into the next page. Over a mapped file rows of 3584 come at 31 GB/s with 24 KB, 28 with 8, 25 with none.
const pairAhead = 24 << 10

// pairBlock is how many columns a pair of sums has before it joins a sum in float64.
const pairBlock = 1024

func zmms(n int) []reg.VecVirtual {
	z := make([]reg.VecVirtual, n)
	for i := range z {
		z[i] = ZMM()
	}
	return z
}

func zmmOf(m Mem) reg.VecVirtual {
	z := ZMM()
	VMOVUPS(m, z)
	return z
}

func (p pair) emit() {
	TEXT("rowsPair"+p.name, NOSPLIT, "func(a *byte)")
	order := ""
	if p.ordered {
		order = ", of every 32 the even columns first"
	}
	describe(fmt.Sprintf("rowsPair%s: for r < rows: dst[r] = sum of w[r*wStride:][i] * x[i] over i < n, n a multiple of 64 and not 0, x float32%s;", p.name, order),
		"dst float64, a NaN where a sum of float32 left its binade. table is where it begins: 1.5*2^k.")
	a := Load(Param("a"), GP64())
	w, dst, stride, count := load64(a, argW), load64(a, argDst), load64(a, argWStride), load64(a, argRows)
	begin := load64(a, argTable)
	c := ZMM()
	VBROADCASTSS(Mem{Base: begin}, c)
	h, l, sum, left, most := zmms(4), zmms(4), zmms(2), ZMM(), ZMM()
	mask := zmmOf(signAndExp())
	var upper, below, magnitude, grid, two reg.VecVirtual
	if p.ordered {
		upper = zmmOf(upperHalf())
	}
	if p.round {
		below, magnitude, grid, two = zmmOf(belowGrid()), zmmOf(magnitude16()), zmmOf(onGrid()), zmmOf(aboveTwo())
	}
	q, x, n, m := GP64(), GP64(), GP64(), GP64()
	Label("row")
	MOVQ(w, q)
	ADDQ(stride, w)
	MOVQ(Mem{Base: a, Disp: argX}, x)
	MOVQ(Mem{Base: a, Disp: argN}, n)
	for _, z := range append([]reg.VecVirtual{left, most}, sum...) {
		VPXORD(z, z, z)
	}
	Label("block")
	MOVQ(U32(pairBlock), m)
	CMPQ(n, m)
	CMOVQLT(n, m)
	SUBQ(m, n)
	for i := range 4 {
		VMOVAPS(c, h[i])
		VPXORD(l[i], l[i], l[i])
	}
	loop("loop")
	for at := 0; at < 8*p.bits; at += 64 {
		PREFETCHT1(Mem{Base: q, Disp: pairAhead + at})
	}
	var v [2]reg.VecVirtual
	if p.ordered {
		for i := range v {
			v[i] = zmmOf(Mem{Base: q, Disp: 64 * i})
		}
	}
	if p.round {
		VPTERNLOGD(U8(0xfe), v[0], v[1], most) // or of all
		t, u, k := ZMM(), ZMM(), K()
		VPANDD(magnitude, v[0], t)
		VPANDD(magnitude, v[1], u)
		VPMINUW(t, u, u)
		VPCMPUW(U8(1), below, u, k)
		KTESTD(k, k)
		JNE(LabelRef("small"))
	}
	p.columns(q, x, v, upper, nil, c, h, l, left)
	Label("next")
	ADDQ(U32(4*64), x)
	ADDQ(U32(64*p.bits/8), q)
	SUBQ(U8(64), m)
	JNE(LabelRef("loop"))
	joinPairs(c, h, l, sum)
	TESTQ(n, n)
	JNE(LabelRef("block"))
	VADDPD(sum[1], sum[0], sum[0])
	storeSum64(sum[0], dst)
	k := K()
	VPTESTMD(mask, left, k)
	if p.round {
		j := K()
		VPTESTMD(two, most, j)
		KORW(j, k, k)
	}
	KTESTW(k, k)
	JEQ(LabelRef("inside"))
	MOVQ(I32(-1), Mem{Base: dst})
	Label("inside")
	ADDQ(U8(8), dst)
	DECQ(count)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
	if p.round {
		Label("small")
		p.columns(q, x, v, upper, grid, c, h, l, left)
		JMP(LabelRef("next"))
	}
}

// joinPairs adds the pairs to two sums of float64. h less c is a number of units of c's last place, of which four sums lie below
// 2^(k+1): exact.
func joinPairs(c reg.VecVirtual, h, l, sum []reg.VecVirtual) {
	for i := range h {
		VSUBPS(c, h[i], h[i])
	}
	for i := 0; i < len(h); i += 4 {
		join64(h[i:i+4], sum)
	}
	join64(l, sum)
}

// join64 adds all of s, a power of two of them, to two sums of float64.
func join64(s, sum []reg.VecVirtual) {
	for step := 1; step < len(s); step *= 2 {
		for i := 0; i < len(s); i += 2 * step {
			VADDPS(s[i+step], s[i], s[i])
		}
	}
	lo, hi, y := ZMM(), ZMM(), YMM()
	VCVTPS2PD(s[0].AsY(), lo)
	VEXTRACTF32X8(U8(1), s[0], y)
	VCVTPS2PD(y, hi)
	VADDPD(lo, sum[0], sum[0])
	VADDPD(hi, sum[1], sum[1])
}

// columns adds 64 columns, of weights at q or in v; grid, if there is one, rounds them to binary16.
func (p pair) columns(q, x reg.Register, v [2]reg.VecVirtual, upper, grid, c reg.VecVirtual, h, l []reg.VecVirtual, left reg.VecVirtual) {
	for i := range 4 {
		y := ZMM()
		switch {
		case p.ordered && i%2 == 0:
			VPSLLD(U8(16), v[i/2], y)
		case p.ordered:
			VPANDD(upper, v[i/2], y)
		case p.bits == 16:
			VCVTPH2PS(Mem{Base: q, Disp: 32 * i}, y)
		default:
			VMOVUPS(Mem{Base: q, Disp: 64 * i}, y)
		}
		if grid != nil {
			VADDPS(grid, y, y)
			VSUBPS(grid, y, y)
		}
		z, t, d := ZMM(), ZMM(), ZMM()
		VMOVUPS(Mem{Base: x, Disp: 64 * i}, z)
		VMOVAPS(h[i], t)
		VFMADD231PS(z, y, h[i])
		VSUBPS(t, h[i], d)
		VFMSUB213PS(d, y, z) // w*x - d
		VADDPS(z, l[i], l[i])
		VPTERNLOGD(U8(0xf6), c, h[i], left) // or of what differs from c
	}
}
