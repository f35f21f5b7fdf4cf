package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wideDoubles is a table of float64, each in the eight lanes of a register.
func wideDoubles(name string, v ...float64) func(i int) Mem {
	table := constants(name, func(i int) Constant {
		b := math.Float64bits(v[i/16])
		return U32(uint32(b >> (32 * (i & 1))))
	}, 16*len(v))
	return func(i int) Mem { return table().Offset(64 * i) }
}

// The exponential in float64: x = k log 2 + r with |r| <= 0.347, and e^r by its series up to r^13, of which r^14/14! < 2^-57
// is left out.
var (
	logSumParts = wideDoubles("logSumParts", math.Log2E, 6.93147180369123816490e-01, 1.90821492927058770002e-10, -800)
	logSumTerms = wideDoubles("logSumTerms", 1./6227020800, 1./479001600, 1./39916800, 1./3628800, 1./362880, 1./40320,
		1./5040, 1./720, 1./120, 1./24, 1./6, 1./2, 1, 1)
)

// expFused is e^v in eight lanes; v is lost. Where v is a float32 it errs by less than 3 units of 2^-53 of its value: 1.5 by the
// last sum, which is at least 0.7, 0.5 by the one before, which r is multiplied with, 0.4 by r.
func expFused(v reg.VecVirtual) (y reg.VecVirtual) {
	k, y := ZMM(), ZMM()
	VMULPD(logSumParts(0), v, k)
	VRNDSCALEPD(U8(8), k, k)
	VFNMADD231PD(logSumParts(1), k, v) // exact: the part has 32 bits
	VFNMADD231PD(logSumParts(2), k, v)
	VMOVUPD(logSumTerms(0), y)
	for i := 1; i < 14; i++ {
		VFMADD213PD(logSumTerms(i), v, y)
	}
	VSCALEFPD(k, y, y)
	return y
}

var exactBounds = wideDoubles("exactBounds", 700, 1, 0x1p-49) // and elemErr

// expRounded512 is expRounded in eight lanes, with fused operations: what is rounded to float32 has an error of less than 6 units of
// 2^-53 of its value (expFused's, that of the sum and of the quotient), of the 16 that are looked at.
func expRounded512(k expKind) {
	TEXT(k.name512, NOSPLIT, "func(dst, x *float32, n int) int")
	describe(k.name512+": dst[i] = float32("+k.doc+"), n a multiple of 8, up to the first group of eight in which an error of 2^-49 of the float64",
		"value could change its rounding, or |x| is beyond 700, or x a NaN; the result is the index of that group, n if there is none.")
	dst, x, n := Load(Param("dst"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
	sign, i := ZMM(), GP64()
	VBROADCASTSD(signBits64(), sign)
	XORQ(i, i)
	Label("loop")
	CMPQ(i, n)
	JGE(LabelRef("done"))
	v, t, far, m := ZMM(), ZMM(), K(), GP32()
	VCVTPS2PD(Mem{Base: x, Index: i, Scale: 4}, v)
	VANDNPD(v, sign, t)                   // |x|
	VCMPPD(U8(6), exactBounds(0), t, far) // not less or equal
	KMOVB(far, m)
	TESTL(m, m)
	JNE(LabelRef("done"))
	if k.negate {
		VXORPD(sign, v, t)
	} else {
		VMOVAPD(v, t)
	}
	y := expFused(t)
	switch k.name {
	case "sigmoidWhole":
		VADDPD(exactBounds(1), y, y)
		VMOVUPD(exactBounds(1), v)
		VDIVPD(y, v, y)
	case "siluWhole":
		VADDPD(exactBounds(1), y, y)
		VDIVPD(y, v, y)
	}
	b, lo, hi := ZMM(), ZMM(), ZMM()
	VMULPD(exactBounds(2), y, b)
	VSUBPD(b, y, lo)
	VADDPD(b, y, hi)
	VCVTPD2PS(lo, lo.AsY())
	VCVTPD2PS(hi, hi.AsY())
	same := K()
	VPCMPEQD(hi.AsY(), lo.AsY(), same) // bit by bit
	KMOVB(same, m)
	CMPL(m, U32(255))
	JNE(LabelRef("done"))
	VCVTPD2PS(y, y.AsY())
	VMOVUPS(y.AsY(), Mem{Base: dst, Index: i, Scale: 4})
	ADDQ(U8(8), i)
	JMP(LabelRef("loop"))
	Label("done")
	Store(i, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// logSum sums exponentials.
func logSum() {
	TEXT("logSumAVX512", NOSPLIT, "func(x *float32, m float64, n int) float64")
	describe("logSumAVX512: the sum of e^(x[i]-m) in float64 over i < n, n a multiple of 16, for x[i] <= m. What is below e^-800 counts as that.")
	x, n := Load(Param("x"), GP64()), Load(Param("n"), GP64())
	p, err := Param("m").Resolve()
	if err != nil {
		panic(err)
	}
	m := ZMM()
	VBROADCASTSD(p.Addr, m)
	sums := zmm.zeros(2)
	JMP(LabelRef("enter"))
	Label("loop")
	for h := range sums {
		v := ZMM()
		VCVTPS2PD(Mem{Base: x, Disp: 32 * h}, v)
		VSUBPD(m, v, v)
		VMAXPD(logSumParts(3), v, v) // minus infinity, too
		VADDPD(expFused(v), sums[h], sums[h])
	}
	ADDQ(U8(64), x)
	SUBQ(U8(16), n)
	Label("enter")
	CMPQ(n, U8(16))
	JGE(LabelRef("loop"))
	VADDPD(sums[1], sums[0], sums[0])
	half, h := YMM(), XMM()
	VEXTRACTF64X4(U8(1), sums[0], half)
	VADDPD(half, sums[0].AsY(), half)
	lanes64(half, h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
