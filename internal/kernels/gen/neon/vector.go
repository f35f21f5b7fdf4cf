package main

import "strconv"

func itoa(n int) string { return strconv.Itoa(n) }

func vectors() {
	text("transpose8", "(dst *float32, ldd int, src *float32, lds int)", 32, "dst[c*ldd+r] = src[r*lds+c] for r, c < 8.")
	args("dst", "ldd", "src", "lds")
	line("LSL $2, R1")
	line("LSL $2, R3")
	for r := range 8 { // row r in v[2r], v[2r+1]
		ldp(2*r, 2*r+1, 2, 0)
		line("ADD R3, R2")
	}
	for half := range 2 { // columns 4*half.. of all rows
		for _, rows := range []int{0, 4} {
			a := func(r int) int { return 2*(rows+r) + half }
			do(trn1s, 16, a(0), a(1))
			do(trn2s, 17, a(0), a(1))
			do(trn1s, 18, a(2), a(3))
			do(trn2s, 19, a(2), a(3))
			do(zip1d, 20+rows, 16, 18)
			do(zip1d, 21+rows, 17, 19)
			do(zip2d, 22+rows, 16, 18)
			do(zip2d, 23+rows, 17, 19)
		}
		for c := range 4 {
			strq(20+c, 0, 0)
			strq(24+c, 0, 16)
			line("ADD R1, R0")
		}
	}
	line("RET")

	text("widenWhole", "(dst *float64, src *float32, n int) float64", 32, "dst[i] = src[i] for i < n, n a multiple of 8; the result is the sum of src[i]*src[i] in eight chains.")
	args("dst", "src", "n")
	zero(16, 17, 18, 19)
	loop8(2, func() {
		ldp(4, 5, 1, 0)
		widen8()
		for i := range 4 {
			strq(8+i, 0, 16*i)
			do(fmla2d, 16+i, 8+i, 8+i)
		}
		line("ADD $32, R1")
		line("ADD $64, R0")
	})
	sum2d(16)
	line("FMOVD F16, ret+24(FP)")
	line("RET")

	text("round64", "(dst *float32, s *float64, xn *float64, u float64, n int) int", 48, "dst[i] = float32(s[i]), n a multiple of 4, up to the first group of four in which s[i]-xn[i]*u and "+
		"s[i]+xn[i]*u round apart or s[i] is not finite; the result is the index of that group, n if there is none.")
	args("dst", "s", "xn", "u", "n")
	line("MOVD ZR, R5")
	line("VDUP R3, V31.D2")
	label("loop")
	line("CMP R4, R5")
	line("BGE done")
	ldp(0, 1, 1, 0)
	ldp(2, 3, 2, 0)
	for h := range 2 {
		do(fmul2d, 2+h, 2+h, 31)
		do(fsub2d, 4+h, h, 2+h)
		do(fadd2d, 6+h, h, 2+h)
	}
	do(fcvtn2s, 4, 4)
	do(fcvtn24s, 4, 5)
	do(fcvtn2s, 6, 6)
	do(fcvtn24s, 6, 7)
	do(cmeq4s, 8, 4, 6)  // bit by bit: -0 and 0 are two results
	do(fcmeq4s, 9, 4, 6) // ordered: a NaN equals nothing
	do(and16b, 8, 8, 9)
	do(uminv4s, 8, 8)
	line("FMOVS F8, R6")
	line("CBZW R6, done")
	do(fcvtn2s, 0, 0)
	do(fcvtn24s, 0, 1)
	strq(0, 0, 0)
	line("ADD $16, R0")
	line("ADD $32, R1")
	line("ADD $32, R2")
	line("ADD $4, R5")
	line("B loop")
	label("done")
	line("MOVD R5, ret+40(FP)")
	line("RET")

	text("dotFastWhole", "(a *float32, b *float32, n int) float32", 28, "sum of a[i]*b[i] over i < n, n a multiple of 32, in 32 chains.")
	args("a", "b", "n")
	for v := 16; v < 24; v++ {
		zero(v)
	}
	label("loop")
	line("CMP $32, R2")
	line("BLT done")
	for i := 0; i < 8; i += 2 {
		ldp(i, i+1, 0, 16*i)
		ldp(8+i, 9+i, 1, 16*i)
	}
	for i := range 8 {
		do(fmla4s, 16+i, i, 8+i)
	}
	line("ADD $128, R0")
	line("ADD $128, R1")
	line("SUB $32, R2")
	line("B loop")
	label("done")
	for n := 4; n > 0; n /= 2 {
		for i := range n {
			do(fadd4s, 16+i, 16+i, 16+i+n)
		}
	}
	lanes4(16)
	line("FMOVS F16, ret+24(FP)")
	line("RET")

	text("dotExactWhole", "(a *float32, b *float32, n int) (s float64, m float64)", 40, "s = sum of a[i]*b[i], m = sum of |a[i]*b[i]| over i < n, n a multiple of 8, in float64, eight chains each.")
	args("a", "b", "n")
	for v := 16; v < 24; v++ {
		zero(v)
	}
	loop8(2, func() {
		ldp(4, 5, 0, 0)
		widen8()
		ldp(4, 5, 1, 0)
		for i, o := range []op{fcvtl2d, fcvtl22d} {
			do(o, i, 4)
			do(o, 2+i, 5)
		}
		for i := range 4 {
			do(fmul2d, i, i, 8+i)
			do(fadd2d, 16+i, 16+i, i)
			do(fabs2d, i, i)
			do(fadd2d, 20+i, 20+i, i)
		}
		line("ADD $32, R0")
		line("ADD $32, R1")
	})
	sum2d(16)
	sum2d(20)
	line("FMOVD F16, s+24(FP)")
	line("FMOVD F20, m+32(FP)")
	line("RET")

	text("squaresWhole", "(x *float32, n int) float64", 24, "sum of float32(x[i]*x[i]) over i < n, n a multiple of 8, in float64, eight chains.")
	args("x", "n")
	zero(16, 17, 18, 19)
	loop8(1, func() {
		ldp(4, 5, 0, 0)
		do(fmul4s, 4, 4, 4)
		do(fmul4s, 5, 5, 5)
		widen8()
		for i := range 4 {
			do(fadd2d, 16+i, 16+i, 8+i)
		}
		line("ADD $32, R0")
	})
	sum2d(16)
	line("FMOVD F16, ret+16(FP)")
	line("RET")
}

