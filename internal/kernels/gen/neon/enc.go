package main

import "fmt"

// op is one vector instruction: its word without registers, and its name as an assembler writes it, with its registers
// in the order rd, rn, rm.
type op struct {
	base uint32
	text string
}

// The instructions Go's assembler has no names for (Arm Architecture Reference Manual, C7). A test has another assembler read
// what is made of them.
var (
	fadd4s   = op{0x4e20d400, "fadd v%d.4s, v%d.4s, v%d.4s"}
	fadd2d   = op{0x4e60d400, "fadd v%d.2d, v%d.2d, v%d.2d"}
	fsub2d   = op{0x4ee0d400, "fsub v%d.2d, v%d.2d, v%d.2d"}
	fsub4s   = op{0x4ea0d400, "fsub v%d.4s, v%d.4s, v%d.4s"}
	fmul4s   = op{0x6e20dc00, "fmul v%d.4s, v%d.4s, v%d.4s"}
	fmul2d   = op{0x6e60dc00, "fmul v%d.2d, v%d.2d, v%d.2d"}
	fmla4s   = op{0x4e20cc00, "fmla v%d.4s, v%d.4s, v%d.4s"}
	fmla2d   = op{0x4e60cc00, "fmla v%d.2d, v%d.2d, v%d.2d"}
	faddp4s  = op{0x6e20d400, "faddp v%d.4s, v%d.4s, v%d.4s"}
	fcmeq4s  = op{0x4e20e400, "fcmeq v%d.4s, v%d.4s, v%d.4s"}
	cmeq4s   = op{0x6ea08c00, "cmeq v%d.4s, v%d.4s, v%d.4s"}
	add4s    = op{0x4ea08400, "add v%d.4s, v%d.4s, v%d.4s"}
	and16b   = op{0x4e201c00, "and v%d.16b, v%d.16b, v%d.16b"}
	eor16b   = op{0x6e201c00, "eor v%d.16b, v%d.16b, v%d.16b"}
	zip1b    = op{0x4e003800, "zip1 v%d.16b, v%d.16b, v%d.16b"}
	zip2b    = op{0x4e007800, "zip2 v%d.16b, v%d.16b, v%d.16b"}
	uzp1b    = op{0x4e001800, "uzp1 v%d.16b, v%d.16b, v%d.16b"}
	uzp2b    = op{0x4e005800, "uzp2 v%d.16b, v%d.16b, v%d.16b"}
	uzp2h    = op{0x4e405800, "uzp2 v%d.8h, v%d.8h, v%d.8h"}
	trn1s    = op{0x4e802800, "trn1 v%d.4s, v%d.4s, v%d.4s"}
	trn2s    = op{0x4e806800, "trn2 v%d.4s, v%d.4s, v%d.4s"}
	zip1d    = op{0x4ec03800, "zip1 v%d.2d, v%d.2d, v%d.2d"}
	zip2d    = op{0x4ec07800, "zip2 v%d.2d, v%d.2d, v%d.2d"}
	tbl      = op{0x4e000000, "tbl v%d.16b, { v%d.16b }, v%d.16b"}
	faddp2s  = op{0x7e30d800, "faddp s%d, v%d.2s"}
	faddp2d  = op{0x7e70d800, "faddp d%d, v%d.2d"}
	fabs2d   = op{0x4ee0f800, "fabs v%d.2d, v%d.2d"}
	fabs4s   = op{0x4ea0f800, "fabs v%d.4s, v%d.4s"}
	fcvtl2d  = op{0x0e617800, "fcvtl v%d.2d, v%d.2s"}
	fcvtl22d = op{0x4e617800, "fcvtl2 v%d.2d, v%d.4s"}
	fcvtl4s  = op{0x0e217800, "fcvtl v%d.4s, v%d.4h"}
	fcvtl24s = op{0x4e217800, "fcvtl2 v%d.4s, v%d.8h"}
	fcvtn2s  = op{0x0e616800, "fcvtn v%d.2s, v%d.2d"}
	fcvtn24s = op{0x4e616800, "fcvtn2 v%d.4s, v%d.2d"}
	fcvtn4h  = op{0x0e216800, "fcvtn v%d.4h, v%d.4s"}
	fcvtn28h = op{0x4e216800, "fcvtn2 v%d.8h, v%d.4s"}
	shll4s   = op{0x2e613800, "shll v%d.4s, v%d.4h, #16"}
	shll24s  = op{0x6e613800, "shll2 v%d.4s, v%d.8h, #16"}
	sxtl8h   = op{0x0f08a400, "sshll v%d.8h, v%d.8b, #0"}
	sxtl4s   = op{0x0f10a400, "sshll v%d.4s, v%d.4h, #0"}
	sxtl24s  = op{0x4f10a400, "sshll2 v%d.4s, v%d.8h, #0"}
	scvtf4s  = op{0x4e21d800, "scvtf v%d.4s, v%d.4s"}
	fmax4s   = op{0x4e20f400, "fmax v%d.4s, v%d.4s, v%d.4s"}
	fmaxv4s  = op{0x6e30f800, "fmaxv s%d, v%d.4s"}
	frintm2d = op{0x4e619800, "frintm v%d.2d, v%d.2d"}
	fcvtzs2d = op{0x4ee1b800, "fcvtzs v%d.2d, v%d.2d"}
	fneg2d   = op{0x6ee0f800, "fneg v%d.2d, v%d.2d"}
	fdiv2d   = op{0x6e60fc00, "fdiv v%d.2d, v%d.2d, v%d.2d"}
	fcmge2d  = op{0x6e60e400, "fcmge v%d.2d, v%d.2d, v%d.2d"}
	add2d    = op{0x4ee08400, "add v%d.2d, v%d.2d, v%d.2d"}
	shl2d52  = op{0x4f745400, "shl v%d.2d, v%d.2d, #52"}
	dup4s    = op{0x4e040400, "dup v%d.4s, v%d.s[0]"}
	dup2d    = op{0x4e080400, "dup v%d.2d, v%d.d[0]"}
	uminv4s  = op{0x6eb1a800, "uminv s%d, v%d.4s"}
	ushr4s16 = op{0x6f300400, "ushr v%d.4s, v%d.4s, #16"}
	shl4s16  = op{0x4f305400, "shl v%d.4s, v%d.4s, #16"}
	ushr16b4 = op{0x6f0c0400, "ushr v%d.16b, v%d.16b, #4"}
)

