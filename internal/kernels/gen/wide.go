package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// width is a size of registers that a kernel is written for.
type width struct {
	bytes int
	name  string // of the level, behind the kernel's name
	reg   func() reg.VecVirtual
}

var (
	ymm = width{32, "AVX2", YMM}
	zmm = width{64, "AVX512", ZMM}
)

// floats is how many float32 a register holds.
func (v width) floats() int { return v.bytes / 4 }

// zeros gives n registers of zeros.
func (v width) zeros(n int) []reg.VecVirtual {
	a := make([]reg.VecVirtual, n)
	for i := range a {
		a[i] = v.reg()
		VXORPS(a[i], a[i], a[i])
	}
	return a
}

// halves gives the lower and upper half of y as float64; y is lost.
func (v width) halves(y reg.VecVirtual) (lo, hi reg.VecVirtual) {
	if v.bytes == 32 {
		return widenHalves(y)
	}
	lo, hi = ZMM(), ZMM()
	VCVTPS2PD(y.AsY(), lo)
	VEXTRACTF64X4(U8(1), y, y.AsY())
	VCVTPS2PD(y.AsY(), hi)
	return lo, hi
}

// broadcast is a float32 parameter in every lane.
func (v width) broadcast(name string) reg.VecVirtual {
	p, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	y := v.reg()
	VBROADCASTSS(p.Addr, y)
	return y
}

// singles is a table of float32, each in the sixteen lanes of a register.
func singles(name string, v ...float32) func(i int) Mem {
	table := constants(name, func(i int) Constant { return bits(v[i/16]) }, 16*len(v))
	return func(i int) Mem { return table().Offset(64 * i) }
}

// each is the loop over whole registers of n elements; i counts elements.
func (v width) each(n reg.Register, body func(i reg.GPVirtual)) {
	i := GP64()
	XORQ(i, i)
	Label("loop")
	CMPQ(i, n)
	JGE(LabelRef("done"))
	body(i)
	ADDQ(U8(v.floats()), i)
	JMP(LabelRef("loop"))
	Label("done")
}

// elementwise are operations of one or two IEEE roundings an element, not fused: the same bits as in Go.
func elementwise(v width) {
	type op struct {
		name, params, doc string
		body              func(at func(string) Mem)
	}
	multiple := fmt.Sprintf(" for i < n, n a multiple of %d.", v.floats())
	for _, k := range []op{
		{"multiply", "dst, x *float32", "dst[i] *= x[i]", func(at func(string) Mem) {
			y := v.reg()
			VMOVUPS(at("dst"), y)
			VMULPS(at("x"), y, y)
			VMOVUPS(y, at("dst"))
		}},
		{"add", "dst, x *float32", "dst[i] += x[i]", func(at func(string) Mem) {
			y := v.reg()
			VMOVUPS(at("dst"), y)
			VADDPS(at("x"), y, y)
			VMOVUPS(y, at("dst"))
		}},
	} {
		TEXT(k.name+"Whole", NOSPLIT, "func("+k.params+", n int)")
		describe(k.name + "Whole: " + k.doc + multiple)
		dst, x, n := load4("dst"), load4("x"), load4("n")
		v.each(n, func(i reg.GPVirtual) {
			k.body(func(name string) Mem {
				return Mem{Base: map[string]reg.Register{"dst": dst, "x": x}[name], Index: i, Scale: 4}
			})
		})
		VZEROUPPER()
		RET()
	}
	TEXT("scaleWhole", NOSPLIT, "func(x *float32, r float32, n int)")
	describe("scaleWhole: x[i] *= r" + multiple)
	x, n, r := load4("x"), load4("n"), v.broadcast("r")
	v.each(n, func(i reg.GPVirtual) {
		y := v.reg()
		VMULPS(Mem{Base: x, Index: i, Scale: 4}, r, y)
		VMOVUPS(y, Mem{Base: x, Index: i, Scale: 4})
	})
	VZEROUPPER()
	RET()

	TEXT("gainWhole", NOSPLIT, "func(dst, x, w *float32, r float32, n int)")
	describe("gainWhole: dst[i] = float32(x[i]*r) * w[i]" + multiple)
	dst, x, g := load4("dst"), load4("x"), load4("w")
	n, r = load4("n"), v.broadcast("r")
	v.each(n, func(i reg.GPVirtual) {
		y := v.reg()
		VMULPS(Mem{Base: x, Index: i, Scale: 4}, r, y)
		VMULPS(Mem{Base: g, Index: i, Scale: 4}, y, y)
		VMOVUPS(y, Mem{Base: dst, Index: i, Scale: 4})
	})
	VZEROUPPER()
	RET()

	TEXT("turnWhole", NOSPLIT, "func(a, b, cos, sin *float32, n int)")
	describe("turnWhole: a[i], b[i] = float32(a[i]*cos[i]) - float32(b[i]*sin[i]), float32(b[i]*cos[i]) + float32(a[i]*sin[i])" + multiple)
	a, b, cos, sin := load4("a"), load4("b"), load4("cos"), load4("sin")
	n = load4("n")
	v.each(n, func(i reg.GPVirtual) {
		at := func(p reg.Register) Mem { return Mem{Base: p, Index: i, Scale: 4} }
		x, y, c, s, t := v.reg(), v.reg(), v.reg(), v.reg(), v.reg()
		VMOVUPS(at(a), x)
		VMOVUPS(at(b), y)
		VMOVUPS(at(cos), c)
		VMOVUPS(at(sin), s)
		VMULPS(s, y, t)
		VMULPS(c, y, y)
		VMULPS(s, x, s)
		VMULPS(c, x, x)
		VSUBPS(t, x, x)
		VADDPS(s, y, y)
		VMOVUPS(x, at(a))
		VMOVUPS(y, at(b))
	})
	VZEROUPPER()
	RET()
}

