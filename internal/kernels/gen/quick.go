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
//	rounded  q * s on the grid of binary16 or bf16, which lies among the float32: adding a number so large that the grid is
//	         the unit in the last place of the sum rounds to it, ties to even; taking it off again is exact
//
// The number is 2^13 p for a product p = q*s, of 19 bits: the sum has the exponent of 2^13 p, or p rounds to a power of two,
// which both grids hold; and the number is an even one of its units. For a sum of full length it is a power of two.
//
// Four bits have sixteen weights a block. Those of binary16 are the same for every exponent of the scale, which
// multiplies the block's sum instead: a table has them by the scale's ten bits of mantissa.
type quick struct {
	name string
	bits int
	zmm  bool
	what string
	// wide sums are of float64, as x is.
	wide bool
	regs func(k *quickWalk) // constants
	row  func(k *quickWalk) // adds a block to acc
}

// quickWalk is where a kernel stands.
type quickWalk struct {
	*walk
	zmm           bool
	x, off, table reg.GPVirtual
	b             int               // the block of the round
	acc           [4]reg.VecVirtual // of which row uses the first most
	c             []reg.VecVirtual
}

// A round is four blocks, and what lies ahead of it is asked for, into the second-level cache: a page has a block or two as
// long as the memory takes to answer, and no prefetcher of the processor's crosses into the next one. (Asked for into the first-
// level cache, the same lines cost as much as they gain: its places for lines that are on their way are few.)
const (
	quickRound = 4
	quickAhead = 8192
)

func (k *quickWalk) vec() reg.VecVirtual {
	if k.zmm {
		return ZMM()
	}
	return YMM()
}

