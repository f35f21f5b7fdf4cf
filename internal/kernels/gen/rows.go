package main

import (
	"fmt"
	"strings"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The places in rowsArgs (rows_simd.go; a test compares them).
const (
	argW, argScale, argMin, argX      = 0, 8, 16, 24
	argWStride, argSStride, argN      = 32, 40, 48
	argSum32, argSum64, argSq, argDst = 56, 72, 104, 120
	argMost, argAhead                 = 128, 136
	argOff, argTable                  = 144, 152
)

func load64(a reg.Register, disp int) reg.GPVirtual {
	r := GP64()
	MOVQ(Mem{Base: a, Disp: disp}, r)
	return r
}

// walk is where a kernel stands in its rows: w, scale and min of the first row, and the steps to the others.
type walk struct {
	f          format
	w, s, m, n reg.GPVirtual
	ws, ws3    reg.GPVirtual
	ss         reg.GPVirtual
}

func newWalk(f format, args reg.Register, rows int) *walk {
	k := &walk{f: f, w: load64(args, argW), n: load64(args, argN)}
	if f.block != nil {
		k.s = load64(args, argScale)
	}
	if f.name == "U4" {
		k.m = load64(args, argMin)
	}
	if rows > 1 {
		k.ws = load64(args, argWStride)
		if f.block != nil {
			k.ss = load64(args, argSStride)
		}
	}
	if rows > 3 {
		k.ws3 = GP64()
		LEAQ(Mem{Base: k.ws, Index: k.ws, Scale: 2}, k.ws3)
	}
	return k
}

// row is the current round of row r.
func (k *walk) row(r int) Mem {
	m := Mem{Base: k.w}
	switch r {
	case 1, 2:
		m.Index, m.Scale = k.ws, uint8(r)
	case 3:
		m.Index, m.Scale = k.ws3, 1
	}
	return m
}

// block prepares the current block of row r.
func (k *walk) block(r int) []reg.VecVirtual {
	if k.f.block == nil {
		return nil
	}
	s := Mem{Base: k.s}
	var m Mem
	if k.m != nil {
		m = Mem{Base: k.m}
	}
	if r > 0 {
		s.Index, s.Scale = k.ss, uint8(r)
		m.Index, m.Scale = k.ss, uint8(r)
	}
	return k.f.block(s, m)
}

// prefetch asks for what lies ahead of the current round of row r, a line of 64 bytes at a time.
func (k *walk) prefetch(r int, ahead reg.Register, step int) {
	m := k.row(r)
	if m.Index == nil {
		m.Index, m.Scale = ahead, 1
	} else {
		p := GP64()
		LEAQ(m, p)
		m = Mem{Base: p, Index: ahead, Scale: 1}
	}
	for at := 0; at < max(64, step*k.f.bits/8); at += 64 {
		PREFETCHT0(m.Offset(at))
	}
}

// next moves on by a round of step elements.
func (k *walk) next(step int) {
	ADDQ(U32(step*k.f.bits/8), k.w)
	if k.f.block != nil {
		ADDQ(U8(2), k.s)
	}
	if k.m != nil {
		ADDQ(U8(2), k.m)
	}
	SUBQ(U8(step), k.n)
}

// accumulators are n registers of zero.
func accumulators(n int) []reg.VecVirtual {
	a := make([]reg.VecVirtual, n)
	for i := range a {
		a[i] = YMM()
		VXORPS(a[i], a[i], a[i])
	}
	return a
}

// describe is the comment of the function that was just begun, in the stub and in the assembly.
func describe(lines ...string) {
	Pragma("noescape")
	Doc(lines...)
	Comment(strings.Join(lines, " "))
}

// rowsFast is sum32[r] = sum_i w[r, i] * x[i] in float32: every lane of every accumulator is a chain of its own.
func rowsFast(f format) {
	TEXT("rowsFast"+f.name, NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("rowsFast%s: for r < %d: a.sum32[r] = sum of w[r*wStride:][i] * x[i] over i < n, n a multiple of %d, x float32.", f.name, f.rows, f.step))
	a := Load(Param("a"), GP64())
	k := newWalk(f, a, f.rows)
	x, ahead := load64(a, argX), load64(a, argAhead)
	per := 8 / f.rows // accumulators a row: eight chains hide the latency of the multiply-add
	acc := accumulators(8)
	Label("loop")
	CMPQ(k.n, U8(f.step))
	JL(LabelRef("done"))
	var xs []reg.VecVirtual
	if f.rows > 2 { // x in registers serves all rows
		for i := range f.step / 8 {
			xs = append(xs, YMM())
			VMOVUPS(Mem{Base: x, Disp: 32 * i}, xs[i])
		}
	}
	for r := range f.rows {
		k.prefetch(r, ahead, f.step)
		blk := k.block(r)
		for i := range f.step / 8 {
			sum := acc[r*per+i%per]
			if f.name == "F32" {
				VFMADD231PS(f.at(k.row(r), i), xs[i], sum)
				continue
			}
			y := YMM()
			f.load(y, f.at(k.row(r), i), blk)
			if xs != nil {
				VFMADD231PS(xs[i], y, sum)
			} else {
				VFMADD231PS(Mem{Base: x, Disp: 32 * i}, y, sum)
			}
		}
	}
	ADDQ(U32(4*f.step), x)
	k.next(f.step)
	JMP(LabelRef("loop"))
	Label("done")
	for r := range f.rows {
		sum := acc[r*per : (r+1)*per]
		for n := per / 2; n > 0; n /= 2 {
			for i := range n {
				VADDPS(sum[i+n], sum[i], sum[i])
			}
		}
		h := XMM()
		lanes32(sum[0], h)
		VMOVSS(h, Mem{Base: a, Disp: argSum32 + 4*r})
	}
	VZEROUPPER()
	RET()
}

// lanes32 is the sum of the eight lanes of y, in h.
func lanes32(y, h reg.VecVirtual) {
	VEXTRACTF128(U8(1), y, h)
	VADDPS(h, y.AsX(), h)
	VHADDPS(h, h, h)
	VHADDPS(h, h, h)
}

// lanes64 is the sum of the four lanes of y, in h.
func lanes64(y, h reg.VecVirtual) {
	VEXTRACTF128(U8(1), y, h)
	VADDPD(h, y.AsX(), h)
	VHADDPD(h, h, h)
}

// rowsExact is sum64[r] = sum_i w[r, i] * x[i] in float64, where each product is exact, and sq[r], the sum of w*w
// in float32, which bounds the error of the other.
func rowsExact(f format) {
	step := f.step
	if f.block == nil {
		step = 8
	}
	TEXT("rowsExact"+f.name, NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("rowsExact%s: for r < %d: a.sum64[r] = sum of w[r*wStride:][i] * x[i] and a.sq[r] = sum of w*w over i < n,", f.name, f.rows),
		fmt.Sprintf("n a multiple of %d, x float64. Each sum64 is eight chains of n/8 products.", step))
	a := Load(Param("a"), GP64())
	k := newWalk(f, a, f.rows)
	x := load64(a, argX)
	acc, sq := accumulators(2*f.rows), accumulators(f.rows)
	Label("loop")
	CMPQ(k.n, U8(step))
	JL(LabelRef("done"))
	var xs []reg.VecVirtual
	if f.rows > 2 {
		xs = []reg.VecVirtual{YMM(), YMM()}
		VMOVUPD(Mem{Base: x}, xs[0])
		VMOVUPD(Mem{Base: x, Disp: 32}, xs[1])
	}
	for r := range f.rows {
		blk := k.block(r)
		for i := range step / 8 {
			y, d := YMM(), YMM()
			f.load(y, f.at(k.row(r), i), blk)
			VFMADD231PS(y, y, sq[r])
			VCVTPS2PD(y.AsX(), d)
			product(d, xs, x, 64*i, 0, acc[2*r])
			VEXTRACTF128(U8(1), y, y.AsX())
			VCVTPS2PD(y.AsX(), d)
			product(d, xs, x, 64*i, 1, acc[2*r+1])
		}
	}
	ADDQ(U32(8*step), x)
	k.next(step)
	JMP(LabelRef("loop"))
	Label("done")
	for r := range f.rows {
		VADDPD(acc[2*r+1], acc[2*r], acc[2*r])
		h := XMM()
		lanes64(acc[2*r], h)
		VMOVSD(h, Mem{Base: a, Disp: argSum64 + 8*r})
		lanes32(sq[r], h)
		VMOVSS(h, Mem{Base: a, Disp: argSq + 4*r})
	}
	VZEROUPPER()
	RET()
}

// product is acc += d * x, where x is half h of the eight at disp.
func product(d reg.VecVirtual, xs []reg.VecVirtual, x reg.Register, disp, h int, acc reg.VecVirtual) {
	if xs != nil {
		VFMADD231PD(xs[h], d, acc)
		return
	}
	VFMADD231PD(Mem{Base: x, Disp: disp + 32*h}, d, acc)
}

// unpack writes n weights of one row as float32.
func unpack(f format) {
	TEXT("unpack"+f.name, NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("unpack%s: a.dst[i] = w[i] for i < n, n a multiple of %d; the line a.ahead bytes on is asked for.", f.name, f.step))
	a := Load(Param("a"), GP64())
	k := newWalk(f, a, 1)
	dst, ahead := load64(a, argDst), load64(a, argAhead)
	Label("loop")
	CMPQ(k.n, U8(f.step))
	JL(LabelRef("done"))
	k.prefetch(0, ahead, f.step)
	blk := k.block(0)
	for i := range f.step / 8 {
		y := YMM()
		f.load(y, f.at(k.row(0), i), blk)
		VMOVUPS(y, Mem{Base: dst, Disp: 32 * i})
	}
	ADDQ(U32(4*f.step), dst)
	k.next(f.step)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}
