package main

import (
	"fmt"
	"math"
	"strings"
)

// What precision.Exp64 holds, in its order; v15 to v31 have each in both lanes, v14 the limit and the relative error that is
// allowed for.
var expConstants = []float64{1.44269504088896338700, 0.5, 6.93147180369123816490e-01, 1.90821492927058770002e-10, 1,
	1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320, 1. / 5040, 1. / 720, 1. / 120, 1. / 24, 1. / 6, 1. / 2}

const expLog2e, expHalf, expLn2Hi, expLn2Lo, expOne, expTaylor, expLimits = 15, 16, 17, 18, 19, 20, 14

func expTable() string {
	var b strings.Builder
	b.WriteString("\n")
	for i, v := range append([]float64{700, 0x1p-49}, doubled(expConstants)...) {
		fmt.Fprintf(&b, "DATA expConstants<>+%d(SB)/8, $0x%016x\n", 8*i, math.Float64bits(v))
	}
	fmt.Fprintf(&b, "GLOBL expConstants<>(SB), RODATA|NOPTR, $%d\n", 16*(1+len(expConstants)))
	return b.String()
}

func doubled(x []float64) (out []float64) {
	for _, v := range x {
		out = append(out, v, v)
	}
	return out
}

func loadExp() {
	line("MOVD $expConstants<>(SB), R6")
	for i := range 1 + len(expConstants) {
		ldrq(expLimits+i, 6, 16*i)
	}
}

// exp64 is e^src, or e^-src, for two pairs, with the operations of precision.Exp64 one by one and nothing fused: the same bits
// for |x| <= 700. The pairs' x lie in v0 and v7, the results in v6 and v13; x stays.
func exp64(negate bool) {
	pairs := func(f func(x, k, hi, lo, r, c, p, src int)) {
		for h := range 2 {
			b := 7 * h
			src := b
			if negate {
				src = b + 5
			}
			f(b, b+1, b+2, b+3, b+4, b+5, b+6, src)
		}
	}
	if negate {
		pairs(func(x, k, hi, lo, r, c, p, src int) { do(fneg2d, src, x) })
	}
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(fmul2d, k, src, expLog2e) })
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(fadd2d, k, k, expHalf) })
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(frintm2d, k, k) })
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(fmul2d, r, k, expLn2Hi) })
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(fsub2d, hi, src, r) })
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(fmul2d, lo, k, expLn2Lo) })
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(fsub2d, r, hi, lo) })
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(fsub2d, c, hi, r) })
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(fsub2d, c, c, lo) }) // what the subtraction lost
	pairs(func(x, k, hi, lo, r, c, p, src int) { do(fmul2d, p, expTaylor, r) })
	for i := 1; i < 12; i++ {
		pairs(func(x, k, hi, lo, r, c, p, src int) { do(fadd2d, p, p, expTaylor+i) })
		if i < 11 {
			pairs(func(x, k, hi, lo, r, c, p, src int) { do(fmul2d, p, p, r) })
		}
	}
	// 1 + (r + (r*r*p + c*(1+r))), times 2^k: k joins the exponent
	pairs(func(x, k, hi, lo, r, c, p, src int) {
		do(fmul2d, hi, r, r)
		do(fmul2d, hi, hi, p)
		do(fadd2d, p, r, expOne)
		do(fmul2d, c, c, p)
		do(fadd2d, hi, hi, c)
		do(fadd2d, hi, r, hi)
		do(fadd2d, hi, hi, expOne)
		do(fcvtzs2d, k, k)
		do(shl2d52, k, k)
		do(add2d, p, hi, k)
	})
}

// eachFour is the loop over groups of four, by index R5 below register n; the result, at ret, is the index it ends at.
func eachFour(n, ret int, body func()) {
	line("MOVD ZR, R5")
	label("loop")
	line("CMP R%d, R5", n)
	line("BGE done")
	body()
	line("ADD $4, R5")
	line("B loop")
	label("done")
	line("MOVD R5, ret+%d(FP)", ret)
	line("RET")
}

// stopUnless ends the loop where a lane of v, a mask, is not set.
func stopUnless(v int) {
	do(uminv4s, v, v)
	line("FMOVS F%d, R7", v)
	line("CBZW R7, done")
}

