package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// format is how eight stored weights become eight float32. step elements are one round of a loop; rows is how many
// weight rows a kernel reads side by side, so that one load of x serves them all.
type format struct {
	name string
	bits int // stored bits an element
	rows int
	step int
	// block prepares what a block of 32 needs (scale, tables) and load gives elements 8*i .. 8*i+7 of a row's round.
	block func(scale, low Mem) []reg.VecVirtual
	load  func(y reg.VecVirtual, w Mem, blk []reg.VecVirtual)
}

// at is the place of element group i (eight elements) of a round that starts at w.
func (f format) at(w Mem, i int) Mem {
	w.Disp += i * f.bits
	return w
}

var formats = []format{
	{name: "F32", bits: 32, rows: 4, step: 16, load: func(y reg.VecVirtual, w Mem, _ []reg.VecVirtual) { VMOVUPS(w, y) }},
	{name: "F16", bits: 16, rows: 4, step: 16, load: func(y reg.VecVirtual, w Mem, _ []reg.VecVirtual) { VCVTPH2PS(w, y) }},
	{name: "BF16", bits: 16, rows: 4, step: 16, load: loadBF16},
	{name: "F32R16", bits: 32, rows: 4, step: 16, load: func(y reg.VecVirtual, w Mem, _ []reg.VecVirtual) { VMOVUPS(w, y); roundF16(y) }},
	{name: "BF16R16", bits: 16, rows: 4, step: 16, load: func(y reg.VecVirtual, w Mem, _ []reg.VecVirtual) { loadBF16(y, w, nil); roundF16(y) }},
	{name: "I8", bits: 8, rows: 2, step: 32, block: scaleF16, load: loadI8},
	{name: "I4", bits: 4, rows: 2, step: 32, block: tableI4, load: loadNibble},
	{name: "U4", bits: 4, rows: 2, step: 32, block: tableU4, load: loadNibble},
}

// A bf16 is the upper half of a float32.
func loadBF16(y reg.VecVirtual, w Mem, _ []reg.VecVirtual) {
	VPMOVZXWD(w, y)
	VPSLLD(U8(16), y, y)
}

// scaleF16 is the block's scale in every lane.
func scaleF16(scale, _ Mem) []reg.VecVirtual {
	s := YMM()
	VPBROADCASTW(scale, s.AsX())
	VCVTPH2PS(s.AsX(), s)
	return []reg.VecVirtual{s}
}

// roundF16 is y = R16(y): to binary16 and back.
func roundF16(y reg.VecVirtual) {
	h := y.AsX()
	if y.Size() == 64 {
		h = y.AsY()
	}
	VCVTPS2PH(U8(0), y, h)
	VCVTPH2PS(h, y)
}

// loadI8 is R16(q * scale).
func loadI8(y reg.VecVirtual, w Mem, blk []reg.VecVirtual) {
	VPMOVSXBD(w, y)
	VCVTDQ2PS(y, y)
	VMULPS(blk[0], y, y)
	roundF16(y)
}

// constants makes a read-only table once and gives it at each call.
func constants(name string, v func(i int) Constant, n int) func() Mem {
	var m *Mem
	return func() Mem {
		if m == nil {
			g := GLOBL(name, RODATA|NOPTR)
			for i := range n {
				DATA(4*i, v(i))
			}
			m = &g
		}
		return *m
	}
}

// bits is a float32 constant; avo writes F32(1) as an integer.
func bits(x float32) Constant { return U32(math.Float32bits(x)) }

var (
	signedQ   = constants("signedQ", func(i int) Constant { return bits(float32(int8(i<<4) >> 4)) }, 16)
	unsignedQ = constants("unsignedQ", func(i int) Constant { return bits(float32(i)) }, 16)
	nibbleAt  = constants("nibbleAt", func(i int) Constant { return U32(4 * uint32(i)) }, 8)
	// bf16 rounding: half a unit less one, one, and the bits that stay
	halfBF16 = constants("halfBF16", func(int) Constant { return U32(0x7fff) }, 8)
	oneBit   = constants("oneBit", func(int) Constant { return U32(1) }, 8)
	keepBF16 = constants("keepBF16", func(int) Constant { return U32(0xffff0000) }, 8)
)

// tableI4 is R16(q * scale) for every q of four bits: 0..7, then -8..-1, as the nibble counts.
func tableI4(scale, _ Mem) []reg.VecVirtual {
	s := scaleF16(scale, Mem{})[0]
	lo, hi := YMM(), YMM()
	VMULPS(signedQ(), s, lo)
	VMULPS(signedQ().Offset(32), s, hi)
	roundF16(lo)
	roundF16(hi)
	return []reg.VecVirtual{lo, hi}
}

// roundBF16 is y = B(y) for what is no NaN: nearest even on the 16 bits that go. t is scratch. A NaN stays one: of a
// bf16 scale and minval its low half is 0 or, made by the hardware, 0.
func roundBF16(y, t reg.VecVirtual) {
	VPSRLD(U8(16), y, t)
	VPAND(oneBit(), t, t)
	VPADDD(halfBF16(), y, y)
	VPADDD(t, y, y)
	VPAND(keepBF16(), y, y)
}

// tableU4 is B(B(q * scale) + minval) for q = 0..15.
func tableU4(scale, low Mem) []reg.VecVirtual {
	s, m, t := YMM(), YMM(), YMM()
	VPBROADCASTW(scale, s)
	VPSLLD(U8(16), s, s)
	VPBROADCASTW(low, m)
	VPSLLD(U8(16), m, m)
	lo, hi := YMM(), YMM()
	VMULPS(unsignedQ(), s, lo)
	VMULPS(unsignedQ().Offset(32), s, hi)
	for _, y := range []reg.VecVirtual{lo, hi} {
		roundBF16(y, t)
		VADDPS(m, y, y)
		roundBF16(y, t)
	}
	return []reg.VecVirtual{lo, hi}
}

// loadNibble looks up eight nibbles, the even column in the low one, in the block's table.
func loadNibble(y reg.VecVirtual, w Mem, blk []reg.VecVirtual) {
	i, hi := YMM(), YMM()
	VPBROADCASTD(w, i)
	VPSRLVD(nibbleAt(), i, i)
	VPERMPS(blk[0], i, y) // by the low three bits
	VPERMPS(blk[1], i, hi)
	VPSLLD(U8(28), i, i) // the fourth, as a sign
	VBLENDVPS(i, hi, y, y)
}
