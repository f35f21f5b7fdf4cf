package main

import "fmt"

// tile is 6 weight rows by 64 bytes of tokens: 24 accumulators from v0 on, the rows' next columns in v24 to v29, tokens in v30
// and v31. size is 4 or 8 bytes a number.
func tile(size int) {
	lanes, per := 64/size, 16/size // tokens; numbers in a register
	typ, name, shift := "float32", "tile32", 2
	add := fadd4s
	if size == 8 {
		typ, name, shift, add = "float64", "tile64", 3, fadd2d
	}
	text(name, fmt.Sprintf("(y *%s, ldy int, w *%s, ldw int, x *%s, k int)", typ, typ, typ), 48,
		fmt.Sprintf("y[r*ldy+c] += sum over i < k of w[r*ldw+i] * x[i*%d+c], r < 6 weight rows, c < %d tokens; k > 0. Each sum is one chain of k products, added to y at the end.", lanes, lanes))
	args("y", "ldy", "w", "ldw", "x", "k")
	line("LSL $%d, R1", shift)
	line("LSL $%d, R3", shift)
	for r := 1; r < 6; r++ { // rows at R2 and R6 to R10
		from := 2
		if r > 1 {
			from = 4 + r
		}
		line("ADD R3, R%d, R%d", from, 5+r)
	}
	row := func(r int) int {
		if r == 0 {
			return 2
		}
		return 5 + r
	}
	for v := range 24 {
		zero(v)
	}
	column := func(at, lane int) {
		for h := 0; h < 4; h += 2 {
			ldp(30, 31, 4, at+16*h)
			for r := range 6 {
				fmlaLane(size, 4*r+h, 30, 24+r, lane)
				fmlaLane(size, 4*r+h+1, 31, 24+r, lane)
			}
		}
	}
	label("some")
	line("CMP $%d, R5", per)
	line("BLT one")
	for r := range 6 {
		ldrq(24+r, row(r), 0)
		line("ADD $16, R%d", row(r))
	}
	for i := range per {
		column(64*i, i)
	}
	line("ADD $%d, R4", 64*per)
	line("SUB $%d, R5", per)
	line("B some")
	label("one")
	line("CBZ R5, done")
	for r := range 6 {
		if size == 4 {
			ldrs(24+r, row(r), 0)
		} else {
			ldrd(24+r, row(r), 0)
		}
		line("ADD $%d, R%d", size, row(r))
	}
	column(0, 0)
	line("ADD $64, R4")
	line("SUB $1, R5")
	line("B one")
	label("done")
	for r := range 6 {
		for h := range 4 {
			ldrq(24, 0, 16*h)
			do(add, 4*r+h, 4*r+h, 24)
			strq(4*r+h, 0, 16*h)
		}
		line("ADD R1, R0")
	}
	line("RET")
}
