package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The products of one token with quantized weights, for blocks whose scale keeps every weight within the grid it is rounded
// to (quick_amd64.go sees to it). Scales come widened, four bytes a block; what a table lookup needs comes beside.
//
// A weight is one of two things:
//
//	scaled   q * s: the block's sum of q*x is multiplied once
//	rounded  q * s on the grid of binary16 or bf16, which lies among the float32: adding a power of two so large that the
//	         grid is the unit in the last place of the sum rounds to it, ties to even; taking it off again is exact
//
// Four bits have sixteen weights a block. Those of binary16 are the same for every exponent of the scale, which
// multiplies the block's sum instead: a table has them by the scale's ten bits of mantissa.
type quick struct {
	name string
	bits int
	rows int
	zmm  bool
	what string
	regs func(k *quickWalk)          // constants
	x    func(k *quickWalk)          // the block's x, for all rows
	row  func(k *quickWalk, row int) // adds the block of a row to acc[row]
}

// quickWalk is where a kernel stands.
type quickWalk struct {
	*walk
	x, off, table, ss3 reg.GPVirtual
	acc                []reg.VecVirtual
	c, xs              []reg.VecVirtual
}

// of gives place r of an array of four bytes a block.
func (k *quickWalk) of(base reg.GPVirtual, r int) Mem {
	m := Mem{Base: base}
	switch r {
	case 1, 2:
		m.Index, m.Scale = k.ss, uint8(r)
	case 3:
		m.Index, m.Scale = k.ss3, 1
	}
	return m
}

func (q quick) emit() {
	TEXT(q.name, NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("%s: for r < %d: a.sum32[r] = sum over i < n of x[i] times %s, n a multiple of 32;", q.name, q.rows, q.what),
		"a.scale, a.min and a.off hold four bytes a block, rows sStride apart.")
	a := Load(Param("a"), GP64())
	k := &quickWalk{walk: newWalk(format{name: q.name, bits: q.bits, block: scaleF16}, a, q.rows), x: load64(a, argX)}
	ahead := load64(a, argAhead)
	if q.rows > 3 {
		k.ss3 = GP64()
		LEAQ(Mem{Base: k.ss, Index: k.ss, Scale: 2}, k.ss3)
	}
	vec := YMM
	if q.zmm {
		vec = ZMM
	}
	for range q.rows {
		y := vec()
		if q.zmm {
			VPXORD(y, y, y)
		} else {
			VXORPS(y, y, y)
		}
		k.acc = append(k.acc, y)
	}
	if q.regs != nil {
		q.regs(k)
	}
	if k.off != nil {
		MOVQ(Mem{Base: a, Disp: argOff}, k.off)
		MOVQ(Mem{Base: a, Disp: argTable}, k.table)
	}
	if k.m != nil {
		MOVQ(Mem{Base: a, Disp: argMin}, k.m)
	}
	Label("loop")
	CMPQ(k.n, U8(32))
	JL(LabelRef("done"))
	q.x(k)
	for r := range q.rows {
		k.prefetch(r, ahead, 32)
		q.row(k, r)
	}
	ADDQ(U32(128), k.x)
	ADDQ(U8(4*q.bits), k.w)
	for _, p := range []reg.GPVirtual{k.s, k.m, k.off} {
		if p != nil {
			ADDQ(U8(4), p)
		}
	}
	SUBQ(U8(32), k.n)
	JMP(LabelRef("loop"))
	Label("done")
	for r, y := range k.acc {
		if q.zmm {
			t := YMM()
			VEXTRACTF64X4(U8(1), y, t)
			VADDPS(t, y.AsY(), y.AsY())
		}
		h := XMM()
		VEXTRACTF128(U8(1), y.AsY(), h)
		VADDPS(h, y.AsX(), h)
		VHADDPS(h, h, h)
		VHADDPS(h, h, h)
		VMOVSS(h, Mem{Base: a, Disp: argSum32 + 4*r})
	}
	VZEROUPPER()
	RET()
}

