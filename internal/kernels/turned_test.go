package kernels

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"sibyl/precision"
)

// TestTurned: rows of the transpose of a stored matrix, and of a part of it, in every plain format, rounded as asked.
func TestTurned(t *testing.T) {
	t.Parallel()
	const rows, cols = 3, 2 // stored [2, 3]
	stored := []float32{1, 2.5, -3, 0.25, 1 + 0x1p-7, 6}
	want := [rows][cols]float32{{1, 0.25}, {2.5, 1 + 0x1p-7}, {-3, 6}}
	for f, encode := range map[Format]func([]byte, float32) []byte{
		F32:  func(b []byte, x float32) []byte { return binary.LittleEndian.AppendUint32(b, math.Float32bits(x)) },
		F16:  func(b []byte, x float32) []byte { return binary.LittleEndian.AppendUint16(b, precision.F32ToF16(x)) },
		BF16: func(b []byte, x float32) []byte { return binary.LittleEndian.AppendUint16(b, precision.F32ToBF16(x)) },
	} {
		var data []byte
		for _, x := range stored {
			data = encode(data, x)
		}
		m, err := NewTurned(f, rows, cols, data, precision.F32)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, cols)
		for i := range want {
			if m.Row(got, i); !slices.Equal(got, want[i][:]) {
				t.Errorf("%v row %d = %v, want %v", f, i, got, want[i])
			}
		}
		if m.Slice(1, 3).Row(got, 1); !slices.Equal(got, want[2][:]) {
			t.Errorf("%v row 1 of rows 1..3 = %v, want %v", f, got, want[2])
		}
		if m.Bytes() != int64(len(data)) {
			t.Errorf("%v: %d bytes, want %d", f, m.Bytes(), len(data))
		}
		if m.WithRound(precision.BF16).Row(got, 1); got[1] != 1+0x1p-7 || got[0] != 2.5 {
			t.Errorf("%v rounded to bf16 = %v", f, got)
		}
	}
	if _, err := NewTurned(F16, 3, 2, make([]byte, 10), precision.F32); err == nil {
		t.Error("a matrix of 10 bytes in place of 12 was taken")
	}
}
