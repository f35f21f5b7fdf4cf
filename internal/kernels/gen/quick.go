package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
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
	regs func(k *quickWalk)          // constants
	row  func(k *quickWalk) []func() // adds a block to acc, step by step
	// round adds four blocks, where they are not four times row: then x comes in another order.
	round func(k *quickWalk) []func()
}

// quickWalk is where a kernel stands.
type quickWalk struct {
	*walk
	zmm           bool
	x, off, table reg.GPVirtual
	b             int // the block of the round
	acc           [4]reg.VecVirtual
	c             []reg.VecVirtual
}

// A round is four blocks, and what lies ahead of it is asked for, into the second-level cache: a page has a block or two as
// long as the memory takes to answer, and no prefetcher of the processor's crosses into the next one. (Asked for into the first-
// level cache, the same lines cost as much as they gain: its places for lines that are on their way are few.)
const (
	quickRound  = 4
	quickAhead  = 16384 // on a Zen 5 int8 under hf-fp32 reads 11 % faster than with 8192, other forms as fast
	scalesAhead = 2048  // those of as many weights
)

// loop is the label of a loop that begins a line of the instruction cache, wherever the linker puts its kernel: the exact loop of bf16 pairs
// took 15 % more samples of a Zen 5 at one place in a line than at another, the loop of four int4 blocks 3 %.
func loop(name string) {
	Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []Op{Imm(64)}})
	Label(name)
}

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
		floats, xBytes = " x, 2^896 times as large and in its order (exactOrder), and dst are float64, a sum eight chains or more.", 256
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
	loop("loop")
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

// blocks emits so many blocks and the step to the next; the flags say whether there are as many. Blocks go side by side, each
// step of all of them before the next, so that few instructions wait for others; one at a time where registers are sixteen, two where
// there are the most steps.
func (k *quickWalk) blocks(q quick, count, xBytes int) {
	beside := 1
	switch {
	case q.zmm && q.wide:
		beside = 2
	case q.zmm:
		beside = 4
	}
	if q.round != nil && count == quickRound {
		for _, step := range q.round(k) {
			step()
		}
	} else {
		for b := 0; b < count; b += beside {
			var steps [][]func()
			for k.b = b; k.b < min(b+beside, count); k.b++ {
				steps = append(steps, q.row(k))
			}
			for i := range steps[0] {
				for j := range steps {
					k.b = b + j
					steps[j][i]()
				}
			}
		}
	}
	k.b = 0
	ADDQ(U32(xBytes*count), k.x)
	ADDQ(U32(4*q.bits*count), k.w)
	for _, p := range []reg.GPVirtual{k.s, k.m, k.off} {
		if p != nil {
			ADDQ(U8(4*count), p)
		}
	}
	SUBQ(U32(32*count), k.n)
}

// sum is an accumulator: every block begins with one of its own.
func (k *quickWalk) sum(i int) reg.VecVirtual { return k.acc[(k.b+i)%len(k.acc)] }

// weights, tokens and ofBlock are the places of the block's weights from byte at on, of its x (in elements of size bytes), and
// of what p holds for it.
func (k *quickWalk) weights(at int) Mem          { return Mem{Base: k.w, Disp: 4*k.f.bits*k.b + at} }
func (k *quickWalk) tokens(i, size int) Mem      { return Mem{Base: k.x, Disp: size * (32*k.b + i)} }
func (k *quickWalk) ofBlock(p reg.GPVirtual) Mem { return Mem{Base: p, Disp: 4 * k.b} }

// parts are the registers that a block's weights fill: f gets the number of each one's first weight.
func (k *quickWalk) parts(f func(part, i int)) {
	lanes := 8
	if k.zmm {
		lanes = 16
	}
	for i := 0; i < 32; i += lanes {
		f(i/lanes, i)
	}
}

// vecs are registers for parts.
func (k *quickWalk) vecs() []reg.VecVirtual {
	var y []reg.VecVirtual
	k.parts(func(int, int) { y = append(y, k.vec()) })
	return y
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
	expBits     = constants("expBits", func(int) Constant { return U32(0xff800000) }, 16)
	two13       = constants("two13", func(int) Constant { return bits(0x1p13) }, 1)
	two16       = constants("two16", func(int) Constant { return bits(0x1p16) }, 16)
	upperDouble = constants("upperDouble", func(i int) Constant { return U32(uint32(i%2) * 0x8fffffff) }, 16)
	quarters    = constants("quarters", func(i int) Constant { return U32(uint32(i / 4)) }, 16)
	topNibble   = constants("topNibble", func(i int) Constant { return U32(28 - 4*uint32(i)) }, 8)
)

