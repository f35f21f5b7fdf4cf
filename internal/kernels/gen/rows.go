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
	argAhead, argOff, argTable        = 128, 136, 144
	argRows, argSqs, argDstStride     = 152, 160, 168
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

// sequence is a kernel that goes through rows one after the other: memory is read in one stream, which is what a processor
// foresees best. (Two or four rows side by side share the loads of x, and read at half the speed where rows are a page long or
// two; and even one line of the next page, asked for once in each, costs an eighth, with the branch that this takes.)
type sequence struct {
	*walk
	a, x     reg.GPVirtual
	dst, sqs reg.GPVirtual // where the next row's sum goes, and what else is known of it
}

// rowByRow emits the loops: start begins a row, round is one round of step elements, finish writes what a row gave.
func rowByRow(f format, step int, xBytes int, start func(), round func(q *sequence), finish func(q *sequence)) {
	a := GP64()
	Load(Param("a"), a)
	q := &sequence{walk: newWalk(f, a, 1), a: a, dst: load64(a, argDst), sqs: load64(a, argSqs)}
	stride, sStride, count := load64(a, argWStride), reg.GPVirtual(nil), load64(a, argRows)
	w, s, m := GP64(), GP64(), GP64()
	MOVQ(q.w, w)
	if q.s != nil {
		sStride = load64(a, argSStride)
		MOVQ(q.s, s)
	}
	if q.m != nil {
		MOVQ(q.m, m)
	}
	q.x = GP64()
	Label("row")
	MOVQ(w, q.w)
	ADDQ(stride, w)
	if q.s != nil {
		MOVQ(s, q.s)
		ADDQ(sStride, s)
	}
	if q.m != nil {
		MOVQ(m, q.m)
		ADDQ(sStride, m)
	}
	MOVQ(Mem{Base: a, Disp: argX}, q.x)
	MOVQ(Mem{Base: a, Disp: argN}, q.n)
	start()
	JMP(LabelRef("enter"))
	Label("loop")
	round(q)
	ADDQ(U32(xBytes*step), q.x)
	q.next(step)
	Label("enter")
	CMPQ(q.n, U8(step))
	JGE(LabelRef("loop"))
	finish(q)
	DECQ(count)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// putSum32 and putSq write the lowest float32 of h. What has been reached stays in registers: a pointer past the last row must
// not be where the garbage collector looks.
func (q *sequence) putSum32(h reg.VecVirtual) {
	VMOVD(h, Mem{Base: q.dst})
	ADDQ(U8(4), q.dst)
}

func (q *sequence) putSq(h reg.VecVirtual) {
	VMOVD(h, Mem{Base: q.sqs})
	ADDQ(U8(4), q.sqs)
}

// zero clears registers.
func zero(ys []reg.VecVirtual) {
	for _, y := range ys {
		VXORPS(y, y, y)
	}
}

// rowsFast is dst[r] = sum_i w[r, i] * x[i] in float32: every lane of every accumulator is a chain of its own.
func rowsFast(f format) { rowsFastAhead("rowsFast", 0, f) }

// rowsAhead is rowsFast that asks for lines before it reads them, into the second-level cache. What that is worth is the
// processor's: on a Zen 5 bf16 streams at 36 GB/s for 30, rows of 12,288 at 26 for 13, and eight rows side by side at 24 are
// not wanted; on a Zen 4 it cost a fifth.
func rowsAhead(f format) { rowsFastAhead("rowsAhead", 8192, f) }

func rowsFastAhead(name string, ahead int, f format) {
	step := max(f.step, 32)
	TEXT(name+f.name, NOSPLIT, "func(a *byte)")
	asked := ""
	if ahead > 0 {
		asked = fmt.Sprintf(" The lines %d bytes on are asked for.", ahead)
	}
	describe(fmt.Sprintf("%s%s: for r < rows: dst[r] = sum of w[r*wStride:][i] * x[i] over i < n, n a multiple of %d, x float32.%s", name, f.name, step, asked))
	acc := accumulators(4)
	var seq *sequence
	add := func(f format) {
		q := seq
		blk := q.block(0)
		for i := range step / 8 {
			x := Mem{Base: q.x, Disp: 32 * i}
			y := YMM()
			if f.name == "F32" {
				VMOVUPS(x, y)
				VFMADD231PS(f.at(q.row(0), i), y, acc[i%4])
				continue
			}
			f.load(y, f.at(q.row(0), i), blk)
			VFMADD231PS(x, y, acc[i%4])
		}
	}
	var grid *gridTest
	if f.name == "BF16R16" {
		grid = newGridTest()
	}
	rowByRow(f, step, 4, func() { zero(acc) }, func(q *sequence) {
		seq = q
		for at := 0; ahead > 0 && at < step*f.bits/8; at += 64 {
			PREFETCHT1(Mem{Base: q.w, Disp: ahead + at})
		}
		if grid == nil {
			add(f)
			return
		}
		grid.unless(q.w, step, "round")
		add(formatOf("BF16"))
		Label("added")
	}, func(q *sequence) {
		VADDPS(acc[1], acc[0], acc[0])
		VADDPS(acc[3], acc[2], acc[2])
		VADDPS(acc[2], acc[0], acc[0])
		h := XMM()
		lanes32(acc[0], h)
		q.putSum32(h)
	})
	if grid != nil {
		Label("round")
		add(f)
		JMP(LabelRef("added"))
	}
}

// gridTest finds the bf16 that may be no binary16: those below 2^-17, whose last bits lie below 2^-24, zero among them, and those from
// 2^16 on. The rest have fewer bits than binary16 and need no rounding, which takes twice as long as all else.
type gridTest struct{ magnitude, least, span reg.VecVirtual }

func newGridTest() *gridTest {
	g := &gridTest{YMM(), YMM(), YMM()}
	VMOVDQU(magnitude16(), g.magnitude)
	VMOVDQU(belowGrid(), g.least)
	VMOVDQU(gridSpan(), g.span)
	return g
}

// unless jumps where one of n weights from w on, a multiple of 32, is none.
func (g *gridTest) unless(w reg.Register, n int, label string) {
	var most reg.VecVirtual
	for i := range n / 16 {
		y := YMM()
		VPAND(Mem{Base: w, Disp: 32 * i}, g.magnitude, y)
		VPSUBW(g.least, y, y) // as without sign: what is less is large
		if most == nil {
			most = y
			continue
		}
		VPMAXUW(y, most, most)
	}
	VPSUBUSW(g.span, most, most)
	VPTEST(most, most)
	JNE(LabelRef(label))
}

var gridSpan = constants("gridSpan", func(int) Constant { return U32((0x4780 - 0x3700 - 1) * 0x10001) }, 16)

func formatOf(name string) format {
	for _, f := range formats {
		if f.name == name {
			return f
		}
	}
	panic(name)
}

// tallRows is how many rows a tall kernel takes side by side: each has one accumulator.
const tallRows = 8

// rowsTall is rowsFast for long rows. A row read alone wants all of x beside it in the first-level cache; once the two do not fit,
// every x comes from the second, in the way of the stream (rows of 6144 bf16 then come at 11 GB/s, of 2048 at 27). Eight rows
// share its coming, and their eight streams bear 21.
func rowsTall(f format) {
	const step = 16
	TEXT("rowsTall"+f.name, NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("rowsTall%s: for r < rows: dst[r] = sum of w[r*wStride:][i] * x[i] over i < n, n a multiple of %d, rows of %d and not 0, x float32.", f.name, step, tallRows))
	a := GP64()
	Load(Param("a"), a)
	q := &sequence{walk: newWalk(f, a, 4), a: a, dst: load64(a, argDst)}
	count, w, upper := load64(a, argRows), GP64(), GP64()
	MOVQ(q.w, w)
	acc := make([]reg.VecVirtual, tallRows)
	for i := range acc {
		acc[i] = YMM()
	}
	q.x = GP64()
	Label("rows")
	MOVQ(w, q.w)
	LEAQ(Mem{Base: w, Index: q.ws, Scale: 4}, upper)
	LEAQ(Mem{Base: upper, Index: q.ws, Scale: 4}, w)
	MOVQ(Mem{Base: a, Disp: argX}, q.x)
	MOVQ(Mem{Base: a, Disp: argN}, q.n)
	zero(acc)
	JMP(LabelRef("enter"))
	Label("loop")
	for i := range step / 8 {
		x := YMM()
		VMOVUPS(Mem{Base: q.x, Disp: 32 * i}, x)
		for r := range acc {
			m := q.row(r % 4)
			if r >= 4 {
				m.Base = upper
			}
			if f.name == "F32" {
				VFMADD231PS(f.at(m, i), x, acc[r])
				continue
			}
			y := YMM()
			f.load(y, f.at(m, i), nil)
			VFMADD231PS(x, y, acc[r])
		}
	}
	ADDQ(U32(step*4), q.x)
	ADDQ(U32(step*f.bits/8), upper)
	q.next(step)
	Label("enter")
	CMPQ(q.n, U8(step))
	JGE(LabelRef("loop"))
	for _, y := range acc {
		h := XMM()
		lanes32(y, h)
		q.putSum32(h)
	}
	SUBQ(U8(tallRows), count)
	JNE(LabelRef("rows"))
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

// rowsExact is dst[r] = sum_i w[r, i] * x[i] in float64, where each product is exact, and sqs[r], the sum of w*w
// in float32, which bounds the error of the other.
func rowsExact(f format) {
	step := max(f.step, 32)
	TEXT("rowsExact"+f.name, NOSPLIT, "func(a *byte)")
	describe(fmt.Sprintf("rowsExact%s: for r < rows: dst[r] = sum of w[r*wStride:][i] * x[i] and sqs[r] = sum of w*w over i < n,", f.name),
		fmt.Sprintf("n a multiple of %d, x and dst float64. Each sum is sixteen chains of n/16 products.", step))
	acc, sq := accumulators(4), accumulators(1)
	rowByRow(f, step, 8, func() { zero(acc); zero(sq) }, func(q *sequence) {
		blk := q.block(0)
		for i := range step / 8 {
			y, d := YMM(), YMM()
			f.load(y, f.at(q.row(0), i), blk)
			VFMADD231PS(y, y, sq[0])
			VCVTPS2PD(y.AsX(), d)
			VFMADD231PD(Mem{Base: q.x, Disp: 64 * i}, d, acc[2*i%4])
			VEXTRACTF128(U8(1), y, y.AsX())
			VCVTPS2PD(y.AsX(), d)
			VFMADD231PD(Mem{Base: q.x, Disp: 64*i + 32}, d, acc[2*i%4+1])
		}
	}, func(q *sequence) {
		q.putSum64(acc)
		h := XMM()
		lanes32(sq[0], h)
		q.putSq(h)
	})
}

// putSum64 writes the sum of four accumulators of float64.
func (q *sequence) putSum64(acc []reg.VecVirtual) {
	VADDPD(acc[1], acc[0], acc[0])
	VADDPD(acc[3], acc[2], acc[2])
	VADDPD(acc[2], acc[0], acc[0])
	h := XMM()
	lanes64(acc[0], h)
	VMOVSD(h, Mem{Base: q.dst})
	ADDQ(U8(8), q.dst)
}
