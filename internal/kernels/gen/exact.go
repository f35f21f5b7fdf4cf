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

var magnitude16 = constants("magnitude16", func(int) Constant { return U32(0x7fff7fff) }, 16)
var magnitude32 = constants("magnitude32", func(int) Constant { return U32(0x7fffffff) }, 8)

// rowsExactHalf is the exact product for 16 stored bits. A lane of 64 bits holds four weights; x comes as float64,
// every 16 elements in the order in which they are met here: 4i+3, then 4i+1, 4i+2 and 4i, for i = 0..3.
func rowsExactHalf(h half) {
	keep := constants("keep"+h.name, func(i int) Constant { return U32(h.keep * uint32(i&1)) }, 8)
	TEXT("rowsExact"+h.name, NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("rowsExact%s: for r < rows: dst[r] = sum of w[r*wStride:][i] * x[i] over i < n, n a multiple of 32, x and dst float64, x scaled", h.name),
		"and in the order of gen/exact.go; sixteen chains of n/16 products each. sqs[r] = the largest bits of the row's weights without their sign.")
	acc := accumulators(4)
	most := accumulators(1)[0]
	mask, magnitude := YMM(), YMM()
	VMOVDQU(keep(), mask)
	VMOVDQU(magnitude16(), magnitude)
	var round reg.VecVirtual
	if h.round != 0 {
		round = YMM()
		VMOVUPD(doubles("round"+h.name, h.round)(), round)
	}
	product := func(x Op, w, sum reg.VecVirtual) {
		if round != nil {
			VADDPD(round, w, w)
			VSUBPD(round, w, w)
		}
		VFMADD231PD(x, w, sum)
	}
	rowByRow(format{name: h.name, bits: 16}, 32, 8, func() { zero(acc); zero([]reg.VecVirtual{most}) }, func(q *sequence) {
		for i := range 2 {
			x := func(j int) Op { return Mem{Base: q.x, Disp: 128*i + 32*j} }
			v, t, u := YMM(), YMM(), YMM()
			VMOVDQU(q.row(0).Offset(32*i), v)
			VPAND(magnitude, v, t)
			VPMAXUW(t, most, most)
			VPSRAD(U8(h.move), v, t) // weights 4i+3 in the upper half of each lane, 4i+1 in the lower
			VPSLLQ(U8(32), t, u)
			VPAND(mask, t, t)
			VPAND(mask, u, u)
			product(x(0), t, acc[0])
			product(x(1), u, acc[1])
			VPSLLD(U8(16), v, v)
			VPSRAD(U8(h.move), v, v) // 4i+2, 4i
			VPSLLQ(U8(32), v, u)
			VPAND(mask, v, v)
			VPAND(mask, u, u)
			product(x(2), v, acc[2])
			product(x(3), u, acc[3])
		}
	}, func(q *sequence) {
		q.putSum64(acc)
		t := XMM()
		VEXTRACTI128(U8(1), most, t)
		VPMAXUW(t, most.AsX(), t)
		for _, bytes := range []uint8{8, 4, 2} {
			u := XMM()
			VPSRLDQ(U8(bytes), t, u)
			VPMAXUW(u, t, t)
		}
		VPMOVZXWD(t, t) // the lowest alone
		q.putSq(t)
	})
}

// rowsExactF32 is the exact product for float32, which the processor widens itself.
func rowsExactF32() {
	TEXT("rowsExactF32", NOSPLIT, "func(a *byte)")
	describe("rowsExactF32: for r < rows: dst[r] = sum of w[r*wStride:][i] * x[i] over i < n, n a multiple of 32, x and dst float64;",
		"sixteen chains of n/16 products each. sqs[r] = the largest bits of the row's weights without their sign.")
	acc := accumulators(4)
	most := accumulators(1)[0]
	mask := YMM()
	VMOVDQU(magnitude32(), mask)
	rowByRow(format{name: "F32", bits: 32}, 32, 8, func() { zero(acc); zero([]reg.VecVirtual{most}) }, func(q *sequence) {
		for i := range 4 {
			t := YMM()
			row := q.row(0).Offset(32 * i)
			VPAND(row, mask, t)
			VPMAXUD(t, most, most)
			for j := range 2 {
				d := YMM()
				VCVTPS2PD(row.Offset(16*j), d)
				VFMADD231PD(Mem{Base: q.x, Disp: 64*i + 32*j}, d, acc[(2*i+j)%4])
			}
		}
	}, func(q *sequence) {
		q.putSum64(acc)
		t := XMM()
		VEXTRACTI128(U8(1), most, t)
		VPMAXUD(t, most.AsX(), t)
		for _, bytes := range []uint8{8, 4} {
			u := XMM()
			VPSRLDQ(U8(bytes), t, u)
			VPMAXUD(u, t, t)
		}
		q.putSq(t)
	})
}
