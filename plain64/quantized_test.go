package plain64

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"testing"

	"sibyl/bundle"
	"sibyl/internal/kernels"
	"sibyl/precision"
	"sibyl/quant"
)

// TestNearest: every binary16 and bfloat16 value stays, and the points half way between go to the even one.
func TestNearest(t *testing.T) {
	t.Parallel()
	for h := range 0xffff {
		for _, f := range []struct {
			name  string
			widen func(uint16) float64
			round func(float64) float64
			inf   int
		}{{"half", halfToFloat, toHalf, 0x7c00}, {"brain", brainToFloat, toBrain, 0x7f80}} {
			if h&0x7fff >= f.inf {
				continue // Inf and NaN
			}
			x, next := f.widen(uint16(h)), f.widen(uint16(h+1))
			if got := f.round(x); got != x {
				t.Errorf("%s %x becomes %x", f.name, x, got)
			}
			want := x
			if h%2 == 1 {
				want = next
			}
			if math.IsInf(next, 0) {
				continue // the next two lines
			}
			if got := f.round((x + next) / 2); got != want {
				t.Errorf("%s: half way from %x to %x is %x, want %x", f.name, x, next, got, want)
			}
		}
	}
	if toHalf(65519) != 65504 || !math.IsInf(toHalf(-65520), -1) || !math.IsNaN(toHalf(math.NaN())) {
		t.Errorf("65519, -65520 and NaN become %v, %v, %v", toHalf(65519), toHalf(-65520), toHalf(math.NaN()))
	}
}

// TestDequantize: weights of a quantized checkpoint are those that the kernels read, value for value, though the two
// share no code. This test alone knows both.
func TestDequantize(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"int8hu-sym", "int4lin", "u4-minval"} {
		s, _ := quant.Lookup(name)
		src, err := bundle.Open("")
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		dir := filepath.Join(t.TempDir(), name)
		if _, err := quant.Write(t.Context(), src, s, dir, quant.Options{}); err != nil {
			t.Fatal(err)
		}
		ck, err := bundle.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer ck.Close()
		formats := map[string]kernels.Format{"int8": kernels.I8Block, "int4": kernels.I4Block, "u4-minval": kernels.U4Minval}
		for _, x := range ck.Quantization().Tensors {
			q := x.Quant
			m, err := kernels.NewQuantized(formats[q.Format], x.Shape[0], x.Shape[1], x.Data, kernels.Blocks{Size: q.Block, Axis: q.Axis, Scale: q.Scale, Min: q.Min}, precision.F32)
			if err != nil {
				t.Fatal(err)
			}
			want := m.Floats()
			for i, got := range widen(x, 3, len(want)) {
				if got != float64(want[i+3]) {
					t.Fatalf("%s %s [%d] = %x, the kernels read %x", name, x.Name, i+3, got, want[i+3])
				}
			}
		}
	}
	// Blocks along the output, by hand: rows 0 and 1 share a scale a column, of 1 and 2; rows 2 and 3 of 4 and 8.
	x := bundle.Tensor{Shape: []int{4, 2}, Data: []byte{1, 1, 2, 2, 1, 1, 0xff, 2}, Quant: &bundle.Quantized{Format: "int8", Block: 2, Axis: 0,
		Scale: binary.LittleEndian.AppendUint64(nil, 0x4800_4400_4000_3c00)}}
	for i, want := range []float64{1, 2, 2, 4, 4, 8, -4, 16} {
		if got := widen(x, 0, 8)[i]; got != want {
			t.Errorf("blocks along the output: [%d] = %v, want %v", i, got, want)
		}
	}
}