func (k *quickWalk) constant(m Mem, zmm bool) {
	y := YMM()
	if zmm {
		y = ZMM()
	}
	VMOVUPS(m, y)
	k.c = append(k.c, y)
}

// direct loads a block of x as it lies.
func direct(zmm bool) func(k *quickWalk) {
	return func(k *quickWalk) {
		k.xs = nil
		n, bytes := 4, 32
		if zmm {
			n, bytes = 2, 64
		}
		for i := range n {
			y := YMM()
			if zmm {
				y = ZMM()
			}
			VMOVUPS(Mem{Base: k.x, Disp: bytes * i}, y)
			k.xs = append(k.xs, y)
		}
	}
}

// nothing: x is read where it is used.
func nothing(*quickWalk) {}

var (
	flipSign   = constants("flipSign", func(int) Constant { return U32(0x80808080) }, 8)
	upper15    = constants("upper15", func(int) Constant { return U32(0x47004700) }, 8)
	expBits    = constants("expBits", func(int) Constant { return U32(0xff800000) }, 16)
	two13      = constants("two13", func(int) Constant { return bits(0x1p-13) }, 8)
	two16      = constants("two16", func(int) Constant { return bits(0x1p16) }, 16)
	topNibble  = constants("topNibble", func(i int) Constant { return U32(28 - 4*uint32(i)) }, 8)
	evenColumn = constants("evenColumn", func(i int) Constant { return U32(2 * uint32(i)) }, 16)
	oddColumn  = constants("oddColumn", func(i int) Constant { return U32(2*uint32(i) + 1) }, 16)
	signedQ16  = constants("signedQ16", func(i int) Constant { return bits(float32(int8(i<<4) >> 4)) }, 16)
)

// scaleI8 is q*s.
func scaleI8(zmm bool) quick {
	q := quick{name: "quickScaleI8", bits: 8, rows: 4, zmm: zmm, what: "q[r, i] * scale[r, i/32], a sum in float32 for each block", x: direct(zmm)}
	vec, bytes := YMM, 8
	if zmm {
		q.name, vec, bytes = "quickScaleI8x16", ZMM, 16
	}
	q.row = func(k *quickWalk, r int) {
		var p reg.VecVirtual
		for i, x := range k.xs {
			y := vec()
			VPMOVSXBD(k.row(r).Offset(bytes*i), y)
			VCVTDQ2PS(y, y)
			if i == 0 {
				VMULPS(x, y, y)
				p = y
			} else {
				VFMADD231PS(x, y, p)
			}
		}
		k.scaled(p, r, zmm)
	}
	return q
}

// scaled adds p times the scale to the sum of row r.
func (k *quickWalk) scaled(p reg.VecVirtual, r int, zmm bool) {
	if zmm {
		VFMADD231PS_BCST(k.of(k.s, r), p, k.acc[r])
		return
	}
	s := YMM()
	VBROADCASTSS(k.of(k.s, r), s)
	VFMADD231PS(s, p, k.acc[r])
}

