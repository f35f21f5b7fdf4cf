package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// tile is one register tile of a matrix product.
//
//	y[r][c] += sum over k of w[r][k] * x[k][c]
//
// AVX2 has six weight rows by two registers of tokens: twelve accumulators, more than the latency of the multiply-add
// takes to hide, and three registers left for what they are fed with. AVX-512 has twelve by two of the 32 it has; by one
// for the last tokens of a batch.
type tile struct {
	name string
	size int               // bytes a number, 4 or 8
	rows int               // weight rows
	regs int               // registers of tokens
	zmm  bool              // of 64 bytes, else of 32
	move func(from, to Op) //
	all  func(from, to Op) // to every lane
	fma  func(a, b, to Op) //
	add  func(a, b, to Op) //
}

func (t tile) emit() {
	typ := map[int]string{4: "float32", 8: "float64"}[t.size]
	wide, vec := 32, YMM
	if t.zmm {
		wide, vec = 64, ZMM
	}
	column := wide * t.regs // bytes of x that one column of w meets
	tokens := column / t.size
	TEXT(t.name, NOSPLIT, "func(y *"+typ+", ldy int, w *"+typ+", ldw int, x *"+typ+", k int, ahead *byte)")
	describe(fmt.Sprintf("%s: y[r*ldy+c] += sum over i < k of w[r*ldw+i] * x[i*%d+c],", t.name, tokens),
		fmt.Sprintf("r < %d weight rows, c < %d tokens; k > 0. Each sum is one chain of k products, added to y at the end.", t.rows, tokens),
		"Meanwhile the k/4 lines from ahead on are asked for, which may be anywhere.")
	y, w, x := Load(Param("y"), GP64()), Load(Param("w"), GP64()), Load(Param("x"), GP64())
	ldy, ldw, k := Load(Param("ldy"), GP64()), Load(Param("ldw"), GP64()), Load(Param("k"), GP64())
	ahead := Load(Param("ahead"), GP64())
	shift := map[int]uint8{4: 2, 8: 3}[t.size]
	SHLQ(U8(shift), ldy)
	SHLQ(U8(shift), ldw)
	base := []reg.Register{w} // of every third row
	for range t.rows/3 - 1 {
		next := GP64()
		LEAQ(Mem{Base: base[len(base)-1], Index: ldw, Scale: 2}, next)
		ADDQ(ldw, next)
		base = append(base, next)
	}
	acc := make([]reg.VecVirtual, t.rows*t.regs)
	for i := range acc {
		acc[i] = vec()
		if t.zmm {
			VPXORQ(acc[i], acc[i], acc[i])
		} else {
			VXORPS(acc[i], acc[i], acc[i])
		}
	}
	step := func(i int) {
		b, xs := vec(), make([]reg.VecVirtual, t.regs)
		for h := range xs {
			xs[h] = vec()
			t.move(Mem{Base: x, Disp: column*i + wide*h}, xs[h])
		}
		for r := range t.rows {
			m := Mem{Base: base[r/3], Disp: t.size * i}
			if r%3 > 0 {
				m.Index, m.Scale = ldw, uint8(r%3)
			}
			t.all(m, b)
			for h := range xs {
				t.fma(b, xs[h], acc[t.regs*r+h])
			}
		}
	}
	forward := func(steps int) {
		for _, b := range base {
			ADDQ(U8(steps*t.size), b)
		}
		ADDQ(U32(steps*column), x)
	}
	Label("four")
	CMPQ(k, U8(4))
	JL(LabelRef("one"))
	PREFETCHT1(Mem{Base: ahead})
	ADDQ(U8(64), ahead)
	for i := range 4 {
		step(i)
	}
	forward(4)
	SUBQ(U8(4), k)
	JMP(LabelRef("four"))
	Label("one")
	CMPQ(k, U8(1))
	JL(LabelRef("done"))
	step(0)
	forward(1)
	DECQ(k)
	JMP(LabelRef("one"))
	Label("done")
	for r := range t.rows {
		for h := range t.regs {
			t.add(Mem{Base: y, Disp: wide * h}, acc[t.regs*r+h], acc[t.regs*r+h])
			t.move(acc[t.regs*r+h], Mem{Base: y, Disp: wide * h})
		}
		if r < t.rows-1 {
			ADDQ(ldy, y)
		}
	}
	VZEROUPPER()
	RET()
}

