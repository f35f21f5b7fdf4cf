package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// processor asks who made the processor and which it is.
func processor() {
	TEXT("processor", NOSPLIT, "func() (maker [3]uint32, signature uint32)")
	describe("processor: maker is EBX, EDX and ECX of leaf 0 of CPUID, twelve letters; signature is EAX of leaf 1.")
	XORL(reg.EAX, reg.EAX)
	XORL(reg.ECX, reg.ECX)
	CPUID()
	for i, r := range []Op{reg.EBX, reg.EDX, reg.ECX} {
		m, err := ReturnIndex(0).Index(i).Resolve()
		if err != nil {
			panic(err)
		}
		MOVL(r, m.Addr)
	}
	MOVL(U32(1), reg.EAX)
	XORL(reg.ECX, reg.ECX)
	CPUID()
	m, err := ReturnIndex(1).Resolve()
	if err != nil {
		panic(err)
	}
	MOVL(reg.EAX, m.Addr)
	RET()
}
