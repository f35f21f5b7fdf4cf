package aicode

import (
	"errors"
	"strings"
	"testing"

	"sibyl/internal/inputerr"
	"sibyl/internal/mlirb"
)

// one is a sound file: main gives one constant.
func one(edit func(a *assembly, c int)) []byte {
	a := newAssembly()
	c := a.tensor(0, 2)
	a.constant(c, 0, 0x3c, 0, 0x40)
	if edit != nil {
		edit(a, c)
	}
	a.op("dataflow.output_v1", -1, nil, []int{0})
	return a.file(a.graph(c))
}

func TestAssembled(t *testing.T) {
	p, err := Decode(one(nil), "one")
	if err != nil {
		t.Fatal(err)
	}
	k := p.Graph("main").Body.Ops[0].Const
	if v, ok := k.Floats(); !ok || len(v) != 2 || v[0] != 1 || v[1] != 2 {
		t.Errorf("constant %v, want 1 and 2", v)
	}
	if k.Type.String() != "f16[2]" {
		t.Errorf("type %s, want f16[2]", k.Type)
	}
}

// TestBad: files that nobody's exporter writes, each refused with a fault that says what and where.
func TestBad(t *testing.T) {
	resource := func(a *assembly, key string, b ...byte) {
		a.keys, a.blobs = append(a.keys, key), append(a.blobs, b)
	}
	for _, tt := range []struct {
		name, why string
		in        []byte
		want      string
		unknown   bool
		listed    int
	}{
		{"other-dialect", "another compiler's file", one(func(a *assembly, _ int) { a.dialect = "stablehlo"; resource(a, "w", 1, 2) }),
			`found dialect "stablehlo", want aicode, version 05; a newer version of sibyl may know it`, true, 1},
		{"other-version", "a newer exporter", one(func(a *assembly, _ int) { a.version = 6; resource(a, "w", 1, 2) }), "found aicode, version 06, want aicode, version 05", true, 1},
		{"type-code", "a type of a newer dialect", one(func(a *assembly, _ int) { resource(a, "w", 1); a.constant(a.tensor(a.typ(num(60)), 1), 0) }), "found type code 60", true, 1},
		{"attribute-code", "an attribute of a newer dialect", one(func(a *assembly, c int) {
			a.op("primitive.constant_v1", add(&a.props, num(a.attr(num(61)))), []int{c}, nil)
		}),
			"found attribute code 61", true, 0},
		{"properties", "an operation whose properties nobody knows", one(func(a *assembly, c int) { a.op("primitive.new_v1", add(&a.props, num(0)), []int{c}, nil) }),
			"primitive.new_v1, byte", true, 0},
		{"length", "dtype and length disagree", one(func(a *assembly, c int) { a.constant(c, 0, 0, 0) }), "found 3 bytes for f16[2], want 4", false, 0},
		{"resource-length", "dtype and length of a blob disagree", one(func(a *assembly, c int) {
			resource(a, "w", 1, 2, 3)
			a.op("primitive.constant_v1", add(&a.props, num(a.attr(num(7), num(0)))), []int{c}, nil)
		}), "found 3 bytes for f16[2], want 4", false, 1},
		{"resource-number", "a constant of a resource that is not there", one(func(a *assembly, c int) {
			a.op("primitive.constant_v1", add(&a.props, num(a.attr(num(7), num(3)))), []int{c}, nil)
		}), "found resource 3, want one of the file's 0", false, 0},
		{"dynamic-constant", "a constant whose size nobody knows", one(func(a *assembly, _ int) {
			d := a.typ(append([]byte{num(2), num(1), 0, 255, 255, 255, 255, 255, 255, 255, 255}, num(0))...)
			a.constant(d, 0, 0)
		}), "found elements of type f16[?], want a tensor whose size is known", false, 0},
		{"huge", "a product of dimensions beyond int64", one(func(a *assembly, _ int) {
			d := []byte{num(2), num(4)}
			for range 4 {
				d = append(d, varint(1<<33)...)
			}
			a.constant(a.typ(append(d, num(0))...), 0, 0)
		}), "want a tensor whose size is known", false, 0},
		{"negative", "a dimension below 0 that is no dynamic one", one(func(a *assembly, _ int) { a.constant(a.typ(num(2), num(1), num(1), num(0)), 0, 0) }), "found a dimension of -1", false, 0},
		{"cycle", "an operation that uses its own result", one(func(a *assembly, c int) { a.op("primitive.add_v1", -1, []int{c}, []int{1, 0}) }),
			"operand 0, value 1, which is defined later, want one that is defined before: this is a cycle", false, 0},
		{"type-cycle", "a tensor of itself", one(func(a *assembly, _ int) { a.constant(a.typ(num(2), num(0), num(len(a.types))), 0) }), "types nested deeper", false, 0},
		{"call-nobody", "a call of a graph that is not there", one(func(a *assembly, c int) {
			a.op("dataflow.invoke_v1", add(&a.props, num(0), num(a.attr(num(14), num(1), num(a.str("ghost")))), num(0)), []int{c}, nil)
		}), `found a call of "ghost", want a graph of the file`, false, 0},
		{"call-itself", "a graph that calls itself", one(func(a *assembly, c int) {
			a.op("dataflow.invoke_v1", add(&a.props, num(0), num(a.attr(num(14), num(1), num(a.str("main")))), num(0)), []int{c}, nil)
		}), `found a call of "main" from within it, want no cycle of calls`, false, 0},
		{"two-mains", "two functions of one name", func() []byte {
			a := newAssembly()
			c := a.tensor(0, 2)
			a.constant(c, 0, 0x3c, 0, 0x40)
			a.op("dataflow.output_v1", -1, nil, []int{0})
			return a.file(a.graph(c), a.graph(c))
		}(), `found a second graph named "main", want each name once`, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Decode(tt.in, "file")
			var e *inputerr.Error
			var fault *mlirb.Fault
			if !errors.As(err, &e) || !errors.As(err, &fault) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v\nwant %s\nwhy: %s", err, tt.want, tt.why)
			}
			if IsUnknown(err) != tt.unknown {
				t.Errorf("%v: unknown %v, want %v", err, IsUnknown(err), tt.unknown)
			}
			if len(p.Resources) != tt.listed {
				t.Errorf("%d resources listed, want %d", len(p.Resources), tt.listed)
			}
		})
	}
}