// transpose8 turns an 8 by 8 block of float32.
func transpose8() {
	TEXT("transpose8", NOSPLIT, "func(dst *float32, ldd int, src *float32, lds int)")
	describe("transpose8: dst[c*ldd+r] = src[r*lds+c] for r, c < 8.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	ldd, lds := Load(Param("ldd"), GP64()), Load(Param("lds"), GP64())
	SHLQ(U8(2), ldd)
	SHLQ(U8(2), lds)
	a, b := make([]reg.VecVirtual, 8), make([]reg.VecVirtual, 8)
	// Halves of two rows side by side, so that what follows stays within 128 bits: a[i] = row i | row i+4.
	for h := range 2 {
		for i := range 4 {
			if h == 0 {
				a[i], a[i+4] = YMM(), YMM()
				VMOVUPS(Mem{Base: src}, a[i].AsX())
				VMOVUPS(Mem{Base: src, Disp: 16}, a[i+4].AsX())
			} else {
				VINSERTF128(U8(1), Mem{Base: src}, a[i], a[i])
				VINSERTF128(U8(1), Mem{Base: src, Disp: 16}, a[i+4], a[i+4])
			}
			ADDQ(lds, src)
		}
	}
	for g := 0; g < 8; g += 4 { // columns g..g+3
		for i := range 4 {
			b[g+i] = YMM()
		}
		VUNPCKLPS(a[g+1], a[g], b[g])
		VUNPCKHPS(a[g+1], a[g], b[g+1])
		VUNPCKLPS(a[g+3], a[g+2], b[g+2])
		VUNPCKHPS(a[g+3], a[g+2], b[g+3])
		VUNPCKLPD(b[g+2], b[g], a[g])
		VUNPCKHPD(b[g+2], b[g], a[g+1])
		VUNPCKLPD(b[g+3], b[g+1], a[g+2])
		VUNPCKHPD(b[g+3], b[g+1], a[g+3])
	}
	for c := range 8 {
		VMOVUPS(a[c], Mem{Base: dst})
		if c < 7 {
			ADDQ(ldd, dst)
		}
	}
	VZEROUPPER()
	RET()
}

// transpose16 turns blocks of 16 by 16 float32: pairs of rows are interleaved by one and by two numbers within 128 bits, then
// the quarters are turned.
func transpose16() {
	TEXT("transpose16", NOSPLIT, "func(dst *float32, ldd int, src *float32, lds int, n int)")
	describe("transpose16: dst[c*ldd+r] = src[r*lds+c] for r < 16 and c < n, n a multiple of 16.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	ldd, lds, n := Load(Param("ldd"), GP64()), Load(Param("lds"), GP64()), Load(Param("n"), GP64())
	SHLQ(U8(2), ldd)
	SHLQ(U8(2), lds)
	Label("loop")
	CMPQ(n, U8(16))
	JL(LabelRef("done"))
	from := GP64()
	MOVQ(src, from)
	a, b := make([]reg.VecVirtual, 16), make([]reg.VecVirtual, 16)
	for r := range a {
		a[r] = ZMM()
		VMOVUPS(Mem{Base: from}, a[r])
		if r < 15 {
			ADDQ(lds, from)
		}
	}
	for r := 0; r < 16; r += 2 {
		b[r], b[r+1] = ZMM(), ZMM()
		VUNPCKLPS(a[r+1], a[r], b[r])
		VUNPCKHPS(a[r+1], a[r], b[r+1])
	}
	// a[4*g+c]: columns c, 4+c, 8+c, 12+c of rows 4*g .. 4*g+3
	for g := 0; g < 16; g += 4 {
		VUNPCKLPD(b[g+2], b[g], a[g])
		VUNPCKHPD(b[g+2], b[g], a[g+1])
		VUNPCKLPD(b[g+3], b[g+1], a[g+2])
		VUNPCKHPD(b[g+3], b[g+1], a[g+3])
	}
	for c := range 4 {
		VSHUFF32X4(U8(0x88), a[4+c], a[c], b[c])      // columns c, 8+c of rows 0..7
		VSHUFF32X4(U8(0xdd), a[4+c], a[c], b[4+c])    // 4+c, 12+c
		VSHUFF32X4(U8(0x88), a[12+c], a[8+c], b[8+c]) // of rows 8..15
		VSHUFF32X4(U8(0xdd), a[12+c], a[8+c], b[12+c])
	}
	for c := range 4 {
		VSHUFF32X4(U8(0x88), b[8+c], b[c], a[c])
		VSHUFF32X4(U8(0xdd), b[8+c], b[c], a[8+c])
		VSHUFF32X4(U8(0x88), b[12+c], b[4+c], a[4+c])
		VSHUFF32X4(U8(0xdd), b[12+c], b[4+c], a[12+c])
	}
	for c := range a {
		VMOVUPS(a[c], Mem{Base: dst})
		ADDQ(ldd, dst)
	}
	ADDQ(U8(64), src)
	SUBQ(U8(16), n)
	JMP(LabelRef("loop"))
	Label("done")
	VZEROUPPER()
	RET()
}

// widen turns float32 into float64 and sums their squares.
func widen(v width, name string) {
	TEXT(name, NOSPLIT, "func(dst *float64, src *float32, n int) float64")
	describe(fmt.Sprintf("%s: dst[i] = src[i] for i < n, n a multiple of %d; the result is the sum of src[i]*src[i] in %[2]d chains.", name, v.floats()))
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	sq := v.zeros(2)
	Label("loop")
	CMPQ(n, U8(v.floats()))
	JL(LabelRef("done"))
	for h := range sq {
		d := v.reg()
		VCVTPS2PD(Mem{Base: src, Disp: v.bytes / 2 * h}, d)
		VMOVUPD(d, Mem{Base: dst, Disp: v.bytes * h})
		VFMADD231PD(d, d, sq[h])
	}
	ADDQ(U8(v.bytes), src)
	ADDQ(U32(2*v.bytes), dst)
	SUBQ(U8(v.floats()), n)
	JMP(LabelRef("loop"))
	Label("done")
	VADDPD(sq[1], sq[0], sq[0])
	sum := sq[0]
	if v.bytes == 64 {
		half := YMM()
		VEXTRACTF64X4(U8(1), sum, half)
		VADDPD(half, sum.AsY(), half)
		sum = half
	}
	h := XMM()
	lanes64(sum, h)
	Store(h, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// round64 rounds sums with bounds on their errors.
func round64() {
	TEXT("round64", NOSPLIT, "func(dst *float32, s, xn *float64, u float64, n int) int")
	describe("round64: dst[i] = float32(s[i]), n a multiple of 4, up to the first group of four in which s[i]-xn[i]*u and",
		"s[i]+xn[i]*u round apart or s[i] is not finite; the result is the index of that group, n if there is none.")
	dst, s, xn := Load(Param("dst"), GP64()), Load(Param("s"), GP64()), Load(Param("xn"), GP64())
	n, u := Load(Param("n"), GP64()), YMM()
	uu, err := Param("u").Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSD(uu.Addr, u)
	i := GP64()
	XORQ(i, i)
	Label("loop")
	CMPQ(i, n)
	JGE(LabelRef("done"))
	v, b, lo, hi := YMM(), YMM(), YMM(), YMM()
	VMOVUPD(Mem{Base: s, Index: i, Scale: 8}, v)
	VMULPD(Mem{Base: xn, Index: i, Scale: 8}, u, b)
	VSUBPD(b, v, lo)
	VADDPD(b, v, hi)
	VCVTPD2PSY(lo, lo.AsX())
	VCVTPD2PSY(hi, hi.AsX())
	same := XMM()
	VPCMPEQD(hi.AsX(), lo.AsX(), same)          // bit by bit: -0 and 0 are two results
	VCMPPS(U8(0), hi.AsX(), lo.AsX(), lo.AsX()) // ordered: a NaN equals nothing
	VPAND(same, lo.AsX(), lo.AsX())
	m := GP32()
	VMOVMSKPS(lo.AsX(), m)
	CMPL(m, U8(15))
	JNE(LabelRef("done"))
	VCVTPD2PSY(v, v.AsX())
	VMOVUPS(v.AsX(), Mem{Base: dst, Index: i, Scale: 4})
	ADDQ(U8(4), i)
	JMP(LabelRef("loop"))
	Label("done")
	Store(i, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
