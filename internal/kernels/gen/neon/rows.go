package main

import (
	"fmt"
	"math"
)

func float32bits(x float32) uint32 { return math.Float32bits(x) }

// The places in rowsArgs (rows_simd.go; a test compares them).
const (
	argW, argScale, argMin, argX      = 0, 8, 16, 24
	argWStride, argSStride, argN      = 32, 40, 48
	argSum32, argSum64, argSq, argDst = 56, 72, 104, 120
	argAhead                          = 128
)

// Registers: the rows at R1.., their scales at R5, R6, minvals at R7, R8, x or dst at R9, what is left at R10, the distance of
// the prefetch at R11.
const (
	regW, regS, regM, regX, regN, regAhead, regTemp = 1, 5, 7, 9, 10, 11, 12
)

// format is how eight stored weights become two vectors of four float32. step elements are a round of the loop, rows the
// weight rows that one load of x serves.
type format struct {
	name             string
	bits, rows, step int
	// setup loads constants, block what 32 weights of row r share, load gives elements 8p..8p+7 of the round in v4 and v5.
	// v4 to v11 are free, v26 to v31 hold constants and what block makes.
	setup func()
	block func(r int)
	load  func(base, p int)
}

var formats = []format{
	{name: "F32", bits: 32, rows: 4, step: 16, load: loadF32},
	{name: "F16", bits: 16, rows: 4, step: 16, load: loadF16},
	{name: "BF16", bits: 16, rows: 4, step: 16, load: loadBF16},
	{name: "F32R16", bits: 32, rows: 4, step: 16, load: func(b, p int) { loadF32(b, p); roundF16() }},
	{name: "BF16R16", bits: 16, rows: 4, step: 16, load: func(b, p int) { loadBF16(b, p); roundF16() }},
	{name: "I8", bits: 8, rows: 2, step: 32, setup: func() {}, block: blockI8, load: loadI8},
	{name: "I4", bits: 4, rows: 2, step: 32, setup: func() { nibbles("signedNibbles") }, block: blockI4, load: loadNibbles(fcvtl4s, fcvtl24s)},
	{name: "U4", bits: 4, rows: 2, step: 32, setup: setupU4, block: blockU4, load: loadNibbles(shll4s, shll24s)},
}

func loadF32(base, p int) { ldp(4, 5, base, 32*p) }

func loadF16(base, p int) {
	ldrq(5, base, 16*p)
	do(fcvtl4s, 4, 5)
	do(fcvtl24s, 5, 5)
}

// A bf16 is the upper half of a float32.
func loadBF16(base, p int) {
	ldrq(5, base, 16*p)
	do(shll4s, 4, 5)
	do(shll24s, 5, 5)
}

// roundF16 rounds v4 and v5 to binary16 and back.
func roundF16() {
	do(fcvtn4h, 4, 4)
	do(fcvtn28h, 4, 5)
	do(fcvtl24s, 5, 4)
	do(fcvtl4s, 4, 4)
}

// blockI8 has the scale in v31.
func blockI8(r int) {
	ldrh(31, regS+r, 0)
	do(fcvtl4s, 31, 31)
}

// loadI8 is R16(q * scale).
func loadI8(base, p int) {
	ldrd(5, base, 8*p)
	do(sxtl8h, 5, 5)
	do(sxtl4s, 4, 5)
	do(sxtl24s, 5, 5)
	do(scvtf4s, 4, 4)
	do(scvtf4s, 5, 5)
	fmulLane(4, 4, 31)
	fmulLane(5, 5, 31)
	roundF16()
}

// nibbles has the address of the sixteen values in R13 and 15 in every byte of v29.
func nibbles(table string) {
	line("MOVD $%s<>(SB), R13", table)
	line("VMOVI $15, V29.B16")
}

func setupU4() {
	nibbles("unsignedNibbles")
	for i, c := range []string{"1", "0x7fff", "0xffff0000"} {
		line("MOVD $%s, R14", c)
		line("VDUP R14, V%d.S4", 26+i)
	}
}