// scaleI8 is q*s.
func scaleI8(zmm bool) quick {
	q := quick{name: "quickScaleI8", bits: 8, zmm: zmm, what: "q[r, i] * scale[r, i/32], a sum in float32 for each block"}
	if zmm {
		q.name = "quickScaleI8x16"
	}
	q.row = func(k *quickWalk) []func() {
		y := k.vecs()
		return append(k.bytes(y), func() { k.multiply(y) }, func() { k.scaled(y[0]) })
	}
	return q
}

// bytes makes y of the block's q.
func (k *quickWalk) bytes(y []reg.VecVirtual) []func() {
	return []func(){
		func() { k.parts(func(p, i int) { VPMOVSXBD(k.weights(i), y[p]) }) },
		func() { k.parts(func(p, _ int) { VCVTDQ2PS(y[p], y[p]) }) },
	}
}

// multiply makes the first of y the sum of all times x.
func (k *quickWalk) multiply(y []reg.VecVirtual) {
	k.parts(func(p, i int) {
		if p == 0 {
			VMULPS(k.tokens(i, 4), y[0], y[0])
		} else {
			VFMADD231PS(k.tokens(i, 4), y[p], y[0])
		}
	})
}

// scaled adds p times the scale to the sum.
func (k *quickWalk) scaled(p reg.VecVirtual) {
	if k.zmm {
		VFMADD231PS_BCST(k.ofBlock(k.s), p, k.sum(0))
		return
	}
	VFMADD231PS(k.all(k.s), p, k.sum(0))
}

// roundI8 is R16(q*s).
func roundI8(zmm bool) quick {
	q := quick{name: "quickRoundI8", bits: 8, zmm: zmm,
		what: "q[r, i] * s[r, i/32] rounded to binary16, scale = 2^13 s and min = (2^13+1) s",
		regs: func(k *quickWalk) { k.m = GP64() }}
	if zmm {
		q.name = "quickRoundI8x16"
	}
	q.row = func(k *quickWalk) []func() {
		y, r := k.vecs(), k.vecs()
		return append(k.rounded(y, r), func() {
			k.parts(func(p, i int) { VFMADD231PS(k.tokens(i, 4), r[p], k.sum(p)) })
		})
	}
	return q
}

// exactI8 is R16(q*s), as roundI8 makes it, in products that float64 holds. The bits of a float32, three places on, are those of
// the upper half of a float64 that is 2^896 times smaller, without the three lowest, which a binary16 has not: x comes as so many
// times larger. Of a register's weights the even ones come before the odd ones.
func exactI8(zmm bool) quick {
	q := roundI8(zmm)
	q.name, q.wide = "quickExactI8", true
	if zmm {
		q.name = "quickExactI8x16"
	}
	regs := q.regs
	q.regs = func(k *quickWalk) {
		regs(k)
		k.constant(upperDouble())
	}
	q.row = func(k *quickWalk) []func() {
		even, odd := k.vecs(), k.vecs()
		and := func(y reg.VecVirtual) {
			if k.zmm {
				VPANDD(k.c[0], y, y)
			} else {
				VPAND(k.c[0], y, y)
			}
		}
		return append(k.rounded(even, odd),
			func() { k.parts(func(p, _ int) { VPSRAD(U8(3), odd[p], odd[p]) }) },
			func() { k.parts(func(p, _ int) { VPSLLQ(U8(32), odd[p], even[p]) }) },
			func() { k.parts(func(p, _ int) { and(odd[p]) }) },
			func() { k.parts(func(p, _ int) { and(even[p]) }) },
			func() {
				k.parts(func(p, i int) {
					VFMADD231PD(k.tokens(i, 8), even[p], k.sum(2*p))
					VFMADD231PD(k.tokens(i+int(odd[p].Size())/8, 8), odd[p], k.sum(2*p+1))
				})
			})
	}
	return q
}

// rounded makes r, R16(q*s), of the block's bytes: with p = q*s, 2^13 p + p less 2^13 p. The first is rounded, the second
// exact, as is (2^13+1) s, since 2047 * 8193 < 2^24.
func (k *quickWalk) rounded(y, r []reg.VecVirtual) []func() {
	return append(k.bytes(y), func() {
		if k.zmm {
			k.parts(func(p, _ int) { VMULPS_BCST(k.ofBlock(k.m), y[p], r[p]) })
			return
		}
		s := k.all(k.m)
		k.parts(func(p, _ int) { VMULPS(s, y[p], r[p]) })
	}, func() {
		if k.zmm {
			k.parts(func(p, _ int) { VFNMADD231PS_BCST(k.ofBlock(k.s), y[p], r[p]) })
			return
		}
		s := k.all(k.s)
		k.parts(func(p, _ int) { VFNMADD231PS(s, y[p], r[p]) })
	})
}

