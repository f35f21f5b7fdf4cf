package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func load4(name string) reg.Register { return Load(Param(name), GP64()) }

// widenHalves gives the lower and upper four of y as float64; y is lost.
func widenHalves(y reg.VecVirtual) (lo, hi reg.VecVirtual) {
	lo, hi = YMM(), YMM()
	VCVTPS2PD(y.AsX(), lo)
	VEXTRACTF128(U8(1), y, y.AsX())
	VCVTPS2PD(y.AsX(), hi)
	return lo, hi
}

// dotFast is sum a[i]*b[i] in float32.
func dotFast() {
	TEXT("dotFastWhole", NOSPLIT, "func(a, b *float32, n int) float32")
	describe("dotFastWhole: sum of a[i]*b[i] over i < n, n a multiple of 32, in 32 chains.")
	a, b, n := load4("a"), load4("b"), load4("n")
	acc := accumulators(4)
	Label("loop")
	CMPQ(n, U8(32))
	JL(LabelRef("done"))
	for i := range 4 {
		y := YMM()
		VMOVUPS(Mem{Base: a, Disp: 32 * i}, y)
		VFMADD231PS(Mem{Base: b, Disp: 32 * i}, y, acc[i])
	}
	ADDQ(U32(128), a)
	ADDQ(U32(128), b)
	SUBQ(U8(32), n)
	JMP(LabelRef("loop"))
	Label("done")
	VADDPS(acc[1], acc[0], acc[0])
	VADDPS(acc[3], acc[2], acc[2])
	VADDPS(acc[2], acc[0], acc[0])
	h := XMM()
	lanes32(acc[0], h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// dotExact is sum a[i]*b[i] and sum |a[i]*b[i]| in float64.
func dotExact() {
	TEXT("dotExactWhole", NOSPLIT, "func(a, b *float32, n int) (s, m float64)")
	describe("dotExactWhole: s = sum of a[i]*b[i], m = sum of |a[i]*b[i]| over i < n, n a multiple of 8, in float64, eight chains each.")
	a, b, n := load4("a"), load4("b"), load4("n")
	s, m, sign := accumulators(2), accumulators(2), YMM()
	VMOVUPD(signBits64(), sign)
	Label("loop")
	CMPQ(n, U8(8))
	JL(LabelRef("done"))
	for i := range 2 {
		y, z := YMM(), YMM()
		VCVTPS2PD(Mem{Base: a, Disp: 16 * i}, y)
		VCVTPS2PD(Mem{Base: b, Disp: 16 * i}, z)
		VMULPD(y, z, z)
		VADDPD(z, s[i], s[i])
		VANDNPD(z, sign, z)
		VADDPD(z, m[i], m[i])
	}
	ADDQ(U8(32), a)
	ADDQ(U8(32), b)
	SUBQ(U8(8), n)
	JMP(LabelRef("loop"))
	Label("done")
	for i, v := range [][]reg.VecVirtual{s, m} {
		VADDPD(v[1], v[0], v[0])
		h := XMM()
		lanes64(v[0], h)
		Store(h, ReturnIndex(i))
	}
	VZEROUPPER()
	RET()
}

// squares is the sum of the squares, each rounded to float32.
func squares() {
	TEXT("squaresWhole", NOSPLIT, "func(x *float32, n int) float64")
	describe("squaresWhole: sum of float32(x[i]*x[i]) over i < n, n a multiple of 8, in float64, eight chains.")
	x, n := load4("x"), load4("n")
	s := accumulators(2)
	Label("loop")
	CMPQ(n, U8(8))
	JL(LabelRef("done"))
	y := YMM()
	VMOVUPS(Mem{Base: x}, y)
	VMULPS(y, y, y)
	lo, hi := widenHalves(y)
	VADDPD(lo, s[0], s[0])
	VADDPD(hi, s[1], s[1])
	ADDQ(U8(32), x)
	SUBQ(U8(8), n)
	JMP(LabelRef("loop"))
	Label("done")
	VADDPD(s[1], s[0], s[0])
	h := XMM()
	lanes64(s[0], h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// rowsOfColumns is the loop over n rows, stride floats apart, of a strip of columns; body sees the row's place.
func rowsOfColumns(n, stride, at reg.Register, body func()) {
	Label("loop")
	CMPQ(n, U8(0))
	JE(LabelRef("done"))
	body()
	ADDQ(stride, at)
	DECQ(n)
	JMP(LabelRef("loop"))
	Label("done")
}

// columnsFast is a strip of sum_j w[j] * v[j, :].
func columnsFast(strip int) {
	name := fmt.Sprintf("columnsFast%d", 8*strip)
	TEXT(name, NOSPLIT, "func(out, w, v *float32, stride, n int)")
	describe(fmt.Sprintf("%s: out[c] = sum of w[j] * v[j*stride+c] over j < n, for c < %d, one chain each.", name, 8*strip))
	out, w, v, stride, n := load4("out"), load4("w"), load4("v"), load4("stride"), load4("n")
	SHLQ(U8(2), stride)
	acc := accumulators(strip)
	rowsOfColumns(n, stride, v, func() {
		b := YMM()
		VBROADCASTSS(Mem{Base: w}, b)
		for i, a := range acc {
			VFMADD231PS(Mem{Base: v, Disp: 32 * i}, b, a)
		}
		ADDQ(U8(4), w)
	})
	for i, a := range acc {
		VMOVUPS(a, Mem{Base: out, Disp: 32 * i})
	}
	VZEROUPPER()
	RET()
}

// columnsExact is a strip of sum_j w[j] * v[j, :] and of sum_j |w[j] * v[j, :]| in float64.
func columnsExact() {
	TEXT("columnsExact8", NOSPLIT, "func(s, m *float64, w, v *float32, stride, n int)")
	describe("columnsExact8: s[c] = sum of w[j] * v[j*stride+c] and m[c] = sum of its magnitudes over j < n, for c < 8, float64, one chain each.")
	sp, mp, w, v, stride, n := load4("s"), load4("m"), load4("w"), load4("v"), load4("stride"), load4("n")
	SHLQ(U8(2), stride)
	s, m, sign := accumulators(2), accumulators(2), YMM()
	VMOVUPD(signBits64(), sign)
	rowsOfColumns(n, stride, v, func() {
		b := YMM()
		VBROADCASTSS(Mem{Base: w}, b.AsX())
		VCVTPS2PD(b.AsX(), b)
		for i := range 2 {
			p := YMM()
			VCVTPS2PD(Mem{Base: v, Disp: 16 * i}, p)
			VMULPD(b, p, p)
			VADDPD(p, s[i], s[i])
			VANDNPD(p, sign, p)
			VADDPD(p, m[i], m[i])
		}
		ADDQ(U8(4), w)
	})
	storePair(sp, s)
	storePair(mp, m)
	VZEROUPPER()
	RET()
}

func storePair(p reg.Register, v []reg.VecVirtual) {
	VMOVUPD(v[0], Mem{Base: p})
	VMOVUPD(v[1], Mem{Base: p, Disp: 32})
}

// deltaReadFast is a strip of S^T k under the decay; the state is not changed yet.
func deltaReadFast(v width, strip int) {
	name := fmt.Sprintf("deltaReadFast%d%s", v.floats()*strip, v.name)
	TEXT(name, NOSPLIT, "func(mem, S, k *float32, decay float32, stride, n int)")
	describe(fmt.Sprintf("%s: mem[c] = sum of decay*S[d*stride+c] * k[d] over d < n, for c < %d.", name, v.floats()*strip))
	mem, S, k, stride, n := load4("mem"), load4("S"), load4("k"), load4("stride"), load4("n")
	decay := v.broadcast("decay")
	SHLQ(U8(2), stride)
	acc := v.zeros(strip)
	rowsOfColumns(n, stride, S, func() {
		b := v.reg()
		VBROADCASTSS(Mem{Base: k}, b)
		VMULPS(decay, b, b)
		for i, a := range acc {
			VFMADD231PS(Mem{Base: S, Disp: v.bytes * i}, b, a)
		}
		ADDQ(U8(4), k)
	})
	for i, a := range acc {
		VMOVUPS(a, Mem{Base: mem, Disp: v.bytes * i})
	}
	VZEROUPPER()
	RET()
}

// deltaWriteFast is a strip of S = decay*S + k (x) delta, and S^T q of it.
func deltaWriteFast(v width, strip int) {
	name := fmt.Sprintf("deltaWriteFast%d%s", v.floats()*strip, v.name)
	TEXT(name, NOSPLIT, "func(out, S, k, q, delta *float32, decay float32, stride, n int)")
	describe(fmt.Sprintf("%s: S[d*stride+c] = decay*S[d*stride+c] + k[d]*delta[c]; out[c] = sum of S[d*stride+c] * q[d] over d < n, for c < %d.", name, v.floats()*strip))
	out, S, k, q, dl := load4("out"), load4("S"), load4("k"), load4("q"), load4("delta")
	stride, n, decay := load4("stride"), load4("n"), v.broadcast("decay")
	SHLQ(U8(2), stride)
	acc := v.zeros(strip)
	delta := make([]reg.VecVirtual, strip)
	for i := range delta {
		delta[i] = v.reg()
		VMOVUPS(Mem{Base: dl, Disp: v.bytes * i}, delta[i])
	}
	rowsOfColumns(n, stride, S, func() {
		kd, qd := v.reg(), v.reg()
		VBROADCASTSS(Mem{Base: k}, kd)
		VBROADCASTSS(Mem{Base: q}, qd)
		for i, a := range acc {
			s := v.reg()
			VMULPS(Mem{Base: S, Disp: v.bytes * i}, decay, s)
			VFMADD231PS(delta[i], kd, s)
			VMOVUPS(s, Mem{Base: S, Disp: v.bytes * i})
			VFMADD231PS(qd, s, a)
		}
		ADDQ(U8(4), k)
		ADDQ(U8(4), q)
	})
	for i, a := range acc {
		VMOVUPS(a, Mem{Base: out, Disp: v.bytes * i})
	}
	VZEROUPPER()
	RET()
}

// deltaExact is one pass over a strip of as many columns as a register holds, with every product and sum rounded to float32 as the rule names
// them, and the sums of products in float64. write chooses the second pass, which updates S.
func deltaExact(v width, write bool) {
	name := fmt.Sprintf(map[bool]string{false: "deltaReadExact%d", true: "deltaWriteExact%d"}[write], v.floats())
	if write {
		TEXT(name, NOSPLIT, "func(s *float64, m, S, k, q, delta *float32, decay float32, stride, n int)")
		describe(name+": with t = float32(S[d*stride+c]*decay): S[d*stride+c] = float32(t + float32(k[d]*delta[c])); s[c] = sum of float32(S[d*stride+c]*q[d])",
			fmt.Sprintf("in float64 and m[c] = sum of its magnitudes in float32, over d < n, for c < %d.", v.floats()))
	} else {
		TEXT(name, NOSPLIT, "func(s *float64, m, S, k *float32, decay float32, stride, n int)")
		describe(name+": s[c] = sum of float32(float32(S[d*stride+c]*decay)*k[d]) in float64 and m[c] = sum of its magnitudes in float32,",
			fmt.Sprintf("over d < n, for c < %d.", v.floats()))
	}
	sp, mp, S, k, n := load4("s"), load4("m"), load4("S"), load4("k"), load4("n")
	stride, decay := load4("stride"), v.broadcast("decay")
	SHLQ(U8(2), stride)
	s, m, sign := v.zeros(2), v.zeros(1)[0], v.reg()
	VBROADCASTSS(sign32(), sign)
	var q reg.Register
	delta := v.reg()
	if write {
		q = load4("q")
		VMOVUPS(Mem{Base: load4("delta")}, delta)
	}
	rowsOfColumns(n, stride, S, func() {
		b, y := v.reg(), v.reg()
		VBROADCASTSS(Mem{Base: k}, b)
		VMULPS(Mem{Base: S}, decay, y)
		if write {
			VMULPS(delta, b, b)
			VADDPS(b, y, y)
			VMOVUPS(y, Mem{Base: S})
			VBROADCASTSS(Mem{Base: q}, b)
			ADDQ(U8(4), q)
		}
		VMULPS(b, y, y)
		VANDNPS(y, sign, b)
		VADDPS(b, m, m)
		lo, hi := v.halves(y)
		VADDPD(lo, s[0], s[0])
		VADDPD(hi, s[1], s[1])
		ADDQ(U8(4), k)
	})
	VMOVUPD(s[0], Mem{Base: sp})
	VMOVUPD(s[1], Mem{Base: sp, Disp: v.bytes})
	VMOVUPS(m, Mem{Base: mp})
	VZEROUPPER()
	RET()
}

var sign32 = constants("sign32", func(int) Constant { return U32(1 << 31) }, 1)

func vectors() {
	dotFast()
	dotExact()
	squares()
	columnsFast(4)
	columnsFast(1)
	columnsExact()
	convFast(ymm)
	convExact()
	elementwise(ymm)
}

func deltas() {
	deltaReadFast(ymm, 8)
	deltaReadFast(ymm, 1)
	deltaWriteFast(ymm, 4)
	deltaWriteFast(ymm, 1)
	deltaExact(ymm, false)
	deltaExact(ymm, true)
}

// wide512 are what AVX-512 has a form of its own of.
func wide512() {
	deltaReadFast(zmm, 4)
	deltaWriteFast(zmm, 4)
	deltaExact(zmm, false)
	deltaExact(zmm, true)
	convFast(zmm)
	expFast(zmm)
	expSum(zmm)
}

func exps() {
	expDiff()
	for _, k := range expKinds {
		expRounded(k)
	}
	softmaxEnd()
	most()
	expFast(ymm)
	expSum(ymm)
	conversions()
}