// blockI4 makes R16(q * scale) for every q of four bits: the low bytes in v30, the high ones in v31.
func blockI4(r int) {
	ldrh(31, regS+r, 0)
	do(fcvtl4s, 31, 31)
	ldp(4, 5, 13, 0)
	ldp(6, 7, 13, 32)
	for v := 4; v < 8; v++ {
		fmulLane(v, v, 31)
	}
	do(fcvtn4h, 4, 4)
	do(fcvtn28h, 4, 5)
	do(fcvtn4h, 6, 6)
	do(fcvtn28h, 6, 7)
	do(uzp1b, 30, 4, 6)
	do(uzp2b, 31, 4, 6)
}

// blockU4 makes B(B(q * scale) + minval) likewise. Rounding to bf16 adds half a unit less one and the last bit that stays; a
// NaN stays one, since the low half of one made here of bf16 numbers is 0.
func blockU4(r int) {
	ldrh(31, regS+r, 0)
	do(shl4s16, 31, 31)
	ldrh(30, regM+r, 0)
	do(shl4s16, 30, 30)
	do(dup4s, 30, 30)
	ldp(4, 5, 13, 0)
	ldp(6, 7, 13, 32)
	for v := 4; v < 8; v++ {
		fmulLane(v, v, 31)
		roundBF16(v)
		do(and16b, v, v, 28)
		do(fadd4s, v, v, 30)
		roundBF16(v)
	}
	do(uzp2h, 4, 4, 5)
	do(uzp2h, 6, 6, 7)
	do(uzp1b, 30, 4, 6)
	do(uzp2b, 31, 4, 6)
}

// roundBF16 leaves the rounded number in the upper half; v26 holds ones, v27 halves of a unit less one.
func roundBF16(v int) {
	do(ushr4s16, 11, v)
	do(and16b, 11, 11, 26)
	do(add4s, v, v, 27)
	do(add4s, v, v, 11)
}

// loadNibbles looks sixteen nibbles up, the even column in the low one; the second half of them stays in v7 for the next call.
func loadNibbles(lo, hi op) func(base, p int) {
	return func(base, p int) {
		if p%2 == 1 {
			do(lo, 4, 7)
			do(hi, 5, 7)
			return
		}
		ldrd(4, base, 4*p)
		do(ushr16b4, 5, 4)
		do(and16b, 4, 4, 29)
		do(zip1b, 4, 4, 5)
		do(tbl, 5, 30, 4)
		do(tbl, 6, 31, 4)
		do(zip2b, 7, 5, 6)
		do(zip1b, 5, 5, 6)
		do(lo, 4, 5)
		do(hi, 5, 5)
	}
}

// begin reads the arguments, R0.
func (f format) begin(rows, x int) {
	line("MOVD a+0(FP), R0")
	line("MOVD %d(R0), R%d", argW, regW)
	line("MOVD %d(R0), R%d", argN, regN)
	line("MOVD %d(R0), R%d", x, regX)
	line("MOVD %d(R0), R%d", argAhead, regAhead)
	if rows > 1 {
		line("MOVD %d(R0), R%d", argWStride, regTemp)
	}
	for r := 1; r < rows; r++ {
		line("ADD R%d, R%d, R%d", regTemp, regW+r-1, regW+r)
	}
	if f.block == nil {
		return
	}
	line("MOVD %d(R0), R%d", argScale, regS)
	line("MOVD %d(R0), R%d", argMin, regM)
	if rows > 1 {
		line("MOVD %d(R0), R%d", argSStride, regTemp)
		line("ADD R%d, R%d, R%d", regTemp, regS, regS+1)
		line("ADD R%d, R%d, R%d", regTemp, regM, regM+1)
	}
	f.setup()
}

// row is what a round does before it loads weights of row r.
func (f format) row(r int) {
	line("ADD R%d, R%d, R%d", regAhead, regW+r, regTemp)
	line("PRFM (R%d), PLDL1KEEP", regTemp)
	if f.block != nil {
		f.block(r)
	}
}

// next moves on by a round.
func (f format) next(rows, xBytes int) {
	for r := range rows {
		line("ADD $%d, R%d", f.step*f.bits/8, regW+r)
		if f.block != nil {
			line("ADD $2, R%d", regS+r)
			if f.name == "U4" {
				line("ADD $2, R%d", regM+r)
			}
		}
	}
	line("ADD $%d, R%d", xBytes, regX)
	line("SUB $%d, R%d", f.step, regN)
	line("B loop")
	label("done")
}