// scaleI4 is q*s by eight: a dword in every lane, each lane's nibble shifted to the top and back with its sign.
func scaleI4() quick {
	return quick{name: "quickScaleI4", bits: 4, what: "q[r, i] * scale[r, i/32], a sum in float32 for each block",
		regs: func(k *quickWalk) { k.constant(topNibble()) },
		row: func(k *quickWalk) []func() {
			y := k.vecs()
			return []func(){
				func() { k.parts(func(p, i int) { VPBROADCASTD(k.weights(i/2), y[p]) }) },
				func() { k.parts(func(p, _ int) { VPSLLVD(k.c[0], y[p], y[p]) }) },
				func() { k.parts(func(p, _ int) { VPSRAD(U8(28), y[p], y[p]) }) },
				func() { k.parts(func(p, _ int) { VCVTDQ2PS(y[p], y[p]) }) },
				func() { k.multiply(y) },
				func() { k.scaled(y[0]) },
			}
		}}
}

// scaleI4x16 is q*s by sixteen. A round is sixteen dwords, four of a block; of the eight nibbles of each the lowest four bits are
// looked up, as the others come down one after the other: x has the first columns of all dwords, then the second ones.
func scaleI4x16() quick {
	return quick{name: "quickScaleI4x16", bits: 4, zmm: true, what: "q[r, i] * scale[r, i/32], a sum in float32 for each block",
		regs: func(k *quickWalk) {
			k.constant(signedQ())
			k.constant(quarters())
		},
		row: func(k *quickWalk) []func() {
			p, steps := k.nibbles(func() reg.VecVirtual { return k.c[0] })
			return append(steps, func() { k.scaled(p) })
		},
		round: func(k *quickWalk) []func() {
			w, s, y := ZMM(), ZMM(), make([]reg.VecVirtual, 8)
			each := func(f func(i int)) func() {
				return func() {
					for i := range y {
						f(i)
					}
				}
			}
			return []func(){
				func() {
					VMOVDQU32(k.weights(0), w)
					VBROADCASTF32X4(Mem{Base: k.s}, s)
				},
				each(func(i int) {
					if y[i] = ZMM(); i > 0 {
						VPSRLD(U8(4*i), w, y[i])
					}
				}),
				each(func(i int) {
					at := y[i]
					if i == 0 {
						at = w
					}
					VPERMPS(k.c[0], at, y[i])
				}),
				func() { VPERMPS(s, k.c[1], s) },
				each(func(i int) {
					if i < 2 {
						VMULPS(k.tokens(16*i, 4), y[i], y[i])
					} else {
						VFMADD231PS(k.tokens(16*i, 4), y[i], y[i%2])
					}
				}),
				func() {
					VFMADD231PS(s, y[0], k.acc[0])
					VFMADD231PS(s, y[1], k.acc[1])
				},
			}
		}}
}

// nibbles makes p the sum of a block's x, the even columns before the odd ones, times what the table holds for the low and the
// high nibbles of its sixteen bytes.
func (k *quickWalk) nibbles(table func() reg.VecVirtual) (p reg.VecVirtual, steps []func()) {
	i, lo, hi := ZMM(), ZMM(), ZMM()
	return lo, []func(){
		func() { VPMOVZXBD(k.weights(0), i) },
		func() { VPERMPS(table(), i, lo) }, // by the low four bits
		func() { VPSRLD(U8(4), i, i) },
		func() { VPERMPS(table(), i, hi) },
		func() { VMULPS(k.tokens(0, 4), lo, lo) },
		func() { VFMADD231PS(k.tokens(16, 4), hi, lo) },
	}
}

// lookup makes t the table's row for the block: sixteen weights.
func (k *quickWalk) lookup() (t []reg.VecVirtual, step func()) {
	for range 64 / int(k.vec().Size()) {
		t = append(t, k.vec())
	}
	return t, func() {
		at := GP32()
		MOVL(k.ofBlock(k.off), at)
		for i, y := range t {
			VMOVUPS(Mem{Base: k.table, Index: at.As64(), Scale: 1, Disp: i * int(y.Size())}, y)
		}
	}
}

func (k *quickWalk) tables() { k.off, k.table = GP64(), GP64() }