// roundI8 is R16(q*s). A byte with its sign flipped, put below the upper half of 2^15, is the float32 2^15+128+q; scale
// is 2^13 s and min -(2^15+128) 2^13 s, both exact, and so is 2^13 v, their fused product and sum. Its sign and exponent
// are what v must be added to for the grid of binary16: eleven bits of 24.
func roundI8() quick {
	q := quick{name: "quickRoundI8", bits: 8, rows: 2, what: "q[r, i] * s[r, i/32] rounded to binary16, scale = 2^13 s, min = -(2^15+128) 2^13 s", x: nothing}
	q.regs = func(k *quickWalk) {
		k.m = GP64()
		k.constant(upper15(), false)
		k.constant(expBits(), false)
		k.constant(two13(), false)
		zero := YMM()
		VPXOR(zero, zero, zero)
		k.c = append(k.c, zero)
	}
	q.row = func(k *quickWalk, r int) {
		upper, exponent, back, zero := k.c[0], k.c[1], k.c[2], k.c[3]
		s, low, w := YMM(), YMM(), YMM()
		VBROADCASTSS(k.of(k.s, r), s)
		VBROADCASTSS(k.of(k.m, r), low)
		VMOVDQU(k.row(r), w)
		VPXOR(flipSign(), w, w)
		for half := range 2 {
			h := YMM()
			if half == 0 {
				VPUNPCKLBW(w, zero, h)
			} else {
				VPUNPCKHBW(w, zero, h)
			}
			for part := range 2 {
				f, c := YMM(), YMM()
				if part == 0 {
					VPUNPCKLWD(upper, h, f)
				} else {
					VPUNPCKHWD(upper, h, f)
				}
				VFMADD213PS(low, s, f) // f = s*f + low
				VANDPS(exponent, f, c)
				VFMADD213PS(c, back, f) // f = f/2^13 + c
				VSUBPS(c, f, f)
				// bytes 8*half+4*part.. of each half of the register
				VFMADD231PS(Mem{Base: k.x, Disp: 32 * (2*half + part)}, f, k.acc[r])
			}
		}
	}
	return q
}

// scaleI4 is q*s by eight: a dword in every lane, each lane's nibble shifted to the top and back with its sign.
func scaleI4() quick {
	q := quick{name: "quickScaleI4", bits: 4, rows: 4, what: "q[r, i] * scale[r, i/32], a sum in float32 for each block", x: direct(false)}
	q.regs = func(k *quickWalk) { k.constant(topNibble(), false) }
	q.row = func(k *quickWalk, r int) {
		var p reg.VecVirtual
		for i, x := range k.xs {
			y := YMM()
			VPBROADCASTD(k.row(r).Offset(4*i), y)
			VPSLLVD(k.c[0], y, y)
			VPSRAD(U8(28), y, y)
			VCVTDQ2PS(y, y)
			if i == 0 {
				VMULPS(x, y, y)
				p = y
			} else {
				VFMADD231PS(x, y, p)
			}
		}
		k.scaled(p, r, false)
	}
	return q
}

// split loads a block of x as its even and its odd columns.
func split(k *quickWalk) {
	k.xs = nil
	for i := range 2 {
		y := ZMM()
		VMOVUPS(Mem{Base: k.x}, y)
		VPERMT2PS(Mem{Base: k.x, Disp: 64}, k.c[i], y)
		k.xs = append(k.xs, y)
	}
}

// nibbles is the sum of a block's x times what t holds for the low and the high nibbles of its sixteen bytes.
func (k *quickWalk) nibbles(t reg.VecVirtual, r int) reg.VecVirtual {
	i, lo, hi := ZMM(), ZMM(), ZMM()
	VPMOVZXBD(k.row(r), i)
	VPERMPS(t, i, lo) // by the low four bits
	VPSRLD(U8(4), i, i)
	VPERMPS(t, i, hi)
	VMULPS(k.xs[0], lo, lo)
	VFMADD231PS(k.xs[1], hi, lo)
	return lo
}

// lookup is the table's row for the block, n registers of it.
func (k *quickWalk) lookup(r, n int, zmm bool) []reg.VecVirtual {
	at := GP32()
	MOVL(k.of(k.off, r), at)
	var t []reg.VecVirtual
	for i := range n {
		y := YMM()
		if zmm {
			y = ZMM()
		}
		VMOVUPS(Mem{Base: k.table, Index: at.As64(), Scale: 1, Disp: 32 * i}, y)
		t = append(t, y)
	}
	return t
}

func (k *quickWalk) tables() { k.off, k.table = GP64(), GP64() }

func columns(k *quickWalk) {
	k.constant(evenColumn(), true)
	k.constant(oddColumn(), true)
}

// nibbleI4x16 is q*s (scaled) or R16(q*s), whose power of two is the scale.
func scaleI4x16() quick {
	return quick{name: "quickScaleI4x16", bits: 4, rows: 4, zmm: true, what: "q[r, i] * scale[r, i/32], a sum in float32 for each block", x: split,
		regs: func(k *quickWalk) { columns(k); k.constant(signedQ16(), true) },
		row:  func(k *quickWalk, r int) { k.scaled(k.nibbles(k.c[2], r), r, true) }}
}

