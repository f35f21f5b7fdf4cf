package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The exponential in float32: x = n log 2 + r with |r| <= 0.347, and e^r by its series up to r^7, of which r^8/8! < 2^-27.5
// is left out.
var (
	exp32Parts = singles("exp32Parts", math.Log2E, 0x1.62e4p-1, float32(math.Ln2-0x1.62e4p-1), 87, 1)
	exp32Terms = singles("exp32Terms", 1./5040, 1./720, 1./120, 1./24, 1./6, 1./2, 1, 1)
	exp32Masks = constants("exp32Masks", func(i int) Constant { return U32([]uint32{0x7fffffff, 1 << 31}[i/16]) }, 32)
)

// exp32 is y = e^x for |x| <= 87, within one unit in the last place; x is kept.
func exp32(v width, x, y reg.VecVirtual) {
	n, r := v.reg(), v.reg()
	VMULPS(exp32Parts(0), x, n)
	if v.bytes == 64 {
		VRNDSCALEPS(U8(8), n, n)
	} else {
		VROUNDPS(U8(8), n, n)
	}
	VMOVAPS(x, r)
	VFNMADD231PS(exp32Parts(1), n, r) // exact: the part has 17 bits, n seven
	VFNMADD231PS(exp32Parts(2), n, r)
	VMOVUPS(exp32Terms(0), y)
	for i := 1; i < 8; i++ {
		VFMADD213PS(exp32Terms(i), r, y)
	}
	VCVTPS2DQ(n, n)
	VPSLLD(U8(23), n, n)
	VPADDD(n, y, y)
}

// stopBeyond ends the loop at this group if a lane is beyond 87 or a NaN; t is scratch.
func stopBeyond(v width, x, t reg.VecVirtual) {
	VANDPS(exp32Masks(), x, t)
	m := GP32()
	if v.bytes == 64 {
		k := K()
		VCMPPS(U8(6), exp32Parts(3), t, k) // not less or equal
		KMOVW(k, m)
	} else {
		VCMPPS(U8(6), exp32Parts(3), t, t)
		VMOVMSKPS(t, m)
	}
	TESTL(m, m)
	JNE(LabelRef("done"))
}

// expFast writes e^x, 1/(1+e^-x) and x/(1+e^-x) in float32.
func expFast(v width) {
	for _, k := range []struct {
		name, doc string
		negate    bool
		finish    func(x, y reg.VecVirtual)
	}{
		{"exp", "e^x", false, func(x, y reg.VecVirtual) {}},
		{"sigmoid", "1/(1+e^-x)", true, func(x, y reg.VecVirtual) {
			one := v.reg()
			VMOVUPS(exp32Parts(4), one)
			VADDPS(one, y, y)
			VDIVPS(y, one, y)
		}},
		{"silu", "x/(1+e^-x)", true, func(x, y reg.VecVirtual) {
			VADDPS(exp32Parts(4), y, y)
			VDIVPS(y, x, y)
		}},
	} {
		TEXT(k.name+"Fast"+v.name, NOSPLIT, "func(dst, x *float32, n int) int")
		describe(fmt.Sprintf("%sFast%s: dst[i] = %s in float32, n a multiple of %d, up to the first group of so many in which |x| is beyond 87 or x a NaN;",
			k.name, v.name, k.doc, v.floats()), "the result is the index of that group, n if there is none.")
		dst, x, n := load4("dst"), load4("x"), load4("n")
		i := GP64()
		XORQ(i, i)
		Label("loop")
		CMPQ(i, n)
		JGE(LabelRef("done"))
		a, y, t := v.reg(), v.reg(), v.reg()
		VMOVUPS(Mem{Base: x, Index: i, Scale: 4}, a)
		stopBeyond(v, a, t)
		if k.negate {
			VXORPS(exp32Masks().Offset(64), a, t)
			exp32(v, t, y)
		} else {
			exp32(v, a, y)
		}
		k.finish(a, y)
		VMOVUPS(y, Mem{Base: dst, Index: i, Scale: 4})
		ADDQ(U8(v.floats()), i)
		JMP(LabelRef("loop"))
		Label("done")
		Store(i, ReturnIndex(0))
		VZEROUPPER()
		RET()
	}
}

// expSum is what an online softmax does with a row of scores.
func expSum(v width) {
	TEXT("expSum"+v.name, NOSPLIT, "func(x *float32, m float32, n int) float32")
	describe(fmt.Sprintf("expSum%s: x[i] = e^(x[i]-m) for i < n, n a multiple of %d and x[i] <= m, and e^-87 where it is less; the result is their sum,", v.name, v.floats()),
		fmt.Sprintf("%d chains.", v.floats()))
	x, n, m := load4("x"), load4("n"), v.broadcast("m")
	sum, low := v.zeros(1)[0], v.reg()
	VMOVUPS(exp32Parts(3), low)
	VXORPS(exp32Masks().Offset(64), low, low) // -87
	v.each(n, func(i reg.GPVirtual) {
		a, y := v.reg(), v.reg()
		VMOVUPS(Mem{Base: x, Index: i, Scale: 4}, a)
		VSUBPS(m, a, a)
		VMAXPS(a, low, a) // a NaN stays
		exp32(v, a, y)
		VMOVUPS(y, Mem{Base: x, Index: i, Scale: 4})
		VADDPS(y, sum, sum)
	})
	if v.bytes == 64 {
		h := YMM()
		VEXTRACTF64X4(U8(1), sum, h)
		VADDPS(h, sum.AsY(), h)
		sum = h
	}
	h := XMM()
	lanes32(sum, h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// conversions are between float32 and binary16.
func conversions() {
	TEXT("widenF16Whole", NOSPLIT, "func(dst *float32, src *uint16, n int)")
	describe("widenF16Whole: dst[i] = float32(src[i]) of binary16, for i < n, n a multiple of 8.")
	dst, src, n := load4("dst"), load4("src"), load4("n")
	ymm.each(n, func(i reg.GPVirtual) {
		y := YMM()
		VCVTPH2PS(Mem{Base: src, Index: i, Scale: 2}, y)
		VMOVUPS(y, Mem{Base: dst, Index: i, Scale: 4})
	})
	VZEROUPPER()
	RET()
	TEXT("narrowF16Whole", NOSPLIT, "func(dst *uint16, src *float32, n int)")
	describe("narrowF16Whole: dst[i] = src[i] rounded to binary16, for i < n, n a multiple of 8.")
	dst, src, n = load4("dst"), load4("src"), load4("n")
	ymm.each(n, func(i reg.GPVirtual) {
		y := YMM()
		VMOVUPS(Mem{Base: src, Index: i, Scale: 4}, y)
		VCVTPS2PH(U8(0), y, y.AsX())
		VMOVUPS(y.AsX(), Mem{Base: dst, Index: i, Scale: 2})
	})
	VZEROUPPER()
	RET()
}