// emit writes a kernel that goes through rows one after the other (rowByRow); blocks and what belongs to them lie side by side,
// and so do rows.
func (q quick) emit() {
	TEXT(q.name, NOSPLIT, "func(a *byte)")
	floats, xBytes := "", 128
	if q.wide {
		floats, xBytes = " x and dst are float64, a sum eight chains or more.", 256
	}
	describe(fmt.Sprintf("%s: for r < rows: dst[r] = sum over i < n of x[i] times %s, n a multiple of 32 and not 0;", q.name, q.what),
		"rows without a gap; a.scale, a.min and a.off hold four bytes a block."+floats)
	a := Load(Param("a"), GP64())
	k := &quickWalk{walk: newWalk(format{name: q.name, bits: q.bits, block: scaleF16}, a, 1), zmm: q.zmm, x: GP64()}
	count, dst := load64(a, argRows), load64(a, argDst)
	for i := range k.acc {
		k.acc[i] = k.vec()
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
	Label("row")
	MOVQ(Mem{Base: a, Disp: argX}, k.x)
	MOVQ(Mem{Base: a, Disp: argN}, k.n)
	for _, y := range k.acc {
		if q.zmm {
			VPXORD(y, y, y)
		} else {
			VXORPS(y, y, y)
		}
	}
	SUBQ(U32(32*quickRound), k.n)
	JL(LabelRef("rest"))
	Label("loop")
	for at := 0; at < 4*q.bits*quickRound; at += 64 {
		PREFETCHT1(Mem{Base: k.w, Disp: quickAhead + at})
	}
	k.blocks(q, quickRound, xBytes)
	JGE(LabelRef("loop"))
	Label("rest")
	ADDQ(U8(32*(quickRound-1)), k.n)
	JL(LabelRef("done"))
	Label("one")
	k.blocks(q, 1, xBytes)
	JGE(LabelRef("one"))
	Label("done")
	y, t, h := k.acc[0], k.acc[0], XMM()
	add := func(a, b, to Op) { VADDPS(a, b, to) }
	if q.wide {
		add = func(a, b, to Op) { VADDPD(a, b, to) }
	}
	add(k.acc[1], y, y)
	add(k.acc[3], k.acc[2], k.acc[2])
	add(k.acc[2], y, y)
	if q.zmm {
		t = YMM()
		VEXTRACTF64X4(U8(1), y, t)
		add(t, y.AsY(), t)
	}
	if q.wide {
		lanes64(t, h)
		VMOVSD(h, Mem{Base: dst})
		ADDQ(U8(8), dst)
	} else {
		lanes32(t, h)
		VMOVSS(h, Mem{Base: dst})
		ADDQ(U8(4), dst)
	}
	DECQ(count)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// blocks emits so many blocks and the step to the next; the flags say whether there are as many. Every block begins with an
// accumulator of its own.
func (k *quickWalk) blocks(q quick, count, xBytes int) {
	acc := k.acc
	for k.b = range count {
		q.row(k)
		k.acc = [4]reg.VecVirtual{k.acc[1], k.acc[2], k.acc[3], k.acc[0]}
	}
	k.acc, k.b = acc, 0
	ADDQ(U32(xBytes*count), k.x)
	ADDQ(U32(4*q.bits*count), k.w)
	for _, p := range []reg.GPVirtual{k.s, k.m, k.off} {
		if p != nil {
			ADDQ(U8(4*count), p)
		}
	}
	SUBQ(U32(32*count), k.n)
}

// weights, tokens and ofBlock are the places of the block's weights from byte at on, of its x (in elements of size bytes), and
// of what p holds for it.
func (k *quickWalk) weights(at int) Mem          { return Mem{Base: k.w, Disp: 4*k.f.bits*k.b + at} }
func (k *quickWalk) tokens(i, size int) Mem      { return Mem{Base: k.x, Disp: size * (32*k.b + i)} }
func (k *quickWalk) ofBlock(p reg.GPVirtual) Mem { return Mem{Base: p, Disp: 4 * k.b} }

// parts are the registers that a block's weights fill: the number of each one's first weight and the place of its bytes.
func (k *quickWalk) parts(f func(i int, w Mem)) {
	lanes := 8
	if k.zmm {
		lanes = 16
	}
	for i := 0; i < 32; i += lanes {
		f(i, k.weights(i*k.f.bits/8))
	}
}

func (k *quickWalk) constant(m Mem) {
	y := k.vec()
	VMOVUPS(m, y)
	k.c = append(k.c, y)
}

// all is what p holds for the block, in every lane.
func (k *quickWalk) all(p reg.GPVirtual) reg.VecVirtual {
	y := k.vec()
	VBROADCASTSS(k.ofBlock(p), y)
	return y
}

var (
	expBits   = constants("expBits", func(int) Constant { return U32(0xff800000) }, 16)
	two13     = constants("two13", func(int) Constant { return bits(0x1p13) }, 1)
	two16     = constants("two16", func(int) Constant { return bits(0x1p16) }, 16)
	topNibble = constants("topNibble", func(i int) Constant { return U32(28 - 4*uint32(i)) }, 8)
)

// scaleI8 is q*s.
func scaleI8(zmm bool) quick {
	q := quick{name: "quickScaleI8", bits: 8, zmm: zmm, what: "q[r, i] * scale[r, i/32], a sum in float32 for each block"}
	if zmm {
		q.name = "quickScaleI8x16"
	}
	q.row = func(k *quickWalk) {
		var p reg.VecVirtual
		k.parts(func(i int, w Mem) {
			y := k.vec()
			VPMOVSXBD(w, y)
			VCVTDQ2PS(y, y)
			p = multiplied(p, y, k.tokens(i, 4))
		})
		k.scaled(p)
	}
	return q
}

// multiplied is y times x, added to p if there is one; y may be p.
func multiplied(p, y reg.VecVirtual, x Mem) reg.VecVirtual {
	if p == nil {
		VMULPS(x, y, y)
		return y
	}
	VFMADD231PS(x, y, p)
	return p
}

// scaled adds p times the scale to the sum.
func (k *quickWalk) scaled(p reg.VecVirtual) {
	if k.zmm {
		VFMADD231PS_BCST(k.ofBlock(k.s), p, k.acc[0])
		return
	}
	VFMADD231PS(k.all(k.s), p, k.acc[0])
}

// roundI8 is R16(q*s).
func roundI8(zmm bool) quick {
	q := quick{name: "quickRoundI8", bits: 8, zmm: zmm,
		what: "q[r, i] * s[r, i/32] rounded to binary16, scale = 2^13 s and min = (2^13+1) s",
		regs: func(k *quickWalk) { k.m = GP64() }}
	if zmm {
		q.name = "quickRoundI8x16"
	}
	q.row = func(k *quickWalk) {
		s := k.scales()
		k.parts(func(i int, w Mem) {
			VFMADD231PS(k.tokens(i, 4), k.roundedI8(s, w), k.acc[0])
			k.acc[0], k.acc[1] = k.acc[1], k.acc[0]
		})
	}
	return q
}

// exactI8 is R16(q*s), as roundI8 makes it, in products that float64 holds.
func exactI8(zmm bool) quick {
	q := roundI8(zmm)
	q.name, q.wide = "quickExactI8", true
	if zmm {
		q.name = "quickExactI8x16"
	}
	q.row = func(k *quickWalk) {
		s := k.scales()
		k.parts(func(i int, w Mem) {
			r := k.roundedI8(s, w)
			lo, hi, d := reg.Register(r.AsX()), reg.VecVirtual(XMM()), k.vec()
			if k.zmm {
				lo, hi = r.AsY(), YMM()
				VEXTRACTF64X4(U8(1), r, hi)
			} else {
				VEXTRACTF128(U8(1), r, hi)
			}
			VCVTPS2PD(lo, d)
			VFMADD231PD(k.tokens(i, 8), d, k.acc[0])
			e := k.vec()
			VCVTPS2PD(hi, e)
			VFMADD231PD(k.tokens(i+int(e.Size())/8, 8), e, k.acc[1])
		})
	}
	return q
}

// scales are the block's two for roundedI8, where they are wanted in registers.
func (k *quickWalk) scales() []reg.VecVirtual {
	if k.zmm {
		return nil
	}
	return []reg.VecVirtual{k.all(k.s), k.all(k.m)}
}

// roundedI8 is R16(q*s) of the bytes at w: with p = q*s, 2^13 p + p less 2^13 p. The first is rounded, the second
// exact, as is (2^13+1) s, since 2047 * 8193 < 2^24.
func (k *quickWalk) roundedI8(s []reg.VecVirtual, w Mem) reg.VecVirtual {
	y, r := k.vec(), k.vec()
	VPMOVSXBD(w, y)
	VCVTDQ2PS(y, y)
	if k.zmm {
		VMULPS_BCST(k.ofBlock(k.m), y, r)
		VFNMADD231PS_BCST(k.ofBlock(k.s), y, r)
		return r
	}
	VMULPS(s[1], y, r)
	VFNMADD231PS(s[0], y, r)
	return r
}

// scaleI4 is q*s by eight: a dword in every lane, each lane's nibble shifted to the top and back with its sign.
func scaleI4() quick {
	return quick{name: "quickScaleI4", bits: 4, what: "q[r, i] * scale[r, i/32], a sum in float32 for each block",
		regs: func(k *quickWalk) { k.constant(topNibble()) },
		row: func(k *quickWalk) {
			var p reg.VecVirtual
			k.parts(func(i int, w Mem) {
				y := YMM()
				VPBROADCASTD(w, y)
				VPSLLVD(k.c[0], y, y)
				VPSRAD(U8(28), y, y)
				VCVTDQ2PS(y, y)
				p = multiplied(p, y, k.tokens(i, 4))
			})
			k.scaled(p)
		}}
}

// nibbles is the sum of a block's x, the even columns before the odd ones, times what t holds for the low and the high nibbles
// of its sixteen bytes.
func (k *quickWalk) nibbles(t reg.VecVirtual) reg.VecVirtual {
	i, lo, hi := ZMM(), ZMM(), ZMM()
	VPMOVZXBD(k.weights(0), i)
	VPERMPS(t, i, lo) // by the low four bits
	VPSRLD(U8(4), i, i)
	VPERMPS(t, i, hi)
	VMULPS(k.tokens(0, 4), lo, lo)
	VFMADD231PS(k.tokens(16, 4), hi, lo)
	return lo
}

// lookup is the table's row for the block: sixteen weights.
func (k *quickWalk) lookup() []reg.VecVirtual {
	at := GP32()
	MOVL(k.ofBlock(k.off), at)
	var t []reg.VecVirtual
	for disp := 0; disp < 64; disp += int(k.vec().Size()) {
		y := k.vec()
		VMOVUPS(Mem{Base: k.table, Index: at.As64(), Scale: 1, Disp: disp}, y)
		t = append(t, y)
	}
	return t
}

func (k *quickWalk) tables() { k.off, k.table = GP64(), GP64() }

// tableNibbles is nibbles by eight, columns as they are: the halves of a table of sixteen.
func (k *quickWalk) tableNibbles(t []reg.VecVirtual) reg.VecVirtual {
	var p reg.VecVirtual
	k.parts(func(i int, w Mem) {
		y := YMM()
		loadNibble(y, w, t)
		p = multiplied(p, y, k.tokens(i, 4))
	})
	return p
}

// looked is the block's product with a table of its weights.
func (k *quickWalk) looked(t []reg.VecVirtual) reg.VecVirtual {
	if k.zmm {
		return k.nibbles(t[0])
	}
	return k.tableNibbles(t)
}

// roundI4 is R16(q*s), whose power of two is the scale.
func roundI4(zmm bool) quick {
	q := quick{name: "quickRoundI4", bits: 4, zmm: zmm, what: "table[off[r, i/32]][q[r, i]] * scale[r, i/32]",
		regs: (*quickWalk).tables,
		row:  func(k *quickWalk) { k.scaled(k.looked(k.lookup())) }}
	if zmm {
		q.name = "quickRoundI4x16"
	}
	return q
}

// roundU4 is B(B(q*s) + m), where the table has B(q*s) for the scale's mantissa; its power of two is scale.
func roundU4(zmm bool) quick {
	q := quick{name: "quickRoundU4", bits: 4, zmm: zmm, what: "table[off[r, i/32]][q[r, i]] * scale[r, i/32] + min[r, i/32] rounded to bf16",
		regs: func(k *quickWalk) {
			k.m = GP64()
			k.tables()
			k.constant(two16())
			k.constant(expBits())
		},
		row: func(k *quickWalk) {
			t, s, low := k.lookup(), k.all(k.s), k.all(k.m)
			for _, y := range t {
				c := k.vec()
				VFMADD213PS(low, s, y)
				if k.zmm {
					VPANDD(k.c[1], y, c)
				} else {
					VANDPS(k.c[1], y, c)
				}
				VFMADD231PS(k.c[0], c, y)
				VFNMADD231PS(k.c[0], c, y)
			}
			VADDPS(k.looked(t), k.acc[0], k.acc[0])
		}}
	if zmm {
		q.name = "quickRoundU4x16"
	}
	return q
}

// prepare emits the loops that widen scales: eight a round.
func prepares() {
	prep("widenScales", "dst[i] = src[i], binary16", func(h, y, _, _ reg.VecVirtual) { VCVTPH2PS(h.AsX(), y) })
	prep("roundScales", "dst[i] = 2^13 src[i] and second[i] = (2^13+1) src[i], src binary16", func(h, y, z, f reg.VecVirtual) {
		VCVTPH2PS(h.AsX(), z)
		VMULPS(f, z, y)
		VADDPS(y, z, z)
	})
	mantissa7 := constants("mantissa7", func(int) Constant { return U32(0x7f) }, 8)
	mantissa10 := constants("mantissa10", func(int) Constant { return U32(0x7fe000) }, 8)
	upper9 := constants("upper9", func(int) Constant { return U32(0xff80ff80) }, 4)
	prep("splitF16", "dst[i] = the sign and power of two of src[i], binary16, second[i] = 64 times its ten bits of mantissa, as an integer",
		func(h, y, z, _ reg.VecVirtual) {
			VCVTPH2PS(h.AsX(), y) // subnormal ones become normal
			VPAND(mantissa10(), y, z)
			VPSRLD(U8(13-6), z, z)
			VPAND(expBits(), y, y)
		})
	prep("splitBF16", "dst[i] = the sign and power of two of src[i], bf16, second[i] = 64 times its seven bits of mantissa, as an integer",
		func(h, y, z, _ reg.VecVirtual) {
			VPMOVZXWD(h.AsX(), z)
			VPAND(mantissa7(), z, z)
			VPSLLD(U8(6), z, z)
			VPAND(upper9(), h.AsX(), h.AsX())
			VPMOVZXWD(h.AsX(), y)
			VPSLLD(U8(16), y, y)
		})
	prep("widenBF16", "dst[i] = src[i], bf16", func(h, y, _, _ reg.VecVirtual) {
		VPMOVZXWD(h.AsX(), y)
		VPSLLD(U8(16), y, y)
	})
}

// prep emits one: f makes dst of src in y, and second in z if there is such.
func prep(name, what string, f func(h, y, z, factor reg.VecVirtual)) {
	sig, two, factor := "func(dst, second *float32, src *byte, n int) (least, most uint32)", true, YMM()
	if name == "widenScales" || name == "widenBF16" {
		sig, two = "func(dst *float32, src *byte, n int) (least, most uint32)", false
	}
	TEXT(name, NOSPLIT, sig)
	describe(fmt.Sprintf("%s: %s, for i < n, n a multiple of 8 and not 0; the least and the largest bits of src without their sign.", name, what))
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	var second reg.Register
	if two {
		second = Load(Param("second"), GP64())
	}
	if name == "roundScales" {
		VBROADCASTSS(two13(), factor)
	}
	least, most, magnitude := XMM(), XMM(), XMM()
	VPCMPEQD(least, least, least)
	VPXOR(most, most, most)
	VMOVDQU(magnitude16(), magnitude)
	Label("loop")
	h, y, z, t := YMM(), YMM(), YMM(), XMM()
	PREFETCHT1(Mem{Base: src, Disp: 2 * 1024})
	VMOVDQU(Mem{Base: src}, h.AsX())
	VPAND(magnitude, h.AsX(), t)
	VPMINUW(t, least, least)
	VPMAXUW(t, most, most)
	f(h, y, z, factor)
	VMOVUPS(y, Mem{Base: dst})
	ADDQ(U8(16), src)
	ADDQ(U8(32), dst)
	if two {
		VMOVUPS(z, Mem{Base: second})
		ADDQ(U8(32), second)
	}
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