// looked makes p the block's product with a table of its weights; by eight, columns are as they are, and the table comes in
// halves.
func (k *quickWalk) looked(t []reg.VecVirtual) (p reg.VecVirtual, steps []func()) {
	if k.zmm {
		return k.nibbles(func() reg.VecVirtual { return t[0] })
	}
	p = YMM()
	k.parts(func(part, i int) {
		steps = append(steps, func() {
			if part == 0 {
				loadNibble(p, k.weights(i/2), t)
				VMULPS(k.tokens(i, 4), p, p)
				return
			}
			y := YMM()
			loadNibble(y, k.weights(i/2), t)
			VFMADD231PS(k.tokens(i, 4), y, p)
		})
	})
	return p, steps
}

// roundI4 is R16(q*s), whose power of two is the scale.
func roundI4(zmm bool) quick {
	q := quick{name: "quickRoundI4", bits: 4, zmm: zmm, what: "table[off[r, i/32]][q[r, i]] * scale[r, i/32]",
		regs: (*quickWalk).tables,
		row: func(k *quickWalk) []func() {
			t, lookup := k.lookup()
			p, steps := k.looked(t)
			return append(append([]func(){lookup}, steps...), func() { k.scaled(p) })
		}}
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
		row: func(k *quickWalk) []func() {
			t, lookup := k.lookup()
			head := append([]func(){lookup}, k.addMin(t)...)
			p, steps := k.looked(t)
			return append(append(head, steps...), func() { VADDPS(p, k.sum(0), k.sum(0)) })
		}}
	if zmm {
		q.name = "quickRoundU4x16"
	}
	return q
}

// addMin makes a block's table of B(q*s), without the scale's power of two, its weights: scaled, a minval added, rounded to bf16.
func (k *quickWalk) addMin(t []reg.VecVirtual) []func() {
	var c []reg.VecVirtual
	for range t {
		c = append(c, k.vec())
	}
	return []func(){
		func() {
			s, low := k.all(k.s), k.all(k.m)
			for _, y := range t {
				VFMADD213PS(low, s, y)
			}
		},
		func() {
			for i, y := range t {
				if k.zmm {
					VPANDD(k.c[1], y, c[i])
				} else {
					VANDPS(k.c[1], y, c[i])
				}
			}
		},
		func() {
			for i, y := range t {
				VFMADD231PS(k.c[0], c[i], y)
			}
		},
		func() {
			for i, y := range t {
				VFNMADD231PS(k.c[0], c[i], y)
			}
		},
	}
}

// prepares emits the loops that widen scales: sixteen a round.
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
	describe(fmt.Sprintf("%s: %s, for i < n, n a multiple of 16 and not 0; the least and the largest bits of src without their sign.", name, what))
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	var second reg.Register
	if two {
		second = Load(Param("second"), GP64())
	}
	if name == "roundScales" {
		VBROADCASTSS(two13(), factor)
	}
	least, most, magnitude := YMM(), YMM(), YMM()
	VPCMPEQD(least, least, least)
	VPXOR(most, most, most)
	VBROADCASTI128(magnitude16(), magnitude)
	Label("loop")
	PREFETCHT1(Mem{Base: src, Disp: scalesAhead})
	v := YMM()
	VPAND(Mem{Base: src}, magnitude, v)
	VPMINUW(v, least, least)
	VPMAXUW(v, most, most)
	for i := range 2 {
		h, y, z := YMM(), YMM(), YMM()
		VMOVDQU(Mem{Base: src, Disp: 16 * i}, h.AsX())
		f(h, y, z, factor)
		VMOVUPS(y, Mem{Base: dst, Disp: 32 * i})
		if two {
			VMOVUPS(z, Mem{Base: second, Disp: 32 * i})
		}
	}
	ADDQ(U8(32), src)
	ADDQ(U8(64), dst)
	if two {
		ADDQ(U8(64), second)
	}
	SUBQ(U8(16), n)
	JG(LabelRef("loop"))
	t := XMM()
	VEXTRACTI128(U8(1), least, t)
	VPMINUW(t, least.AsX(), least.AsX())
	VEXTRACTI128(U8(1), most, t)
	VPMAXUW(t, most.AsX(), most.AsX())
	for _, bytes := range []uint8{8, 4, 2} {
		VPSRLDQ(U8(bytes), least.AsX(), t)
		VPMINUW(t, least.AsX(), least.AsX())
		VPSRLDQ(U8(bytes), most.AsX(), t)
		VPMAXUW(t, most.AsX(), most.AsX())
	}
	for _, out := range []struct {
		name string
		x    reg.VecVirtual
	}{{"least", least}, {"most", most}} {
		g := GP32()
		VMOVD(out.x.AsX(), g)
		ANDL(U32(0xffff), g)
		Store(g, Return(out.name))
	}
	VZEROUPPER()
	RET()
}
