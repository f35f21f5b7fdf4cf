package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// nibble is the exact product of one token with weights of four bits: a block's sixteen weights, which a table has up to their
// power of two as it has them for fast products (quick), are widened to float64 and looked up there.
type nibble struct {
	name, what string
	low        bool // there are minvals
}

var nibbles = []nibble{
	{"exactI4x8", "table[off[r, i/32]][q[r, i]] * scale[r, i/32]", false},
	{"exactU4x8", "table[off[r, i/32]][q[r, i]] * scale[r, i/32] + min[r, i/32] rounded to bf16", true},
}

func (p nibble) emit() {
	TEXT(p.name, NOSPLIT, "func(a *byte)")
	describe(p.name+": for r < rows: dst[r] = sum over i < n of x[i] times "+p.what+", n a multiple of 32 and not 0;",
		"rows without a gap; a.scale, a.min and a.off hold four bytes a block; dst and x float64, of every 16 the even columns first; 32 chains of n/32 products.")
	a := Load(Param("a"), GP64())
	w, dst, count, s, off, table := load64(a, argW), load64(a, argDst), load64(a, argRows), load64(a, argScale), load64(a, argOff), load64(a, argTable)
	x, n, at := GP64(), GP64(), GP32()
	var m reg.GPVirtual
	var two, exponent reg.VecVirtual
	if p.low {
		m = load64(a, argMin)
		two, exponent = zmmOf(two16()), zmmOf(expBits())
	}
	sum := zmms(4)
	Label("row")
	MOVQ(Mem{Base: a, Disp: argX}, x)
	MOVQ(Mem{Base: a, Disp: argN}, n)
	for _, z := range sum {
		VPXORD(z, z, z)
	}
	loop("loop")
	PREFETCHT1(Mem{Base: w, Disp: 8192})
	MOVL(Mem{Base: off}, at)
	t := zmmOf(Mem{Base: table, Index: at.As64(), Scale: 1})
	if p.low { // as roundU4
		f, c := ZMM(), ZMM()
		VBROADCASTSS(Mem{Base: s}, f)
		VFMADD213PS_BCST(Mem{Base: m}, f, t)
		VPANDD(exponent, t, c)
		VFMADD231PS(two, c, t)
		VFNMADD231PS(two, c, t)
	} else {
		VMULPS_BCST(Mem{Base: s}, t, t)
	}
	y, lo, hi := YMM(), ZMM(), ZMM()
	VEXTRACTF64X4(U8(1), t, y)
	VCVTPS2PD(t.AsY(), lo)
	VCVTPS2PD(y, hi)
	for i := range 4 {
		if i%2 == 0 {
			t = ZMM()
			VPMOVZXBQ(Mem{Base: w, Disp: 4 * i}, t)
		} else {
			VPSRLQ(U8(4), t, t)
		}
		d := ZMM()
		VMOVAPD(lo, d)
		VPERMT2PD(hi, t, d) // by the low four bits
		VFMADD231PD(Mem{Base: x, Disp: 64 * i}, d, sum[i])
	}
	ADDQ(U32(256), x)
	ADDQ(U8(16), w)
	for _, p := range []reg.GPVirtual{s, off, m} {
		if p != nil {
			ADDQ(U8(4), p)
		}
	}
	SUBQ(U8(32), n)
	JNE(LabelRef("loop"))
	VADDPD(sum[1], sum[0], sum[0])
	VADDPD(sum[3], sum[2], sum[2])
	VADDPD(sum[2], sum[0], sum[0])
	storeSum64(sum[0], dst)
	ADDQ(U8(8), dst)
	DECQ(count)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// storeSum64 writes the sum of z's eight lanes.
func storeSum64(z reg.VecVirtual, dst reg.Register) {
	y, b := YMM(), XMM()
	VEXTRACTF64X4(U8(1), z, y)
	VADDPD(z.AsY(), y, y)
	VEXTRACTF64X2(U8(1), y, b)
	VADDPD(y.AsX(), b, b)
	VPERMILPD(U8(1), b, y.AsX())
	VADDSD(y.AsX(), b, b)
	VMOVSD(b, Mem{Base: dst})
}
