package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// doubles is a table of float64, each in the four lanes of a register.
func doubles(name string, v ...float64) func() Mem {
	var m *Mem
	return func() Mem {
		if m == nil {
			g := GLOBL(name, RODATA|NOPTR)
			for i := range 4 * len(v) {
				DATA(8*i, U64(math.Float64bits(v[i/4])))
			}
			m = &g
		}
		return *m
	}
}

// What precision.Exp64 holds, in its order.
var expParts = doubles("expParts", 1.44269504088896338700, 0.5, 6.93147180369123816490e-01, 1.90821492927058770002e-10, 1)
var expTaylor = doubles("expTaylor", 1./6227020800, 1./479001600, 1./39916800, 1./3628800, 1./362880, 1./40320,
	1./5040, 1./720, 1./120, 1./24, 1./6, 1./2)

// exp64 is y = e^x in four lanes, with the operations of precision.Exp64 one by one and nothing fused: the same bits
// for |x| <= 700.
func exp64(x, y reg.VecVirtual) {
	part := func(i int) Mem { return expParts().Offset(32 * i) }
	k, hi, lo, r, c := YMM(), YMM(), YMM(), YMM(), YMM()
	VMULPD(part(0), x, k)
	VADDPD(part(1), k, k)
	VROUNDPD(U8(9), k, k) // floor
	VMULPD(part(2), k, r)
	VSUBPD(r, x, hi)
	VMULPD(part(3), k, lo)
	VSUBPD(lo, hi, r)
	VSUBPD(r, hi, c)
	VSUBPD(lo, c, c) // what the subtraction lost
	p := YMM()
	VMOVUPD(expTaylor(), p)
	for i := 1; i < 12; i++ {
		VMULPD(r, p, p)
		VADDPD(expTaylor().Offset(32*i), p, p)
	}
	// 1 + (r + (r*r*p + c*(1+r)))
	t := YMM()
	VMULPD(r, r, t)
	VMULPD(p, t, t)
	VADDPD(part(4), r, p)
	VMULPD(p, c, c)
	VADDPD(c, t, t)
	VADDPD(t, r, t)
	VADDPD(part(4), t, t)
	// times 2^k: k joins the exponent
	VCVTPD2DQY(k, k.AsX())
	VPMOVSXDQ(k.AsX(), k)
	VPSLLQ(U8(52), k, k)
	VPADDQ(k, t, y)
}

var (
	signBits64 = doubles("signBits64", math.Copysign(0, -1))
	expLimit   = doubles("expLimit", 700)
	oneAnd     = doubles("oneAnd", 1, 0x1p-49) // and elemErr
)

// expDiff writes e^(x-m) in float64.
func expDiff() {
	TEXT("expDiffWhole", NOSPLIT, "func(dst *float64, x *float32, m float64, n int) int")
	describe("expDiffWhole: dst[i] = precision.Exp64(float64(x[i]) - m), its bits, n a multiple of 4, up to the first group of four with a",
		"difference beyond 700 or a NaN; the result is the index of that group, n if there is none.")
	dst, x, n := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
	m := broadcastParam("m")
	eachFour(n, func(i reg.GPVirtual) {
		v, t := YMM(), YMM()
		VCVTPS2PD(Mem{Base: x, Index: i, Scale: 4}, v)
		VSUBPD(m, v, v)
		stopAbove(v, t)
		exp64(v, t)
		VMOVUPD(t, Mem{Base: dst, Index: i, Scale: 8})
	})
}

func broadcastParam(name string) reg.VecVirtual {
	y := YMM()
	p, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSD(p.Addr, y)
	return y
}

