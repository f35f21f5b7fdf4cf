package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// compensated sums exact products in two sets of four lanes, each with what its additions lost.
func compensated() {
	TEXT("compensatedWhole", NOSPLIT, "func(sums *float64, w, x *float32, n int)")
	describe("compensatedWhole: of the products w[i] * x[i], i < n, n a multiple of 8 and not 0, in lane i%8: sums[0:8] their float64 sum,",
		"sums[8:16] the sum of what its additions lost (Knuth's TwoSum), sums[16:20] the sum of the magnitudes of lanes i%4.")
	sums, w, x, n := Load(Param("sums"), GP64()), Load(Param("w"), GP64()), Load(Param("x"), GP64()), Load(Param("n"), GP64())
	s, c, abs, sign := accumulators(2), accumulators(2), accumulators(1)[0], YMM()
	VPCMPEQD(sign, sign, sign)
	VPSRLQ(U8(1), sign, sign)
	Label("loop")
	for i := range s {
		t, v, z, b, d := YMM(), YMM(), YMM(), YMM(), YMM()
		VCVTPS2PD(Mem{Base: w, Disp: 16 * i}, t)
		VCVTPS2PD(Mem{Base: x, Disp: 16 * i}, v)
		VMULPD(v, t, t)
		VADDPD(t, s[i], z) // z = s + t
		VSUBPD(s[i], z, b) // b = z - s
		VSUBPD(b, z, d)    // z - b
		VSUBPD(d, s[i], d) // s - (z - b)
		VSUBPD(b, t, b)    // t - b
		VADDPD(b, d, d)
		VADDPD(d, c[i], c[i])
		VMOVAPD(z, s[i])
		VANDPD(sign, t, t)
		VADDPD(t, abs, abs)
	}
	ADDQ(U8(32), w.(reg.GPVirtual))
	ADDQ(U8(32), x.(reg.GPVirtual))
	SUBQ(U8(8), n.(reg.GPVirtual))
	JNE(LabelRef("loop"))
	for i, y := range []reg.VecVirtual{s[0], s[1], c[0], c[1], abs} {
		VMOVUPD(y, Mem{Base: sums, Disp: 32 * i})
	}
	VZEROUPPER()
	RET()
}
