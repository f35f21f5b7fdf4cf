package kernels

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"sibyl/precision"
)

// stored encodes values in a format and gives back what the format holds.
func stored(f Format, v []float32) []byte {
	var b []byte
	for _, x := range v {
		switch f {
		case F32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		case F16:
			b = binary.LittleEndian.AppendUint16(b, precision.F32ToF16(x))
		case BF16:
			b = binary.LittleEndian.AppendUint16(b, precision.F32ToBF16(x))
		}
	}
	return b
}

// wideDot is the reference: the exact sum in wide arithmetic, rounded once.
func wideDot(w, x []float32) (sum float32, abs float64) {
	s := new(big.Float).SetPrec(900)
	for i := range w {
		p := float64(w[i]) * float64(x[i])
		abs += math.Abs(p)
		s.Add(s, new(big.Float).SetPrec(900).SetFloat64(p))
	}
	r, _ := s.Float32()
	return r, abs
}

func TestLinear(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(11, 12))
	for _, f := range []Format{F32, F16, BF16} {
		for _, cols := range []int{1, 2, 3, 7, 8, 9, 31, 96, 257} {
			for _, shape := range [][2]int{{1, 1}, {1, 2}, {3, 5}, {2, 4}, {65, 3}} {
				tokens, rows := shape[0], shape[1]
				w, x := make([]float32, rows*cols), make([]float32, tokens*cols)
				for i := range w {
					w[i] = float32(r.NormFloat64() * math.Exp(r.NormFloat64()))
				}
				for i := range x {
					x[i] = float32(r.NormFloat64())
				}
				m, err := NewMatrix(f, rows, cols, stored(f, w), precision.F32)
				if err != nil {
					t.Fatal(err)
				}
				held := m.Floats()
				for _, a := range []*Arith{Exact, Fast} {
					out := make([]float32, tokens*rows+1)
					out[tokens*rows] = 12345 // sentinel
					a.Linear(NewPool(2), out, x, tokens, m)
					if out[tokens*rows] != 12345 {
						t.Fatalf("%s %v [%d, %d] x %d writes past the end", a.Name, f, rows, cols, tokens)
					}
					for k := range tokens {
						for o := range rows {
							got := out[k*rows+o]
							want, abs := wideDot(held[o*cols:][:cols], x[k*cols:][:cols])
							if a == Exact && got != want {
								t.Fatalf("exact %v [%d, %d] token %d row %d: %x, want %x", f, rows, cols, k, o, got, want)
							}
							if d := math.Abs(float64(got) - float64(want)); d > 1.01*float64(cols+1)*0x1p-24*abs {
								t.Fatalf("fast %v [%d, %d] token %d row %d: off by %g, sum|wx| %g", f, rows, cols, k, o, d, abs)
							}
						}
					}
				}
			}
		}
	}
}

// TestExactDecides: sums built to lie within a float64 error of a float32 tie.
func TestExactDecides(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(21, 22))
	for i := range 400 {
		n := 4 + r.IntN(60)
		w, x := make([]float32, n), make([]float32, n)
		for j := 0; j+3 < n; j += 2 { // pairs that cancel
			w[j], x[j] = float32(r.NormFloat64()*1e6), float32(r.NormFloat64())
			w[j+1], x[j+1] = -w[j], x[j]
		}
		w[n-2], x[n-2] = 1+0x1p-23*float32(r.IntN(4)), 1
		w[n-1], x[n-1] = 0x1p-12, 0x1p-12*float32(1-2*(i&1)) // half a unit of the last: a tie
		r.Shuffle(n, func(a, b int) { w[a], w[b] = w[b], w[a]; x[a], x[b] = x[b], x[a] })
		want, _ := wideDot(w, x)
		m, err := NewMatrix(F32, 1, n, stored(F32, w), precision.F32)
		if err != nil {
			t.Fatal(err)
		}
		one, two := make([]float32, 1), make([]float32, 2) // one token and more have a loop each
		linearExact(NewPool(1), one, x, 1, m)
		linearExact(NewPool(1), two, append(slices.Clone(x), x...), 2, m)
		if d := dotExact(w, x); d != want || one[0] != want || two[0] != want || two[1] != want {
			t.Fatalf("case %d: dot %x, linear %x and %x, want %x", i, d, one[0], two, want)
		}
		col := make([]float32, 1)
		if weightedRowsExact(col, w, x, 1); col[0] != want {
			t.Fatalf("case %d: weighted rows %x, want %x", i, col[0], want)
		}
	}
}

// TestF16Specials: subnormals, infinities and NaN among the weights.
func TestF16Specials(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		w    []float32
		want float32
	}{
		{"subnormal", []float32{0x1p-24, 0, 0, 0, 0x1.8p-20}, 0x1p-24 + 0x1.8p-20},
		{"largest", []float32{65504, -65504, 65504, 0}, 65504},
		{"infinity", []float32{1, float32(math.Inf(1)), 2}, float32(math.Inf(1))},
		{"nan", []float32{1, 2, 3, 4, float32(math.NaN())}, float32(math.NaN())},
	} {
		x := make([]float32, len(tc.w))
		for i := range x {
			x[i] = 1
		}
		m, err := NewMatrix(F16, 1, len(x), stored(F16, tc.w), precision.F32)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]float32, 1)
		gemvFast(NewPool(1), out, x, m)
		if out[0] != tc.want && (out[0] == out[0] || tc.want == tc.want) {
			t.Errorf("%s: %g, want %g", tc.name, out[0], tc.want)
		}
	}
}

func TestMatrixRoundsOnRead(t *testing.T) {
	t.Parallel()
	v := []float32{1.00390625, 3.0517578125e-05, 70000, -1e-9}
	m, err := NewMatrix(BF16, 1, 4, stored(BF16, v), precision.F16)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range m.Floats() {
		if want := precision.F16.Value(precision.BF16.Value(v[i])); got != want {
			t.Errorf("%g read as %g, want %g", v[i], got, want)
		}
	}
}
