// Gen writes the AVX2 kernels of internal/kernels with avo. It is a module of its own, so that the product does not
// depend on avo. From internal/kernels:
//
//	go generate .
//
// writes every file again; CI does and finds no difference.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// files says which kernels go into which file: NAME_amd64.s, with stubs in stub_NAME_amd64.go.
var files = map[string]func(){
	"rows_fast": func() {
		each(formats, rowsFast)
		each(plain(), rowsTall)
		each(plain(), rowsAhead)
	},
	"rows_exact":     exact,
	"compensated":    compensated,
	"pair_512":       func() { each(pairs, pair.emit) },
	"pair_block_512": func() { each(pairQs, pairQ.emit) },
	"nibble_512":     func() { each(nibbles, nibble.emit) },
	"rows_exact_int": func() { each(rounded(), rowsExact) },
	"tile":           tiles,
	"tile_512":       tiles512,
	"vector":         vectors,
	"delta":          deltas,
	"wide_512":       wide512,
	"exp":            exps,
	"logsum_512":     logSum,
	"exp_exact_512":  func() { each(expKinds, expRounded512) },
	"round":          rounds,
	"processor":      processor,
	"unpack":         func() { each(formats, func(f format) { unpack(f, ymm) }) },
	"unpack_512":     unpacks512,
	"quick": func() {
		for _, q := range []quick{scaleI8(false), roundI8(false), exactI8(false), scaleI4(), roundI4(false), roundU4(false)} {
			q.emit()
		}
		prepares()
	},
	"quick_512": func() {
		for _, q := range []quick{scaleI8(true), roundI8(true), exactI8(true), scaleI4x16(), roundI4(true), roundU4(true)} {
			q.emit()
		}
	},
}

func main() {
	name := flag.String("file", "", "which file to write")
	flag.Parse()
	emit, ok := files[*name]
	if !ok {
		var names []string
		for n := range files {
			names = append(names, n)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "gen: -file %q: want one of %q\n", *name, names)
		os.Exit(2)
	}
	ConstraintExpr("!noasm")
	emit()
	Generate()
}

func each[T any](list []T, emit func(T)) {
	for _, f := range list {
		emit(f)
	}
}

// plain are the formats without blocks.
func plain() []format {
	return slices.DeleteFunc(slices.Clone(formats), func(f format) bool { return f.block != nil })
}

// rounded are the formats whose weights are the result of a rounding, but the one that has a way of its own (exact.go).
func rounded() []format {
	return slices.DeleteFunc(slices.Clone(formats), func(f format) bool { return f.block == nil && f.name != "F32R16" })
}

func exact() {
	for _, h := range halves {
		rowsExactHalf(h)
	}
	rowsExactF32()
}

func tiles() {
	for _, t := range []tile{
		{name: "tile32", size: 4, rows: 6, regs: 2},
		{name: "tile64", size: 8, rows: 6, regs: 2},
	} {
		t.typed().emit()
	}
	transpose8()
	widen(ymm, "widenWhole")
	round64()
}

// tiles512 are of AVX-512.
func tiles512() {
	for _, t := range []tile{
		{name: "tile32x32", size: 4, rows: 12, regs: 2, zmm: true},
		{name: "tile32x16", size: 4, rows: 12, regs: 1, zmm: true},
		{name: "tile64x16", size: 8, rows: 12, regs: 2, zmm: true},
		{name: "tile64x8", size: 8, rows: 12, regs: 1, zmm: true},
	} {
		t.typed().emit()
	}
	transpose16()
	widen(zmm, "widenAVX512")
}

// typed is t with the instructions of its numbers.
func (t tile) typed() tile {
	if t.size == 4 {
		t.move, t.all = func(a, to Op) { VMOVUPS(a, to) }, func(a, to Op) { VBROADCASTSS(a, to) }
		t.fma, t.add = func(a, b, to Op) { VFMADD231PS(a, b, to) }, func(a, b, to Op) { VADDPS(a, b, to) }
	} else {
		t.move, t.all = func(a, to Op) { VMOVUPD(a, to) }, func(a, to Op) { VBROADCASTSD(a, to) }
		t.fma, t.add = func(a, b, to Op) { VFMADD231PD(a, b, to) }, func(a, b, to Op) { VADDPD(a, b, to) }
	}
	return t
}
