package kernels

import (
	"slices"
	"testing"

	"sibyl/precision"
)

// TestStacked: rows come from their own matrix, of other formats too, and slices of the stack are stacks.
func TestStacked(t *testing.T) {
	t.Parallel()
	plain, err := NewMatrix(BF16, 3, 4, []byte{0, 0x3f, 1, 0x3f, 2, 0x3f, 3, 0x3f, 4, 0x3f, 5, 0x3f, 6, 0x3f, 7, 0x3f, 8, 0x3f, 9, 0x3f, 10, 0x3f, 11, 0x3f}, precision.F32)
	if err != nil {
		t.Fatal(err)
	}
	quantized, err := NewQuantized(U4Minval, 2, 4, []byte{0x21, 0x43, 0x65, 0x87}, Blocks{Size: 4, Axis: 1, Scale: []byte{0x80, 0x3f, 0, 0x40}, Min: []byte{0, 0, 0x80, 0xbf}}, precision.F32)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewStacked([]*Matrix{plain.Slice(1, 2), quantized, plain.Slice(0, 1), plain.Slice(2, 3)}, precision.F32)
	if err != nil {
		t.Fatal(err)
	}
	row := func(m *Matrix, i int) []float32 {
		x := make([]float32, m.Cols)
		m.Row(x, i)
		return x
	}
	want := [][]float32{row(plain, 1), {1, 2, 3, 4}, {9, 11, 13, 15}, row(plain, 0), row(plain, 2)}
	for i, w := range want {
		if got := row(m, i); !slices.Equal(got, w) {
			t.Errorf("row %d is %v, want %v", i, got, w)
		}
	}
	part := m.Slice(1, 4)
	for i := range part.Rows {
		if got := row(part, i); !slices.Equal(got, want[i+1]) {
			t.Errorf("row %d of the slice is %v, want %v", i, got, want[i+1])
		}
	}
	if got, bytes := m.Bytes(), int64(3*8+4+8); got != bytes {
		t.Errorf("Bytes = %d, want %d", got, bytes)
	}
	narrow, err := NewMatrix(BF16, 1, 2, make([]byte, 4), precision.F32)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewStacked([]*Matrix{plain, narrow}, precision.F32); err == nil {
		t.Error("rows of two widths stack")
	}
}