// loadExpX has four x of R1 as float64 in v0 and v7, less those in v6's lanes if minus says so, and ends the loop where one lies
// beyond 700 or is a NaN.
func loadExpX(minus int) {
	ldrq(1, 1, 0)
	do(fcvtl2d, 0, 1)
	do(fcvtl22d, 7, 1)
	if minus >= 0 {
		line("VDUP R%d, V1.D2", minus)
		do(fsub2d, 0, 0, 1)
		do(fsub2d, 7, 7, 1)
	}
	do(dup2d, 1, expLimits)
	do(fabs2d, 2, 0)
	do(fabs2d, 3, 7)
	do(fcmge2d, 2, 1, 2)
	do(fcmge2d, 3, 1, 3)
	do(and16b, 2, 2, 3)
	stopUnless(2)
}

// storeIfSame rounds the pairs in v6 and v13 to float32 at R0, or ends the loop where the bounds in v1, v2 and v3, v4 do not round
// alike, bit by bit.
func storeIfSame() {
	for _, v := range []int{1, 3} {
		do(fcvtn2s, v, v)
		do(fcvtn24s, v, v+1)
	}
	do(cmeq4s, 1, 1, 3)
	stopUnless(1)
	do(fcvtn2s, 6, 6)
	do(fcvtn24s, 6, 13)
	strq(6, 0, 0)
}

func exps() {
	text("expDiffWhole", "(dst *float64, x *float32, m float64, n int) int", 40, "dst[i] = precision.Exp64(float64(x[i]) - m), its bits, n a multiple of 4, up to the "+
		"first group of four with a difference beyond 700 or a NaN; the result is the index of that group, n if there is none.")
	args("dst", "x", "m", "n")
	loadExp()
	eachFour(3, 32, func() {
		loadExpX(2)
		exp64(false)
		strq(6, 0, 0)
		strq(13, 0, 16)
		line("ADD $32, R0")
		line("ADD $16, R1")
	})
	for _, k := range []struct {
		name, doc string
		negate    bool
		finish    func(x, y int)
	}{
		{"expWhole", "e^x", false, func(x, y int) {}},
		{"sigmoidWhole", "1/(1+e^-x)", true, func(x, y int) { do(fadd2d, y, y, expOne); do(fdiv2d, y, expOne, y) }},
		{"siluWhole", "x/(1+e^-x)", true, func(x, y int) { do(fadd2d, y, y, expOne); do(fdiv2d, y, x, y) }},
	} {
		text(k.name, "(dst *float32, x *float32, n int) int", 32, "dst[i] = float32("+k.doc+"), n a multiple of 4, up to the first group of four in which an error of 2^-49 "+
			"of the float64 value could change its rounding, or |x| is beyond 700, or x a NaN; the result is the index of that group, n if there is none.")
		args("dst", "x", "n")
		loadExp()
		eachFour(2, 24, func() {
			loadExpX(-1)
			exp64(k.negate)
			k.finish(0, 6)
			k.finish(7, 13)
			for h, y := range []int{6, 13} {
				fmulLane1(5, y, expLimits)
				do(fsub2d, 1+h, y, 5)
				do(fadd2d, 3+h, y, 5)
			}
			storeIfSame()
			line("ADD $16, R0")
			line("ADD $16, R1")
		})
	}
	text("quotientWhole", "(dst *float32, e *float64, sum float64, u float64, n int) int", 48, "dst[i] = float32(e[i]/sum), n a multiple of 4, up to the first group of "+
		"four in which a relative error of u could change the rounding; the result is the index of that group, n if there is none.")
	args("dst", "e", "sum", "u", "n")
	line("VDUP R2, V30.D2")
	line("VDUP R3, V31.D2")
	eachFour(4, 40, func() {
		ldrq(6, 1, 0)
		ldrq(13, 1, 16)
		for h, y := range []int{6, 13} {
			do(fdiv2d, y, y, 30)
			do(fmul2d, 5, y, 31)
			do(fsub2d, 1+h, y, 5)
			do(fadd2d, 3+h, y, 5)
		}
		storeIfSame()
		line("ADD $16, R0")
		line("ADD $32, R1")
	})
}
