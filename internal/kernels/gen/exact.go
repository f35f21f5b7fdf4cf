package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// half is a format of 16 bits whose values become float64 without a conversion: the bits go to the top of a float64,
// its exponent's e bits lower. That is the value times 2^(bias-1023), for zeros and subnormals too, and x is scaled by
// the inverse beforehand; infinities and NaN come out finite and are told by the largest magnitude.
type half struct {
	name string
	move uint8  // 11 less the bits of the exponent
	keep uint32 // sign, exponent and mantissa there, in the upper half of the float64
	// round is a number whose addition and subtraction round a weight to another grid; 0 for none.
	round float64
}

var halves = []half{
	{"BF16", 11 - 8, 0x8fffe000, 0},
	{"F16", 11 - 5, 0x81fffc00, 0},
	// Of a bf16's eight bits binary16 keeps all, above its subnormals; there its grid is 2^-24, which is the unit in the last
	// place of 2^28 and any sum with it, while a larger bf16 lies on that grid. 65536 and above, which become infinite, are
	// told by the largest magnitude.
	{"BF16R16", 11 - 8, 0x8fffe000, 0x1.8p28 * 0x1p-896},
}

var magnitude16 = constants("magnitude16", func(int) Constant { return U32(0x7fff7fff) }, 8)
var magnitude32 = constants("magnitude32", func(int) Constant { return U32(0x7fffffff) }, 8)

// rowsExactHalf is the exact product for 16 stored bits. A lane of 64 bits holds four weights; x comes as float64,
// every 16 elements in the order in which they are met here: 4i+3, then 4i+1, 4i+2 and 4i, for i = 0..3.
func rowsExactHalf(h half) {
	const rows = 4
	keep := constants("keep"+h.name, func(i int) Constant { return U32(h.keep * uint32(i&1)) }, 8)
	TEXT("rowsExact"+h.name, NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("rowsExact%s: for r < %d: a.sum64[r] = sum of w[r*wStride:][i] * x[i] over i < n, n a multiple of 16, x float64, scaled", h.name, rows),
		"and in the order of gen/exact.go; eight chains of n/8 products each. a.most = the largest bits of all the weights without their sign.")
	a := Load(Param("a"), GP64())
	f := format{name: h.name, bits: 16}
	k := newWalk(f, a, rows)
	x, ahead := load64(a, argX), load64(a, argAhead)
	acc := accumulators(2 * rows)
	most := accumulators(1)[0]
	mask := YMM()
	VMOVDQU(keep(), mask)
	round := doubles("round"+h.name, h.round)
	product := func(x Op, w, sum reg.VecVirtual) {
		if h.round != 0 {
			VADDPD(round(), w, w)
			VSUBPD(round(), w, w)
		}
		VFMADD231PD(x, w, sum)
	}
	Label("loop")
	CMPQ(k.n, U8(16))
	JL(LabelRef("done"))
	xs := []reg.VecVirtual{YMM(), YMM(), YMM()}
	for i, y := range xs {
		VMOVUPD(Mem{Base: x, Disp: 32 * i}, y)
	}
	for r := range rows {
		k.prefetch(r, ahead, 16)
		v, t, u := YMM(), YMM(), YMM()
		VMOVDQU(k.row(r), v)
		VPAND(magnitude16(), v, t)
		VPMAXUW(t, most, most)
		VPSRAD(U8(h.move), v, t) // weights 4i+3 in the upper half of each lane, 4i+1 in the lower
		VPSLLQ(U8(32), t, u)
		VPAND(mask, t, t)
		VPAND(mask, u, u)
		product(xs[0], t, acc[2*r])
		product(xs[1], u, acc[2*r+1])
		VPSLLD(U8(16), v, v)
		VPSRAD(U8(h.move), v, v) // 4i+2, 4i
		VPSLLQ(U8(32), v, u)
		VPAND(mask, v, v)
		VPAND(mask, u, u)
		product(xs[2], v, acc[2*r])
		product(Mem{Base: x, Disp: 96}, u, acc[2*r+1])
	}
	ADDQ(U32(128), x)
	k.next(16)
	JMP(LabelRef("loop"))
	Label("done")
	storeExact(a, acc, rows)
	t := XMM()
	VEXTRACTI128(U8(1), most, t)
	VPMAXUW(t, most.AsX(), most.AsX())
	for _, bytes := range []uint8{8, 4, 2} {
		VPSRLDQ(U8(bytes), most.AsX(), t)
		VPMAXUW(t, most.AsX(), most.AsX())
	}
	m := GP32()
	VMOVD(most.AsX(), m)
	ANDL(U32(0xffff), m)
	MOVL(m, Mem{Base: a, Disp: argMost})
	VZEROUPPER()
	RET()
}

// storeExact writes the sums of two accumulators a row.
func storeExact(a reg.Register, acc []reg.VecVirtual, rows int) {
	for r := range rows {
		VADDPD(acc[2*r+1], acc[2*r], acc[2*r])
		h := XMM()
		lanes64(acc[2*r], h)
		VMOVSD(h, Mem{Base: a, Disp: argSum64 + 8*r})
	}
}

// rowsExactF32 is the exact product for float32, which the processor widens itself.
func rowsExactF32() {
	const rows = 4
	TEXT("rowsExactF32", NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("rowsExactF32: for r < %d: a.sum64[r] = sum of w[r*wStride:][i] * x[i] over i < n, n a multiple of 8, x float64;", rows),
		"eight chains of n/8 products each. a.most = the largest bits of all the weights without their sign.")
	a := Load(Param("a"), GP64())
	k := newWalk(format{name: "F32", bits: 32}, a, rows)
	x, ahead := load64(a, argX), load64(a, argAhead)
	acc := accumulators(2 * rows)
	most := accumulators(1)[0]
	Label("loop")
	CMPQ(k.n, U8(8))
	JL(LabelRef("done"))
	x0, x1 := YMM(), YMM()
	VMOVUPD(Mem{Base: x}, x0)
	VMOVUPD(Mem{Base: x, Disp: 32}, x1)
	mask := YMM()
	VMOVDQU(magnitude32(), mask)
	for r := range rows {
		t, d, e := YMM(), YMM(), YMM()
		k.prefetch(r, ahead, 8)
		row := k.row(r)
		VPAND(row, mask, t)
		VPMAXUD(t, most, most)
		VCVTPS2PD(row, d)
		VCVTPS2PD(row.Offset(16), e)
		VFMADD231PD(x0, d, acc[2*r])
		VFMADD231PD(x1, e, acc[2*r+1])
	}
	ADDQ(U32(64), x)
	k.next(8)
	JMP(LabelRef("loop"))
	Label("done")
	storeExact(a, acc, rows)
	t := XMM()
	VEXTRACTI128(U8(1), most, t)
	VPMAXUD(t, most.AsX(), most.AsX())
	for _, bytes := range []uint8{8, 4} {
		VPSRLDQ(U8(bytes), most.AsX(), t)
		VPMAXUD(t, most.AsX(), most.AsX())
	}
	m := GP32()
	VMOVD(most.AsX(), m)
	MOVL(m, Mem{Base: a, Disp: argMost})
	VZEROUPPER()
	RET()
}
