package kernels

import (
	"math"
	"slices"
	"strings"
	"testing"

	"sibyl/precision"
)

// TestQuantizedBytes holds the formats to values worked out by hand: byte order, nibble order, signs and roundings
// would all survive a round trip through a writer with the same mistake.
func TestQuantizedBytes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, why  string
		f          Format
		rows, cols int
		q          []byte
		b          Blocks
		want       []float32
	}{
		{"int8", "a scale per block of two; 3 * 2^-24 is a subnormal half", I8Block, 2, 4,
			[]byte{1, 0xff, 127, 0x80, 2, 0xfe, 0, 3},
			Blocks{Size: 2, Axis: 1, Scale: []byte{0x00, 0x3c, 0x00, 0x38, 0x00, 0x40, 0x01, 0x00}},
			[]float32{1, -1, 63.5, -64, 4, -4, 0, 3 * 0x1p-24}},
		{"int8-rounds", "127 * (1+2^-10) = 127.1240234375 lies between halves 127.125 and 127.0625: one rounding; 127 * 516 overflows", I8Block, 1, 2,
			[]byte{127, 127}, Blocks{Size: 1, Axis: 1, Scale: []byte{0x01, 0x3c, 0x08, 0x60}},
			[]float32{127.125, float32(math.Inf(1))}},
		{"int8-columns", "axis 0: each column has its scale, rows 0 and 1 share them, row 2 and 3 have others", I8Block, 4, 2,
			[]byte{1, 1, 2, 2, 1, 1, 0xff, 2},
			Blocks{Size: 2, Axis: 0, Scale: []byte{0x00, 0x3c, 0x00, 0x40, 0x00, 0x44, 0x00, 0x48}},
			[]float32{1, 2, 2, 4, 4, 8, -4, 16}},
		{"int4", "the even column is the low nibble, both signed", I4Block, 1, 4,
			[]byte{0x71, 0x8f}, Blocks{Size: 4, Axis: 1, Scale: []byte{0x00, 0x3c}}, []float32{1, 7, -1, -8}},
		{"u4", "unsigned, low nibble first; 15 * 0.5 - 1; minval per block", U4Minval, 1, 4,
			[]byte{0xf0, 0x21}, Blocks{Size: 2, Axis: 1, Scale: []byte{0x00, 0x3f, 0x80, 0x3f}, Min: []byte{0x80, 0xbf, 0x00, 0x00}},
			[]float32{-1, 6.5, 1, 2}},
		{"u4-two-roundings", "s = 1+2^-7, m = -(2^-1+2^-8): 3*s = 3.0234375 rounds to 3.03125 (tie to even), plus m = 2.52734375, rounds to 2.53125; one rounding of 2.51953125 would give 2.515625", U4Minval, 1, 2,
			[]byte{0x33}, Blocks{Size: 2, Axis: 1, Scale: []byte{0x81, 0x3f}, Min: []byte{0x01, 0xbf}},
			[]float32{2.53125, 2.53125}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := NewQuantized(tt.f, tt.rows, tt.cols, tt.q, tt.b, precision.F32)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Floats(); !slices.Equal(got, tt.want) {
				t.Errorf("% x with scales % x = %v, want %v\nwhy: %s", tt.q, tt.b.Scale, got, tt.want, tt.why)
			}
		})
	}
}