func (f format) loop() {
	label("loop")
	line("CMP $%d, R%d", f.step, regN)
	line("BLT done")
}

// rowsFast has four accumulators a row, from v16 on.
func rowsFast(f format) {
	text("rowsFast"+f.name, "(a *byte)", 8,
		fmt.Sprintf("for r < %d: a.sum32[r] = sum of w[r*wStride:][i] * x[i] over i < n, n a multiple of %d, x float32.", f.rows, f.step))
	f.begin(f.rows, argX)
	for i := range 4 * f.rows {
		zero(16 + i)
	}
	f.loop()
	if f.block == nil { // x in registers serves all rows
		ldp(0, 1, regX, 0)
		ldp(2, 3, regX, 32)
	}
	for r := range f.rows {
		f.row(r)
		for p := range f.step / 8 {
			f.load(regW+r, p)
			x := 2 * (p % 2)
			if f.block != nil {
				ldp(x, x+1, regX, 32*p)
			}
			do(fmla4s, 16+4*r+x, x, 4)
			do(fmla4s, 17+4*r+x, x+1, 5)
		}
	}
	f.next(f.rows, 4*f.step)
	for r := range f.rows {
		a := 16 + 4*r
		do(fadd4s, a, a, a+1)
		do(fadd4s, a+2, a+2, a+3)
		do(fadd4s, a, a, a+2)
		lanes4(a)
		strs(a, 0, argSum32+4*r)
	}
	line("RET")
}

// lanes4 is the sum of the four lanes of v.
func lanes4(v int) {
	do(faddp4s, v, v, v)
	do(faddp2s, v, v)
}

// rowsExact has four accumulators of two float64 a row from v16 on, and the sum of squares in v12.. or v24...
func rowsExact(f format) {
	text("rowsExact"+f.name, "(a *byte)", 8, fmt.Sprintf("for r < %d: a.sum64[r] = sum of w[r*wStride:][i] * x[i] and a.sq[r] = sum of w*w, float32, "+
		"over i < n, n a multiple of %d, x float64. Each sum64 is eight chains of n/8 products, each sq four.", f.rows, f.step))
	f.begin(f.rows, argX)
	sq := 12
	if f.block != nil {
		sq = 24
	}
	for r := range f.rows {
		zero(16+4*r, 17+4*r, 18+4*r, 19+4*r, sq+r)
	}
	f.loop()
	product := func(r, p int) {
		f.load(regW+r, p)
		do(fmla4s, sq+r, 4, 4)
		do(fmla4s, sq+r, 5, 5)
		a := 16 + 4*r
		do(fcvtl2d, 8, 4)
		do(fcvtl22d, 9, 4)
		do(fcvtl2d, 10, 5)
		do(fcvtl22d, 11, 5)
		for i := range 4 {
			do(fmla2d, a+i, i, 8+i)
		}
	}
	if f.block == nil {
		for r := range f.rows {
			f.row(r)
		}
		for p := range f.step / 8 {
			ldp(0, 1, regX, 64*p)
			ldp(2, 3, regX, 64*p+32)
			for r := range f.rows {
				product(r, p)
			}
		}
	} else {
		for r := range f.rows {
			f.row(r)
			for p := range f.step / 8 {
				ldp(0, 1, regX, 64*p)
				ldp(2, 3, regX, 64*p+32)
				product(r, p)
			}
		}
	}
	f.next(f.rows, 8*f.step)
	for r := range f.rows {
		a := 16 + 4*r
		do(fadd2d, a, a, a+1)
		do(fadd2d, a+2, a+2, a+3)
		do(fadd2d, a, a, a+2)
		do(faddp2d, a, a)
		strd(a, 0, argSum64+8*r)
		lanes4(sq + r)
		strs(sq+r, 0, argSq+4*r)
	}
	line("RET")
}

func unpack(f format) {
	text("unpack"+f.name, "(a *byte)", 8, fmt.Sprintf("a.dst[i] = w[i] for i < n, n a multiple of %d; the line a.ahead bytes on is asked for.", f.step))
	f.begin(1, argDst)
	f.loop()
	f.row(0)
	for p := range f.step / 8 {
		f.load(regW, p)
		strq(4, regX, 32*p)
		strq(5, regX, 32*p+16)
	}
	f.next(1, 4*f.step)
	line("RET")
}