// TestQuantizedBad: quantized weights whose parts do not fit.
func TestQuantizedBad(t *testing.T) {
	for _, tt := range []struct {
		name string
		dims []int
		want string
	}{
		{"fits", []int{2, 2}, ""},
		{"scale-divides-not", []int{2, 3}, "found a scale of shape [2,3] for data of shape [2,4], want one that divides it"},
		{"rank", []int{2}, "want 2 axes, as the data has"},
	} {
		a := newAssembly()
		q, s, z := a.tensor(1, 2, 4), a.tensor(0, tt.dims...), a.tensor(1, tt.dims...)
		n := 1
		for _, d := range tt.dims {
			n *= d
		}
		a.constant(q, make([]byte, 8)...)
		a.constant(s, make([]byte, 2*n)...)
		a.constant(z, make([]byte, n)...)
		a.constant(s, make([]byte, 2*n)...)
		y := a.tensor(0, 2, 4)
		a.op(OpBlockwise, -1, []int{y}, []int{0, 1, 2, 3})
		a.op("dataflow.output_v1", -1, nil, []int{4})
		p, err := Decode(a.file(a.graph(y)), tt.name)
		if err != nil {
			t.Fatal(err)
		}
		w, err := p.Graph("main").Body.Ops[4].Quantized()
		switch {
		case tt.want == "" && (err != nil || w == nil || w.Block[0] != 1 || w.Block[1] != 2):
			t.Errorf("%s: %v, %v; want blocks of 1 x 2", tt.name, w, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// TestElements: bits of every width by hand.
func TestElements(t *testing.T) {
	k := func(e Kind, n int64, data ...byte) *Const {
		return &Const{Type: &Type{Kind: Tensor, Elem: e, Dims: []int64{n}}, Data: data}
	}
	for _, tt := range []struct {
		name string
		k    *Const
		want []int64
	}{
		{"i4: the low nibble is the even element", k(I4, 3, 0x7d, 0x08), []int64{-3, 7, -8}},
		{"u4", k(U4, 4, 0x7d, 0xf0), []int64{13, 7, 0, 15}},
		{"i8", k(I8, 2, 0x80, 0x7f), []int64{-128, 127}},
		{"u8", k(U8, 2, 0x80, 0x7f), []int64{128, 127}},
		{"u1", k(U1, 9, 0x05, 0x01), []int64{1, 0, 1, 0, 0, 0, 0, 0, 1}},
		{"i16", k(I16, 1, 0xfe, 0xff), []int64{-2}},
		{"u32", k(U32, 1, 1, 0, 0, 0x80), []int64{0x80000001}},
		{"i64", k(I64, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), []int64{-1}},
		{"bool", k(Bool, 2, 1, 0), []int64{1, 0}},
	} {
		got, ok := tt.k.Ints()
		if !ok || len(got) != len(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			continue
		}
		lo, hi := tt.want[0], tt.want[0]
		for i := range got {
			lo, hi = min(lo, tt.want[i]), max(hi, tt.want[i])
			if got[i] != tt.want[i] {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			}
		}
		if a, b := tt.k.Range(); a != lo || b != hi {
			t.Errorf("%s: range %d..%d, want %d..%d", tt.name, a, b, lo, hi)
		}
	}
	splat := k(F32, 1000, 0, 0, 0x80, 0x3f)
	splat.Splat = true
	if v, ok := splat.Floats(); !ok || len(v) != 1000 || v[999] != 1 {
		t.Errorf("splat: %v", v)
	}
}

// TestSet: what Set writes Bits reads, and no neighbour changes.
func TestSet(t *testing.T) {
	for _, e := range []Kind{U1, U2, I4, U4, I8, F16, F32, I64} {
		k := &Const{Type: &Type{Kind: Tensor, Elem: e, Dims: []int64{9}}, Data: make([]byte, 9*8)}
		mask := uint64(1)<<e.Bits() - 1
		for i := range int64(9) {
			k.Set(k.Data, i, uint64(i*0x9e3779b97f4a7c1)&mask)
		}
		k.Set(k.Data, 4, mask)
		k.Set(k.Data, 4, 0)
		for i := range int64(9) {
			want := uint64(i*0x9e3779b97f4a7c1) & mask
			if i == 4 {
				want = 0
			}
			if got := k.Bits(i); got != want {
				t.Errorf("%s element %d: %#x, want %#x", e, i, got, want)
			}
		}
	}
}

// TestPalette: indices of 4 bits into 16 values, as one group; and parts that do not fit.
func TestPalette(t *testing.T) {
	for _, tt := range []struct {
		name string
		dims []int // of the palette
		want string
	}{
		{"fits", []int{1, 1, 16, 1}, ""},
		{"rank", []int{16}, "want floats of [groups per axis..., 2^bits, 1]"},
		{"entries", []int{1, 1, 8, 1}, "found 8 values for indices of 4 bits, want 16"},
		{"groups", []int{3, 1, 16, 1}, "found a palette of f16[3,1,16,1] for indices of [2,4], want groups that divide them"},
	} {
		a := newAssembly()
		u4, si16 := a.typ(num(27)), a.typ(num(19))
		idx, lut, axis := a.tensor(u4, 2, 4), a.tensor(0, tt.dims...), a.tensor(si16)
		n := 1
		for _, d := range tt.dims {
			n *= d
		}
		a.constant(idx, 0x10, 0x32, 0x54, 0xf6)
		a.constant(lut, make([]byte, 2*n)...)
		a.constant(axis, 0, 0)
		y := a.tensor(0, 2, 4)
		a.op(OpPalette, -1, []int{y}, []int{0, 1, 2})
		a.op("dataflow.output_v1", -1, nil, []int{3})
		p, err := Decode(a.file(a.graph(y)), tt.name)
		if err != nil {
			t.Fatal(err)
		}
		q, err := p.Graph("main").Body.Ops[3].Quantized()
		switch {
		case tt.want == "" && (err != nil || q == nil || q.Scheme(0, 15) != "palette" || q.Data.Int(7) != 15 || q.Axis != 0):
			t.Errorf("%s: %+v, %v", tt.name, q, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}