// quantizedExample is a matrix with every kind of byte in it.
func quantizedExample(t *testing.T, f Format, rows, cols, size, axis int) *Matrix {
	t.Helper()
	q := make([]byte, rows*f.rowBytes(cols))
	for i := range q {
		q[i] = byte(i*89 + i/7)
	}
	b := Blocks{Size: size, Axis: axis, Scale: make([]byte, 2*(rows*cols/size))}
	for i := 0; i < len(b.Scale); i += 2 {
		b.Scale[i], b.Scale[i+1] = byte(i*37), 0x3c-byte(i%3)
	}
	if f == U4Minval {
		b.Min = slices.Clone(b.Scale)
	}
	m, err := NewQuantized(f, rows, cols, q, b, precision.F32)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestQuantizedLinear: the products over a quantized matrix are those over its decoded rows, bit for bit, in both
// arithmetics, for one token and several, whole and in slices; and a contract's rounding comes after the format's.
func TestQuantizedLinear(t *testing.T) {
	t.Parallel()
	for _, f := range []Format{I8Block, I4Block, U4Minval} {
		for axis := range 2 {
			m := quantizedExample(t, f, 12, 20, 4, axis)
			plain, err := NewMatrix(F32, 12, 20, f32bytes(m.Floats()), precision.F32)
			if err != nil {
				t.Fatal(err)
			}
			for _, rows := range []int{1, 3} {
				x := make([]float32, rows*20)
				for i := range x {
					x[i] = float32(i%7) - 2.7
				}
				got, want := make([]float32, rows*12), make([]float32, rows*12)
				exactly := func(what string, a, b *Matrix) {
					t.Helper()
					Exact.Linear(NewPool(2), got, x, rows, a)
					Exact.Linear(NewPool(1), want, x, rows, b)
					if n := rows * a.Rows; !slices.Equal(got[:n], want[:n]) {
						t.Errorf("%v axis %d, %d tokens, %s: %v, decoded first %v", f, axis, rows, what, got[:n], want[:n])
					}
				}
				exactly("whole", m, plain)
				exactly("rows 4..8", m.Slice(4, 8), plain.Slice(4, 8))
				exactly("bf16 weights", m.WithRound(precision.BF16), plain.WithRound(precision.BF16))
				computed := NewComputed(12, 20, holder{m}, precision.F32)
				exactly("computed", computed, plain)
				exactly("computed, rows 4..8", computed.Slice(4, 8), plain.Slice(4, 8))
				Fast.Linear(NewPool(2), got, x, rows, m)
				for i := range want {
					var exact, sum float64
					row := plain.Floats()[i%12*20:][:20]
					for j, w := range row {
						p := float64(w) * float64(x[i/12*20+j])
						exact, sum = exact+p, sum+math.Abs(p)
					}
					// n = 20 products in any order: n u/(1-n u) sum|w x|, u = 2^-24.
					if d := math.Abs(float64(got[i]) - exact); d > 1.01*20*0x1p-24*sum {
						t.Errorf("%v axis %d fast, %d tokens: [%d] = %v, want %v", f, axis, rows, i, got[i], exact)
					}
				}
			}
			if m.Slice(0, 4).Bytes()*3 != m.Bytes() {
				t.Errorf("%v axis %d: a third of the rows takes %d of %d bytes", f, axis, m.Slice(0, 4).Bytes(), m.Bytes())
			}
		}
	}
}

type holder struct{ m *Matrix }

func (h holder) Row(dst []float32, i int) { h.m.Row(dst, i) }
func (h holder) Bytes() int64             { return h.m.Bytes() }

func f32bytes(x []float32) []byte {
	var b []byte
	for _, v := range x {
		u := math.Float32bits(v)
		b = append(b, byte(u), byte(u>>8), byte(u>>16), byte(u>>24))
	}
	return b
}

// TestScaleF16 compares the short form with precision's on every half, its neighbours and the ties around it.
func TestScaleF16(t *testing.T) {
	t.Parallel()
	for h := range 1 << 16 {
		b := math.Float32bits(precision.F16ToF32(uint16(h)))
		for _, d := range []uint32{0, 1, ^uint32(0), 0xfff, 0x1000, 0x1001, 0x1fff} {
			x := []float32{math.Float32frombits(b + d)}
			want := precision.F16.Value(x[0])
			if ScaleF16(x, 1); math.Float32bits(x[0]) != math.Float32bits(want) {
				t.Errorf("%08x becomes %x, want %x", b+d, x[0], want)
			}
		}
	}
}

// TestNewQuantizedRefuses: lengths and blocks are judged before a row is read.
func TestNewQuantizedRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		f          Format
		rows, cols int
		q          int
		b          Blocks
		want       string
	}{
		{"plain", F16, 1, 2, 4, Blocks{Size: 1, Axis: 1}, "F16 is no quantized format"},
		{"block", I8Block, 2, 5, 10, Blocks{Size: 2, Axis: 1}, "no blocks of 2 along axis 1"},
		{"block-rows", I8Block, 3, 4, 12, Blocks{Size: 2, Axis: 0}, "no blocks of 2 along axis 0"},
		{"axis", I8Block, 2, 2, 4, Blocks{Size: 2, Axis: 2}, "along axis 2"},
		{"zero", I8Block, 2, 2, 4, Blocks{Axis: 1}, "blocks of 0"},
		{"odd", I4Block, 2, 3, 3, Blocks{Size: 3, Axis: 1, Scale: make([]byte, 4)}, "3 columns do not fit"},
		{"short-q", I8Block, 2, 2, 3, Blocks{Size: 2, Axis: 1, Scale: make([]byte, 4)}, "takes 4, 4 and 0 bytes, not 3, 4 and 0"},
		{"no-minval", U4Minval, 2, 2, 2, Blocks{Size: 2, Axis: 1, Scale: make([]byte, 4)}, "takes 2, 4 and 4 bytes, not 2, 4 and 0"},
	} {
		_, err := NewQuantized(tt.f, tt.rows, tt.cols, make([]byte, tt.q), tt.b, precision.F32)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
