package aicode

import "encoding/binary"

// assembly writes a small main.mlirb by hand: what the exporter never writes can only be tested so. Numbers are PrefixVarInts of
// up to 7 bits, except where noted.
type assembly struct {
	strings  []string
	attrs    [][]byte
	types    [][]byte
	props    [][]byte
	opNames  []string
	blobs    [][]byte
	keys     []string
	dialect  string
	version  byte
	ops      []byte // the body of main's block
	numOps   int
	values   int
	mainName string
}

func num(v int) byte { return byte(v<<1 | 1) }

// varint is num for any number.
func varint(v uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{0}, v) }

func (a *assembly) str(s string) int {
	for i, x := range a.strings {
		if x == s {
			return i
		}
	}
	a.strings = append(a.strings, s)
	return len(a.strings) - 1
}

func add(list *[][]byte, b ...byte) int {
	*list = append(*list, b)
	return len(*list) - 1
}

func (a *assembly) attr(b ...byte) int { return add(&a.attrs, b...) }
func (a *assembly) typ(b ...byte) int  { return add(&a.types, b...) }

func (a *assembly) name(n string) byte {
	for i, x := range a.opNames {
		if x == n {
			return num(i)
		}
	}
	a.opNames = append(a.opNames, n)
	return num(len(a.opNames) - 1)
}

// op appends an operation to main: props < 0 for none.
func (a *assembly) op(name string, props int, results, operands []int, regions ...byte) {
	a.ops = append(a.ops, a.encode(name, props, results, operands, regions...)...)
	a.numOps++
	a.values += len(results)
}

func (a *assembly) encode(name string, props int, results, operands []int, regions ...byte) []byte {
	mask := byte(0)
	if props >= 0 {
		mask |= 0x40
	}
	if len(results) > 0 {
		mask |= 2
	}
	if len(operands) > 0 {
		mask |= 4
	}
	if len(regions) > 0 {
		mask |= 0x10
	}
	b := []byte{a.name(name), mask, num(0)}
	if props >= 0 {
		b = append(b, num(props))
	}
	for _, l := range [][]int{results, operands} {
		if len(l) > 0 {
			b = append(b, num(len(l)))
			for _, x := range l {
				b = append(b, num(x))
			}
		}
	}
	return append(b, regions...)
}

// constant appends a constant of type t with inline bytes.
func (a *assembly) constant(t int, data ...byte) {
	v := a.attr(append([]byte{num(6), 0, num(len(data))}, data...)...)
	a.op("primitive.constant_v1", add(&a.props, num(v)), []int{t}, nil)
}

func newAssembly() *assembly {
	a := &assembly{dialect: "aicode", version: 5, mainName: "main"}
	a.attr(num(46)) // 0: unit, the location of everything
	a.typ(num(7))   // 0: f16
	a.typ(num(20))  // 1: i8
	return a
}

// tensor is a type of up to 6 dimensions below 32.
func (a *assembly) tensor(elem int, dims ...int) int {
	b := []byte{num(2), num(len(dims))}
	for _, d := range dims {
		b = append(b, num(2*d))
	}
	return a.typ(append(b, num(elem))...)
}

func section(id byte, b []byte) []byte {
	return append(append([]byte{id}, varint(uint64(len(b)))...), b...)
}

// graph encodes a graph of the operations so far: no arguments, results of the given types.
func (a *assembly) graph(results ...int) []byte {
	ft := []byte{num(30), num(len(results))}
	names := []byte{num(5), num(len(results))}
	empty := a.attr(num(5), num(0))
	for _, t := range results {
		ft = append(ft, num(t))
		names = append(names, num(empty))
	}
	t := a.typ(append(ft, num(0))...)
	props := add(&a.props, num(empty), num(0), num(0), num(a.attr(num(4), num(t))), num(a.attr(num(2), num(1), num(1), 0)),
		num(a.attr(num(1), num(a.str(a.mainName)))), num(0), num(0), num(a.attr(names...)))
	block := append([]byte{num(1), num(a.values), num(a.numOps << 1)}, a.ops...)
	return a.encode("dataflow.graph_v1", props, nil, nil, append([]byte{num(1<<1 | 1)}, section(4, block)...)...)
}

// file encodes the whole: an asset with the graphs.
func (a *assembly) file(graphs ...[]byte) []byte {
	body := []byte{num(1), num(0), num(len(graphs) << 1)}
	for _, g := range graphs {
		body = append(body, g...)
	}
	asset := a.encode("serialization.asset", add(&a.props, num(0), num(0)), nil, nil, append([]byte{num(1<<1 | 1)}, section(4, body)...)...)
	ir := append([]byte{num(1 << 1)}, asset...)

	dialect := []byte{num(1), num(a.str(a.dialect)<<1 | 1)}
	dialect = append(append(dialect, section(7, []byte{a.version})...), num(len(a.opNames)), num(0), num(len(a.opNames)))
	for _, n := range a.opNames {
		dialect = append(dialect, varint(uint64(a.str(n)<<1|1))...)
	}
	offsets, entries := []byte{num(len(a.attrs)), num(len(a.types))}, []byte{}
	for _, list := range [][][]byte{a.attrs, a.types} {
		offsets = append(offsets, num(0), num(len(list)))
		for _, e := range list {
			offsets = append(offsets, varint(uint64(len(e)<<1|1))...)
			entries = append(entries, e...)
		}
	}
	props := []byte{num(len(a.props))}
	for _, p := range a.props {
		props = append(append(props, num(len(p))), p...)
	}
	return a.sections(dialect, entries, offsets, ir, props)
}

func (a *assembly) sections(dialect, entries, offsets, ir, props []byte) []byte {
	out := []byte("ML\xefR\x0dtest\x00")
	out = append(out, section(1, dialect)...)
	out = append(out, section(2, entries)...)
	out = append(out, section(3, offsets)...)
	out = append(out, section(4, ir)...)
	if len(a.blobs) > 0 {
		res, off := []byte{}, []byte{num(0), num(0), num(len(a.blobs))}
		for i, b := range a.blobs {
			e := append([]byte{num(1), num(len(b))}, b...)
			res = append(res, e...)
			off = append(off, num(a.str(a.keys[i])), num(len(e)), 0)
		}
		out = append(out, section(5, res)...)
		out = append(out, section(6, off)...)
	}
	str := []byte{num(len(a.strings))}
	for i := len(a.strings) - 1; i >= 0; i-- {
		str = append(str, num(len(a.strings[i])+1))
	}
	for _, s := range a.strings {
		str = append(append(str, s...), 0)
	}
	return append(append(out, section(0, str)...), section(8, props)...)
}
