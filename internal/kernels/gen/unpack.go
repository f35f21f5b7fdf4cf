package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// unpack writes weights as float32, in registers of the width v.
func unpack(f format, v width) {
	name, step, groups := "unpack"+f.name, f.step, f.step/8
	if v.bytes == 64 {
		name, step, groups = name+v.name, 32, 2
	}
	TEXT(name, NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("%s: for r < rows: the row r*dstStride bytes on from dst is w[r*wStride:][i] for i < n, n a multiple of %d.", name, step))
	a := Load(Param("a"), GP64())
	k := newWalk(f, a, 1)
	dst, count, n := load64(a, argDst), load64(a, argRows), GP64()
	w, s, m, d := GP64(), GP64(), GP64(), GP64()
	Label("row")
	MOVQ(k.w, w)
	MOVQ(dst, d)
	MOVQ(k.n, n)
	if k.s != nil {
		MOVQ(k.s, s)
	}
	if k.m != nil {
		MOVQ(k.m, m)
	}
	JMP(LabelRef("enter"))
	Label("loop")
	var blk []reg.VecVirtual
	if f.block != nil {
		blk = f.block(Mem{Base: s}, Mem{Base: m})
		if v.bytes == 64 { // of one number
			z := ZMM()
			VBROADCASTSS(blk[0].AsX(), z)
			blk[0] = z
		}
	}
	for i := range groups {
		y := v.reg()
		f.load(y, f.at(Mem{Base: w}, i*v.floats()/8), blk)
		VMOVUPS(y, Mem{Base: d, Disp: v.bytes * i})
	}
	ADDQ(U32(step*f.bits/8), w)
	ADDQ(U32(4*step), d)
	if k.s != nil {
		ADDQ(U8(2), s)
	}
	if k.m != nil {
		ADDQ(U8(2), m)
	}
	SUBQ(U8(step), n)
	Label("enter")
	CMPQ(n, U8(step))
	JGE(LabelRef("loop"))
	ADDQ(Mem{Base: a, Disp: argWStride}, k.w)
	ADDQ(Mem{Base: a, Disp: argDstStride}, dst)
	if k.s != nil {
		ADDQ(Mem{Base: a, Disp: argSStride}, k.s)
	}
	if k.m != nil {
		ADDQ(Mem{Base: a, Disp: argSStride}, k.m)
	}
	DECQ(count)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// unpacks512 are of the forms that unpack with a few instructions, not by a table.
func unpacks512() {
	for _, f := range formats {
		if f.bits > 4 {
			unpack(f, zmm)
		}
	}
}