// loop8 is the loop over n, in register n, by eights.
func loop8(n int, body func()) {
	label("loop")
	line("CMP $8, R%d", n)
	line("BLT done")
	body()
	line("SUB $8, R%d", n)
	line("B loop")
	label("done")
}

// widen8 is v4 and v5 as float64 in v8 to v11.
func widen8() {
	do(fcvtl2d, 8, 4)
	do(fcvtl22d, 9, 4)
	do(fcvtl2d, 10, 5)
	do(fcvtl22d, 11, 5)
}

// sum2d is the sum of four registers of float64 from v on, in v.
func sum2d(v int) {
	do(fadd2d, v, v, v+1)
	do(fadd2d, v+2, v+2, v+3)
	do(fadd2d, v, v, v+2)
	do(faddp2d, v, v)
}

// columns is the loop over n rows, in register n, of a strip of columns at register v, stride bytes apart.
func columns(n, v, stride int, body func()) {
	label("loop")
	line("CBZ R%d, done", n)
	body()
	line("ADD R%d, R%d", stride, v)
	line("SUB $1, R%d", n)
	line("B loop")
	label("done")
}

func columnsFast(strip int) {
	name := "columnsFast" + itoa(strip)
	text(name, "(out *float32, w *float32, v *float32, stride int, n int)", 40, "out[c] = sum of w[j] * v[j*stride+c] over j < n, for c < "+itoa(strip)+", one chain each.")
	args("out", "w", "v", "stride", "n")
	line("LSL $2, R3")
	regs := strip / 4
	for i := range regs {
		zero(16 + i)
	}
	columns(4, 2, 3, func() {
		ldrs(8, 1, 0)
		for i := 0; i < regs; i += 2 {
			ldp(i, i+1, 2, 16*i)
		}
		for i := range regs {
			fmlaLane(4, 16+i, i, 8, 0)
		}
		line("ADD $4, R1")
	})
	for i := range regs {
		strq(16+i, 0, 16*i)
	}
	line("RET")
}

