package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
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
		v, k, y := ZMM(), ZMM(), ZMM()
		VCVTPS2PD(Mem{Base: x, Disp: 32 * h}, v)
		VSUBPD(m, v, v)
		VMAXPD(logSumParts(3), v, v) // minus infinity, too
		VMULPD(logSumParts(0), v, k)
		VRNDSCALEPD(U8(8), k, k)
		VFNMADD231PD(logSumParts(1), k, v) // exact: the part has 32 bits
		VFNMADD231PD(logSumParts(2), k, v)
		VMOVUPD(logSumTerms(0), y)
		for i := 1; i < 14; i++ {
			VFMADD213PD(logSumTerms(i), v, y)
		}
		VSCALEFPD(k, y, y)
		VADDPD(y, sums[h], sums[h])
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
