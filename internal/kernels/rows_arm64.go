//go:build !noasm

package kernels

import "unsafe"

// The exact kernels of NEON give the sum of squares of each row: widening takes most of their time, in whatever form.
var (
	rowsF32     = &rowsKernel{4, 16, rowsFastF32, rowsExactF32, eachRow(unpackF32), nil, 0, nil, nil}
	rowsF16     = &rowsKernel{4, 16, rowsFastF16, rowsExactF16, eachRow(unpackF16), nil, 0, nil, nil}
	rowsBF16    = &rowsKernel{4, 16, rowsFastBF16, rowsExactBF16, eachRow(unpackBF16), nil, 0, nil, nil}
	rowsF32R16  = &rowsKernel{4, 16, rowsFastF32R16, rowsExactF32R16, eachRow(unpackF32R16), nil, 0, nil, nil}
	rowsBF16R16 = &rowsKernel{4, 16, rowsFastBF16R16, rowsExactBF16R16, eachRow(unpackBF16R16), nil, 0, nil, nil}
	rowsI8      = &rowsKernel{2, 32, rowsFastI8, rowsExactI8, eachRow(unpackI8), nil, 0, nil, nil}
	rowsI4      = &rowsKernel{2, 32, rowsFastI4, rowsExactI4, eachRow(unpackI4), nil, 0, nil, nil}
	rowsU4      = &rowsKernel{2, 32, rowsFastU4, rowsExactU4, eachRow(unpackU4), nil, 0, nil, nil}
)

// eachRow unpacks rows one by one by what unpacks one.
func eachRow(f func(a *byte)) func(a *byte) {
	return func(p *byte) {
		a := (*rowsArgs)(unsafe.Pointer(p))
		for r := range a.rows {
			one := *a
			one.w, one.dst = unsafe.Add(a.w, r*a.wStride), unsafe.Add(a.dst, r*a.dstStride)
			if a.scale != nil {
				one.scale = unsafe.Add(a.scale, r*a.sStride)
			}
			if a.min != nil {
				one.min = unsafe.Add(a.min, r*a.sStride)
			}
			one.call(f)
		}
	}
}