// word is one encoded instruction with its name.
func word(bits uint32, text string) { fmt.Fprintf(&asm, "\tWORD $0x%08x // %s\n", bits, text) }

// do writes o with its registers: rd, rn and, where it has one, rm.
func do(o op, r ...int) {
	bits, args := o.base, make([]any, len(r))
	for i, v := range r {
		bits |= uint32(v) << [...]uint{0, 5, 16}[i]
		args[i] = v
	}
	word(bits, fmt.Sprintf(o.text, args...))
}

// fmlaLane is rd += rn * rm[lane], in four float32 or two float64.
func fmlaLane(size, rd, rn, rm, lane int) {
	if size == 4 {
		word(0x4f801000|uint32(lane&1)<<21|uint32(lane>>1)<<11|uint32(rm)<<16|uint32(rn)<<5|uint32(rd),
			fmt.Sprintf("fmla v%d.4s, v%d.4s, v%d.s[%d]", rd, rn, rm, lane))
		return
	}
	word(0x4fc01000|uint32(lane)<<11|uint32(rm)<<16|uint32(rn)<<5|uint32(rd), fmt.Sprintf("fmla v%d.2d, v%d.2d, v%d.d[%d]", rd, rn, rm, lane))
}

// fmulLane is rd = rn * rm.s[0].
func fmulLane(rd, rn, rm int) {
	word(0x4f809000|uint32(rm)<<16|uint32(rn)<<5|uint32(rd), fmt.Sprintf("fmul v%d.4s, v%d.4s, v%d.s[0]", rd, rn, rm))
}

// fmulLane1 is rd = rn * rm.d[1].
func fmulLane1(rd, rn, rm int) {
	word(0x4fc09800|uint32(rm)<<16|uint32(rn)<<5|uint32(rd), fmt.Sprintf("fmul v%d.2d, v%d.2d, v%d.d[1]", rd, rn, rm))
}

// memory writes a load or store of size bytes at register base plus off, a multiple of size.
func memory(bits uint32, name, kind string, v, base, off, size int) {
	if off < 0 || off%size != 0 || off/size > 4095 {
		panic(fmt.Sprintf("%s at %d", name, off))
	}
	at := fmt.Sprintf("[x%d]", base)
	if off > 0 {
		at = fmt.Sprintf("[x%d, #%d]", base, off)
	}
	word(bits|uint32(off/size)<<10|uint32(base)<<5|uint32(v), fmt.Sprintf("%s %s%d, %s", name, kind, v, at))
}

func ldrq(v, base, off int) { memory(0x3dc00000, "ldr", "q", v, base, off, 16) }
func strq(v, base, off int) { memory(0x3d800000, "str", "q", v, base, off, 16) }
func ldrd(v, base, off int) { memory(0xfd400000, "ldr", "d", v, base, off, 8) }
func strd(v, base, off int) { memory(0xfd000000, "str", "d", v, base, off, 8) }
func ldrs(v, base, off int) { memory(0xbd400000, "ldr", "s", v, base, off, 4) }
func strs(v, base, off int) { memory(0xbd000000, "str", "s", v, base, off, 4) }
func ldrh(v, base, off int) { memory(0x7d400000, "ldr", "h", v, base, off, 2) }

// ldp loads two neighbouring vectors of 16 bytes.
func ldp(v, u, base, off int) {
	at := fmt.Sprintf("[x%d]", base)
	if off > 0 {
		at = fmt.Sprintf("[x%d, #%d]", base, off)
	}
	word(0xad400000|uint32(off/16)<<15|uint32(u)<<10|uint32(base)<<5|uint32(v), fmt.Sprintf("ldp q%d, q%d, %s", v, u, at))
}