func columnsExact() {
	text("columnsExact8", "(s *float64, m *float64, w *float32, v *float32, stride int, n int)", 48,
		"s[c] = sum of w[j] * v[j*stride+c] and m[c] = sum of its magnitudes over j < n, for c < 8, float64, one chain each.")
	args("s", "m", "w", "v", "stride", "n")
	line("LSL $2, R4")
	for v := 16; v < 24; v++ {
		zero(v)
	}
	columns(5, 3, 4, func() {
		ldrs(0, 2, 0)
		do(fcvtl2d, 0, 0)
		do(dup2d, 0, 0)
		ldp(4, 5, 3, 0)
		widen8()
		for i := range 4 {
			do(fmul2d, 8+i, 8+i, 0)
			do(fadd2d, 16+i, 16+i, 8+i)
			do(fabs2d, 8+i, 8+i)
			do(fadd2d, 20+i, 20+i, 8+i)
		}
		line("ADD $4, R2")
	})
	for i := range 4 {
		strq(16+i, 0, 16*i)
		strq(20+i, 1, 16*i)
	}
	line("RET")
}

func elementwise() {
	pair := func(name, doc string, o op) {
		text(name, "(dst *float32, x *float32, n int)", 24, doc)
		args("dst", "x", "n")
		loop8(2, func() {
			ldp(0, 1, 0, 0)
			ldp(2, 3, 1, 0)
			do(o, 0, 0, 2)
			do(o, 1, 1, 3)
			strq(0, 0, 0)
			strq(1, 0, 16)
			line("ADD $32, R0")
			line("ADD $32, R1")
		})
		line("RET")
	}
	pair("multiplyWhole", "dst[i] *= x[i] for i < n, n a multiple of 8.", fmul4s)
	pair("addWhole", "dst[i] += x[i] for i < n, n a multiple of 8.", fadd4s)

	text("scaleWhole", "(x *float32, r float32, n int)", 24, "x[i] *= r for i < n, n a multiple of 8.")
	line("MOVD x+0(FP), R0")
	line("FMOVS r+8(FP), F31")
	line("MOVD n+16(FP), R2")
	loop8(2, func() {
		ldp(0, 1, 0, 0)
		fmulLane(0, 0, 31)
		fmulLane(1, 1, 31)
		strq(0, 0, 0)
		strq(1, 0, 16)
		line("ADD $32, R0")
	})
	line("RET")

	text("gainWhole", "(dst *float32, x *float32, w *float32, r float32, n int)", 40, "dst[i] = float32(x[i]*r) * w[i] for i < n, n a multiple of 8.")
	args("dst", "x", "w")
	line("FMOVS r+24(FP), F31")
	line("MOVD n+32(FP), R3")
	loop8(3, func() {
		ldp(0, 1, 1, 0)
		ldp(2, 3, 2, 0)
		for i := range 2 {
			fmulLane(i, i, 31)
			do(fmul4s, i, i, 2+i)
			strq(i, 0, 16*i)
		}
		for r := range 3 {
			line("ADD $32, R%d", r)
		}
	})
	line("RET")

	text("turnWhole", "(a *float32, b *float32, cos *float32, sin *float32, n int)", 40,
		"a[i], b[i] = float32(a[i]*cos[i]) - float32(b[i]*sin[i]), float32(b[i]*cos[i]) + float32(a[i]*sin[i]) for i < n, n a multiple of 8.")
	args("a", "b", "cos", "sin", "n")
	loop8(4, func() {
		for r := range 4 {
			ldp(2*r, 2*r+1, r, 0)
		}
		for i := range 2 {
			do(fmul4s, 8, i, 4+i)
			do(fmul4s, 9, 2+i, 6+i)
			do(fmul4s, 10, 2+i, 4+i)
			do(fmul4s, 11, i, 6+i)
			do(fsub4s, 8, 8, 9)
			do(fadd4s, 10, 10, 11)
			strq(8, 0, 16*i)
			strq(10, 1, 16*i)
		}
		for r := range 4 {
			line("ADD $32, R%d", r)
		}
	})
	line("RET")

	text("convFastNEON", "(out *float32, w *float32, x *float32, stride int, n int)", 40, "out[c] = sum of w[j*stride+c] * x[j*stride+c] over j < 4, for c < n, n a multiple of 8.")
	args("out", "w", "x", "stride", "n")
	line("LSL $2, R3")
	loop8(4, func() {
		line("MOVD R1, R5")
		line("MOVD R2, R6")
		for j := range 4 {
			ldp(0, 1, 5, 0)
			ldp(2, 3, 6, 0)
			for i := range 2 {
				if j == 0 {
					do(fmul4s, 16+i, i, 2+i)
				} else {
					do(fmla4s, 16+i, i, 2+i)
				}
			}
			line("ADD R3, R5")
			line("ADD R3, R6")
		}
		strq(16, 0, 0)
		strq(17, 0, 16)
		for r := range 3 {
			line("ADD $32, R%d", r)
		}
	})
	line("RET")
}

