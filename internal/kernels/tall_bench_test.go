//go:build amd64 && unix && !noasm

package kernels

import (
	"fmt"
	"testing"
	"unsafe"
)

// BenchmarkTall is rows of so many columns beyond the last-level cache, one at a time, asked for ahead or not, and eight, in GB/s.
func BenchmarkTall(b *testing.B) {
	for _, cols := range []int{2048, 4096, 6144, 12288} {
		k := *rowsBF16
		ms := benchMatrices(b, BF16, 0, 1024, cols)
		x, out := benchVector(cols), make([]float32, 1024)
		for name, run := range map[string]func(a *byte){"one": k.fast, "ahead": k.ahead, "eight": k.tall} {
			b.Run(fmt.Sprintf("%d/%s", cols, name), func(b *testing.B) {
				i := 0
				for b.Loop() {
					var a rowsArgs
					a.point(ms[i%len(ms)], 0, 0, cols)
					a.x, a.dst, a.rows = unsafe.Pointer(&x[0]), unsafe.Pointer(&out[0]), 1024
					a.call(run)
					i++
				}
				b.ReportMetric(float64(2*1024*cols)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkDecide is a sum that float64 does not decide, and all of its definition.
func BenchmarkDecide(b *testing.B) {
	w, x := benchVector(2048), benchVector(2048)
	for name, f := range map[string]func(w, x []float32) float32{"decide": decide, "dot": dotExactGo} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f(w, x)
			}
		})
	}
}