func roundI4x16() quick {
	return quick{name: "quickRoundI4x16", bits: 4, rows: 4, zmm: true, what: "table[off[r, i/32]][q[r, i]] * scale[r, i/32]", x: split,
		regs: func(k *quickWalk) { k.tables(); columns(k) },
		row:  func(k *quickWalk, r int) { k.scaled(k.nibbles(k.lookup(r, 1, true)[0], r), r, true) }}
}

// roundU4x16 is B(B(q*s) + m), where the table has B(q*s) for the scale's mantissa; its power of two is scale.
func roundU4x16() quick {
	return quick{name: "quickRoundU4x16", bits: 4, rows: 4, zmm: true, what: "table[off[r, i/32]][q[r, i]] * scale[r, i/32] + min[r, i/32] rounded to bf16", x: split,
		regs: func(k *quickWalk) {
			k.m = GP64()
			k.tables()
			columns(k)
			k.constant(expBits(), true)
			k.constant(two16(), true)
		},
		row: func(k *quickWalk, r int) {
			t, low, c := k.lookup(r, 1, true)[0], ZMM(), ZMM()
			VBROADCASTSS(k.of(k.m, r), low)
			VFMADD132PS_BCST(k.of(k.s, r), low, t) // t = t*scale + low
			VPANDD(k.c[2], t, c)
			VFMADD231PS(k.c[3], c, t) // t + 2^16 c
			VFNMADD231PS(k.c[3], c, t)
			VADDPS(k.nibbles(t, r), k.acc[r], k.acc[r])
		}}
}

// tableNibbles is nibbles by eight: the halves of a table of sixteen.
func (k *quickWalk) tableNibbles(t []reg.VecVirtual, r int) reg.VecVirtual {
	var p reg.VecVirtual
	for i := range 4 {
		y := YMM()
		loadNibble(y, k.row(r).Offset(4*i), t)
		if i == 0 {
			VMULPS(Mem{Base: k.x}, y, y)
			p = y
		} else {
			VFMADD231PS(Mem{Base: k.x, Disp: 32 * i}, y, p)
		}
	}
	return p
}

func roundI4() quick {
	return quick{name: "quickRoundI4", bits: 4, rows: 2, what: "table[off[r, i/32]][q[r, i]] * scale[r, i/32]", x: nothing,
		regs: (*quickWalk).tables,
		row:  func(k *quickWalk, r int) { k.scaled(k.tableNibbles(k.lookup(r, 2, false), r), r, false) }}
}

func roundU4() quick {
	return quick{name: "quickRoundU4", bits: 4, rows: 2, what: "table[off[r, i/32]][q[r, i]] * scale[r, i/32] + min[r, i/32] rounded to bf16", x: nothing,
		regs: func(k *quickWalk) {
			k.m = GP64()
			k.tables()
			k.constant(expBits(), false)
			k.constant(two16(), false)
		},
		row: func(k *quickWalk, r int) {
			t, s, low := k.lookup(r, 2, false), YMM(), YMM()
			VBROADCASTSS(k.of(k.s, r), s)
			VBROADCASTSS(k.of(k.m, r), low)
			for _, y := range t {
				c := YMM()
				VFMADD213PS(low, s, y)
				VANDPS(k.c[0], y, c)
				VFMADD231PS(k.c[1], c, y)
				VFNMADD231PS(k.c[1], c, y)
			}
			VADDPS(k.tableNibbles(t, r), k.acc[r], k.acc[r])
		}}
}

