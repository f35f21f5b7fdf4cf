package quant

import (
	"fmt"
	"math"
	"testing"

	"sibyl/internal/kernels"
	"sibyl/precision"
)

// BenchmarkLazyRow reads rows of 5120 weights as a scheme leaves them: what the first use of a scheme costs against a
// quantized checkpoint.
func BenchmarkLazyRow(b *testing.B) {
	const rows, cols = 256, 5120
	data := make([]byte, 2*rows*cols)
	for i := range rows * cols {
		h := precision.F32ToBF16(float32(math.Sin(float64(i))) * 0.03)
		data[2*i], data[2*i+1] = byte(h), byte(h>>8)
	}
	for _, name := range []string{"fp16", "int8lin", "int4lin", "u4-minval"} {
		m, err := kernels.NewMatrix(kernels.BF16, rows, cols, data, precision.F32)
		if err != nil {
			b.Fatal(err)
		}
		if m, err = scheme(b, name).Body.view(m); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%s %dx%d", name, rows, cols), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			row := make([]float32, cols)
			for b.Loop() {
				for i := range rows {
					m.Row(row, i)
				}
			}
		})
	}
}