func halves() {
	text("widenF16Whole", "(dst *float32, src *uint16, n int)", 24, "dst[i] = float32(src[i]) of binary16, for i < n, n a multiple of 8.")
	args("dst", "src", "n")
	loop8(2, func() {
		loadF16(1, 0)
		strq(4, 0, 0)
		strq(5, 0, 16)
		line("ADD $32, R0")
		line("ADD $16, R1")
	})
	line("RET")

	text("narrowF16Whole", "(dst *uint16, src *float32, n int)", 24, "dst[i] = src[i] rounded to binary16, for i < n, n a multiple of 8.")
	args("dst", "src", "n")
	loop8(2, func() {
		ldp(4, 5, 1, 0)
		do(fcvtn4h, 4, 4)
		do(fcvtn28h, 4, 5)
		strq(4, 0, 0)
		line("ADD $16, R0")
		line("ADD $32, R1")
	})
	line("RET")

	text("roundF16Whole", "(x *float32, n int)", 16, "x[i] = x[i] rounded to binary16, n a multiple of 8.")
	args("x", "n")
	loop8(1, func() {
		ldp(4, 5, 0, 0)
		roundF16()
		strq(4, 0, 0)
		strq(5, 0, 16)
		line("ADD $32, R0")
	})
	line("RET")
}

func largest() {
	text("maxNEON", "(x *float32, n int) float32", 20, "the largest of x[i], i < n, n a multiple of 8 and above 0; a NaN if there is one.")
	args("x", "n")
	ldrq(16, 0, 0)
	loop8(1, func() {
		ldp(0, 1, 0, 0)
		do(fmax4s, 0, 0, 1)
		do(fmax4s, 16, 16, 0)
		line("ADD $32, R0")
	})
	do(fmaxv4s, 16, 16)
	line("FMOVS F16, ret+16(FP)")
	line("RET")
}