// prepare emits the loops that widen scales: eight a round.
func prepares() {
	prep("widenScales", "dst[i] = f1*src[i], second[i] = f2*src[i], src binary16", func(h, y, z reg.VecVirtual, f []reg.VecVirtual) {
		VCVTPH2PS(h.AsX(), y)
		VMULPS(f[1], y, z)
		VMULPS(f[0], y, y)
	}, true)
	mantissa7 := constants("mantissa7", func(int) Constant { return U32(0x7f) }, 8)
	mantissa10 := constants("mantissa10", func(int) Constant { return U32(0x7fe000) }, 8)
	upper9 := constants("upper9", func(int) Constant { return U32(0xff80ff80) }, 4)
	prep("splitF16", "dst[i] = the sign and power of two of src[i], binary16, second[i] = 64 times its ten bits of mantissa, as an integer",
		func(h, y, z reg.VecVirtual, _ []reg.VecVirtual) {
			VCVTPH2PS(h.AsX(), y) // subnormal ones become normal
			VPAND(mantissa10(), y, z)
			VPSRLD(U8(13-6), z, z)
			VPAND(expBits(), y, y)
		}, false)
	prep("splitBF16", "dst[i] = the sign and power of two of src[i], bf16, second[i] = 64 times its seven bits of mantissa, as an integer",
		func(h, y, z reg.VecVirtual, _ []reg.VecVirtual) {
			VPMOVZXWD(h.AsX(), z)
			VPAND(mantissa7(), z, z)
			VPSLLD(U8(6), z, z)
			VPAND(upper9(), h.AsX(), h.AsX())
			VPMOVZXWD(h.AsX(), y)
			VPSLLD(U8(16), y, y)
		}, false)
	prep("widenBF16", "dst[i] = src[i], bf16", func(h, y, _ reg.VecVirtual, _ []reg.VecVirtual) {
		VPMOVZXWD(h.AsX(), y)
		VPSLLD(U8(16), y, y)
	}, false)
}

func prep(name, what string, f func(h, y, z reg.VecVirtual, k []reg.VecVirtual), factors bool) {
	sig := "func(dst, second *float32, src *byte, n int) (least, most uint32)"
	if factors {
		sig = "func(dst, second *float32, src *byte, n int, f1, f2 float32) (least, most uint32)"
	}
	TEXT(name, NOSPLIT, sig)
	describe(fmt.Sprintf("%s: %s, for i < n, n a multiple of 8 and not 0; the least and the largest bits of src without their sign.", name, what))
	dst, second, src, n := Load(Param("dst"), GP64()), Load(Param("second"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	var k []reg.VecVirtual
	if factors {
		for _, p := range []string{"f1", "f2"} {
			y := YMM()
			Load(Param(p), y.AsX())
			VBROADCASTSS(y.AsX(), y)
			k = append(k, y)
		}
	}
	least, most, magnitude := XMM(), XMM(), XMM()
	VPCMPEQD(least, least, least)
	VPXOR(most, most, most)
	VMOVDQU(magnitude16(), magnitude)
	Label("loop")
	h, y, z, t := YMM(), YMM(), YMM(), XMM()
	VMOVDQU(Mem{Base: src}, h.AsX())
	VPAND(magnitude, h.AsX(), t)
	VPMINUW(t, least, least)
	VPMAXUW(t, most, most)
	f(h, y, z, k)
	VMOVUPS(y, Mem{Base: dst})
	if name != "widenBF16" {
		VMOVUPS(z, Mem{Base: second})
	}
	ADDQ(U8(16), src)
	ADDQ(U8(32), dst)
	ADDQ(U8(32), second)
	SUBQ(U8(8), n)
	JG(LabelRef("loop"))
	for _, bytes := range []uint8{8, 4, 2} {
		VPSRLDQ(U8(bytes), least, t)
		VPMINUW(t, least, least)
		VPSRLDQ(U8(bytes), most, t)
		VPMAXUW(t, most, most)
	}
	for _, out := range []struct {
		name string
		x    reg.VecVirtual
	}{{"least", least}, {"most", most}} {
		g := GP32()
		VMOVD(out.x, g)
		ANDL(U32(0xffff), g)
		Store(g, Return(out.name))
	}
	VZEROUPPER()
	RET()
}