// eachFour is the loop over groups of four; the function's result is the index it ends at.
func eachFour(n reg.Register, body func(i reg.GPVirtual)) {
	i := GP64()
	XORQ(i, i)
	Label("loop")
	CMPQ(i, n)
	JGE(LabelRef("done"))
	body(i)
	ADDQ(U8(4), i)
	JMP(LabelRef("loop"))
	Label("done")
	Store(i, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// stopAbove ends the loop at this group if a lane is beyond 700 or a NaN; t is scratch.
func stopAbove(v, t reg.VecVirtual) {
	VMOVUPD(signBits64(), t)
	VANDNPD(v, t, t)                // |v|
	VCMPPD(U8(6), expLimit(), t, t) // not less or equal
	m := GP32()
	VMOVMSKPD(t, m)
	TESTL(m, m)
	JNE(LabelRef("done"))
}

// expKind is a function of e^x or e^-x: finish turns e (in y) and x into its value, in float64.
type expKind struct {
	name, name512, doc string
	negate             bool
	finish             func(x, y reg.VecVirtual)
}

var expKinds = []expKind{
	{"expWhole", "expExactAVX512", "e^x", false, func(x, y reg.VecVirtual) {}},
	{"sigmoidWhole", "sigmoidExactAVX512", "1/(1+e^-x)", true, func(x, y reg.VecVirtual) {
		one := YMM()
		VMOVUPD(oneAnd(), one)
		VADDPD(one, y, y)
		VDIVPD(y, one, y)
	}},
	{"siluWhole", "siluExactAVX512", "x/(1+e^-x)", true, func(x, y reg.VecVirtual) {
		VADDPD(oneAnd(), y, y)
		VDIVPD(y, x, y)
	}},
}

// expRounded writes one of them rounded to float32, where its error cannot change that.
func expRounded(k expKind) {
	TEXT(k.name, NOSPLIT, "func(dst, x *float32, n int) int")
	describe(k.name+": dst[i] = float32("+k.doc+"), n a multiple of 4, up to the first group of four in which an error of 2^-49 of the float64",
		"value could change its rounding, or |x| is beyond 700, or x a NaN; the result is the index of that group, n if there is none.")
	dst, x, n := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
	eachFour(n, func(i reg.GPVirtual) {
		v, y, t := YMM(), YMM(), YMM()
		VCVTPS2PD(Mem{Base: x, Index: i, Scale: 4}, v)
		stopAbove(v, t)
		if k.negate {
			VXORPD(signBits64(), v, t)
			exp64(t, y)
		} else {
			exp64(v, y)
		}
		k.finish(v, y)
		b, lo, hi := YMM(), YMM(), YMM()
		VMULPD(oneAnd().Offset(32), y, b)
		VSUBPD(b, y, lo)
		VADDPD(b, y, hi)
		storeIfSame(y, lo, hi, Mem{Base: dst, Index: i, Scale: 4})
	})
}

// storeIfSame rounds y to float32 and stores it, or ends the loop if lo and hi do not round alike, bit by bit.
func storeIfSame(y, lo, hi reg.VecVirtual, dst Mem) {
	VCVTPD2PSY(lo, lo.AsX())
	VCVTPD2PSY(hi, hi.AsX())
	VPCMPEQD(hi.AsX(), lo.AsX(), lo.AsX())
	m := GP32()
	VMOVMSKPS(lo.AsX(), m)
	CMPL(m, U8(15))
	JNE(LabelRef("done"))
	VCVTPD2PSY(y, y.AsX())
	VMOVUPS(y.AsX(), dst)
}

// softmaxEnd writes e[i]/sum.
func softmaxEnd() {
	TEXT("quotientWhole", NOSPLIT, "func(dst *float32, e *float64, sum, u float64, n int) int")
	describe("quotientWhole: dst[i] = float32(e[i]/sum), n a multiple of 4, up to the first group of four in which a relative error of u could",
		"change the rounding; the result is the index of that group, n if there is none.")
	dst, e, n := Load(Param("dst"), GP64()), Load(Param("e"), GP64()), Load(Param("n"), GP64())
	sum, u := broadcastParam("sum"), broadcastParam("u")
	eachFour(n, func(i reg.GPVirtual) {
		y, b, lo, hi := YMM(), YMM(), YMM(), YMM()
		VMOVUPD(Mem{Base: e, Index: i, Scale: 8}, y)
		VDIVPD(sum, y, y)
		VMULPD(u, y, b)
		VSUBPD(b, y, lo)
		VADDPD(b, y, hi)
		storeIfSame(y, lo, hi, Mem{Base: dst, Index: i, Scale: 4})
	})
}

// most gives the largest element.
func most() {
	TEXT("maxWhole", NOSPLIT, "func(x *float32, n int) (top float32, nan bool)")
	describe("maxWhole: the largest of x[i], i < n, n a multiple of 8 and above 0, and whether there is a NaN, when the other means nothing.")
	x, n := Load(Param("x"), GP64()), Load(Param("n"), GP64())
	top, bad := YMM(), YMM()
	VMOVUPS(Mem{Base: x}, top)
	VXORPS(bad, bad, bad)
	Label("loop")
	CMPQ(n, U8(8))
	JL(LabelRef("done"))
	v, t := YMM(), YMM()
	VMOVUPS(Mem{Base: x}, v)
	VCMPPS(U8(3), v, v, t) // unordered
	VORPS(t, bad, bad)
	VMAXPS(v, top, top)
	ADDQ(U8(32), x)
	SUBQ(U8(8), n)
	JMP(LabelRef("loop"))
	Label("done")
	h := XMM()
	VEXTRACTF128(U8(1), top, h)
	VMAXPS(h, top.AsX(), h)
	s := XMM()
	VPSHUFD(U8(0x4e), h, s)
	VMAXPS(s, h, h)
	VPSHUFD(U8(0xb1), h, s)
	VMAXPS(s, h, h)
	Store(h, ReturnIndex(0))
	m := GP32()
	VMOVMSKPS(bad, m)
	TESTL(m, m)
	b := GP8()
	SETNE(b)
	Store(b, ReturnIndex(1))
	VZEROUPPER()
	RET()
}

// eachEight is the loop over groups of eight of x, changed in place by body.
func eachEight(body func(y reg.VecVirtual)) {
	x, n := Load(Param("x"), GP64()), Load(Param("n"), GP64())
	Label("loop")
	CMPQ(n, U8(8))
	JL(LabelRef("done"))
	y := YMM()
	VMOVUPS(Mem{Base: x}, y)
	body(y)
	VMOVUPS(y, Mem{Base: x})
	ADDQ(U8(32), x)
	SUBQ(U8(8), n)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

var quietBF16 = constants("quietBF16", func(int) Constant { return U32(0x00400000) }, 8)

func rounds() {
	TEXT("roundF16Whole", NOSPLIT, "func(x *float32, n int)")
	describe("roundF16Whole: x[i] = x[i] rounded to binary16, n a multiple of 8.")
	eachEight(roundF16)
	TEXT("roundBF16AVX2", NOSPLIT, "func(x *float32, n int)")
	describe("roundBF16AVX2: x[i] = x[i] rounded to bfloat16, n a multiple of 8: half a unit less one and the last bit that stays are added,",
		"the low half is cut off; a NaN keeps its upper half and becomes quiet.")
	eachEight(func(y reg.VecVirtual) {
		nan, q, t := YMM(), YMM(), YMM()
		VCMPPS(U8(3), y, y, nan)
		VPOR(quietBF16(), y, q)
		VPAND(keepBF16(), q, q)
		roundBF16(y, t)
		VBLENDVPS(nan, q, y, y)
	})
}