// taps4 gives the places of the four rows of p, stride bytes apart, at element i.
func taps4(p, stride, stride3 reg.Register, i reg.Register) []Mem {
	m := make([]Mem, 4)
	q := GP64()
	LEAQ(Mem{Base: p, Index: i, Scale: 4}, q)
	m[0] = Mem{Base: q}
	m[1] = Mem{Base: q, Index: stride, Scale: 1}
	m[2] = Mem{Base: q, Index: stride, Scale: 2}
	m[3] = Mem{Base: q, Index: stride3, Scale: 1}
	return m
}

func convStrides() (stride, stride3 reg.Register) {
	stride = load4("stride")
	SHLQ(U8(2), stride)
	three := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, three)
	return stride, three
}

// convFast is the conv of four taps in float32.
func convFast(v width) {
	TEXT("convFast"+v.name, NOSPLIT, "func(out, w, x *float32, stride, n int)")
	describe(fmt.Sprintf("convFast%s: out[c] = sum of w[j*stride+c] * x[j*stride+c] over j < 4, for c < n, n a multiple of %d.", v.name, v.floats()))
	out, w, x, n := load4("out"), load4("w"), load4("x"), load4("n")
	stride, stride3 := convStrides()
	v.each(n, func(i reg.GPVirtual) {
		ws, xs := taps4(w, stride, stride3, i), taps4(x, stride, stride3, i)
		y := v.reg()
		for j := range 4 {
			t := v.reg()
			VMOVUPS(ws[j], t)
			if j == 0 {
				VMULPS(xs[j], t, y)
			} else {
				VFMADD231PS(xs[j], t, y)
			}
		}
		VMOVUPS(y, Mem{Base: out, Index: i, Scale: 4})
	})
	VZEROUPPER()
	RET()
}

// convExact is the conv of four taps in float64, where its bound lets it be rounded.
func convExact() {
	TEXT("convExactAVX2", NOSPLIT, "func(out, w, x *float32, u float64, stride, n int) int")
	describe("convExactAVX2: out[c] = float32(s), s the sum of w[j*stride+c] * x[j*stride+c] over j < 4 in float64, for c < n, n a multiple of 4, up to the",
		"first group of four in which u times the sum of the magnitudes could change the rounding; the result is the index of that group, n if there is none.")
	out, w, x, n := load4("out"), load4("w"), load4("x"), load4("n")
	u := broadcastParam("u")
	stride, stride3 := convStrides()
	sign := YMM()
	VMOVUPD(signBits64(), sign)
	eachFour(n, func(i reg.GPVirtual) {
		ws, xs := taps4(w, stride, stride3, i), taps4(x, stride, stride3, i)
		s, m := YMM(), YMM()
		for j := range 4 {
			a, b := YMM(), YMM()
			VCVTPS2PD(ws[j], a)
			VCVTPS2PD(xs[j], b)
			VMULPD(a, b, b)
			if j == 0 {
				VMOVAPD(b, s)
				VANDNPD(b, sign, m)
				continue
			}
			VADDPD(b, s, s)
			VANDNPD(b, sign, b)
			VADDPD(b, m, m)
		}
		VMULPD(u, m, m)
		lo := YMM()
		VSUBPD(m, s, lo)
		VADDPD(m, s, m)
		storeIfSame(s, lo, m, Mem{Base: out, Index: i, Scale: 4})
	})
}