// deltas are the two passes of a delta step over a strip of columns.
func deltas() {
	for _, strip := range []int{32, 8} {
		regs := strip / 4
		name := "deltaReadFast" + itoa(strip)
		text(name, "(mem *float32, S *float32, k *float32, decay float32, stride int, n int)", 48, "mem[c] = sum of decay*S[d*stride+c] * k[d] over d < n, for c < "+itoa(strip)+".")
		args("mem", "S", "k")
		line("FMOVS decay+24(FP), F31")
		line("MOVD stride+32(FP), R3")
		line("MOVD n+40(FP), R4")
		line("LSL $2, R3")
		for i := range regs {
			zero(16 + i)
		}
		columns(4, 1, 3, func() {
			ldrs(8, 2, 0)
			fmulLane(8, 8, 31)
			for i := 0; i < regs; i += 2 {
				ldp(i, i+1, 1, 16*i)
			}
			for i := range regs {
				fmlaLane(4, 16+i, i, 8, 0)
			}
			line("ADD $4, R2")
		})
		for i := range regs {
			strq(16+i, 0, 16*i)
		}
		line("RET")

		name = "deltaWriteFast" + itoa(strip)
		text(name, "(out *float32, S *float32, k *float32, q *float32, delta *float32, decay float32, stride int, n int)", 64,
			"S[d*stride+c] = decay*S[d*stride+c] + k[d]*delta[c]; out[c] = sum of S[d*stride+c] * q[d] over d < n, for c < "+itoa(strip)+".")
		args("out", "S", "k", "q", "delta")
		line("FMOVS decay+40(FP), F31")
		line("MOVD stride+48(FP), R5")
		line("MOVD n+56(FP), R6")
		line("LSL $2, R5")
		for i := range regs {
			zero(16 + i)
			ldrq(8+i, 4, 16*i)
		}
		columns(6, 1, 5, func() {
			ldrs(30, 2, 0)
			ldrs(29, 3, 0)
			for i := 0; i < regs; i += 2 {
				ldp(i, i+1, 1, 16*i)
			}
			for i := range regs {
				fmulLane(i, i, 31)
				fmlaLane(4, i, 8+i, 30, 0)
				fmlaLane(4, 16+i, i, 29, 0)
				strq(i, 1, 16*i)
			}
			line("ADD $4, R2")
			line("ADD $4, R3")
		})
		for i := range regs {
			strq(16+i, 0, 16*i)
		}
		line("RET")
	}

	text("deltaReadExact8", "(s *float64, m *float32, S *float32, k *float32, decay float32, stride int, n int)", 56,
		"s[c] = sum of float32(float32(S[d*stride+c]*decay)*k[d]) in float64 and m[c] = sum of its magnitudes in float32, over d < n, for c < 8.")
	args("s", "m", "S", "k")
	line("FMOVS decay+32(FP), F31")
	line("MOVD stride+40(FP), R4")
	line("MOVD n+48(FP), R5")
	line("LSL $2, R4")
	zero(16, 17, 18, 19, 20, 21)
	columns(5, 2, 4, func() {
		ldrs(30, 3, 0)
		ldp(4, 5, 2, 0)
		for v := 4; v < 6; v++ {
			fmulLane(v, v, 31)
		}
		deltaSums(30)
		line("ADD $4, R3")
	})
	deltaStore()

	text("deltaWriteExact8", "(s *float64, m *float32, S *float32, k *float32, q *float32, delta *float32, decay float32, stride int, n int)", 72,
		"with t = float32(S[d*stride+c]*decay): S[d*stride+c] = float32(t + float32(k[d]*delta[c])); s[c] = sum of float32(S[d*stride+c]*q[d]) "+
			"in float64 and m[c] = sum of its magnitudes in float32, over d < n, for c < 8.")
	args("s", "m", "S", "k", "q", "delta")
	line("FMOVS decay+48(FP), F31")
	ldp(24, 25, 5, 0)
	line("MOVD stride+56(FP), R6")
	line("MOVD n+64(FP), R5")
	line("LSL $2, R6")
	zero(16, 17, 18, 19, 20, 21)
	columns(5, 2, 6, func() {
		ldrs(30, 3, 0)
		ldrs(29, 4, 0)
		ldp(4, 5, 2, 0)
		for i := range 2 {
			fmulLane(4+i, 4+i, 31)
			fmulLane(6+i, 24+i, 30)
			do(fadd4s, 4+i, 4+i, 6+i)
			strq(4+i, 2, 16*i)
		}
		deltaSums(29)
		line("ADD $4, R3")
		line("ADD $4, R4")
	})
	deltaStore()
}

// deltaSums adds v4 and v5, times lane 0 of by.
func deltaSums(by int) {
	for i := range 2 {
		fmulLane(4+i, 4+i, by)
		do(fabs4s, 6+i, 4+i)
		do(fadd4s, 20+i, 20+i, 6+i)
	}
	widen8()
	for i := range 4 {
		do(fadd2d, 16+i, 16+i, 8+i)
	}
}

func deltaStore() {
	for i := range 4 {
		strq(16+i, 0, 16*i)
	}
	strq(20, 1, 0)
	strq(21, 1, 16)
	line("RET")
}
