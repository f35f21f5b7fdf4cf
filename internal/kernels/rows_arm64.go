//go:build !noasm

package kernels

// The exact kernels of NEON give the sum of squares of each row: widening takes most of their time, in whatever form.
var (
	rowsF32     = &rowsKernel{4, 16, rowsFastF32, rowsExactF32, unpackF32, nil, 0, nil}
	rowsF16     = &rowsKernel{4, 16, rowsFastF16, rowsExactF16, unpackF16, nil, 0, nil}
	rowsBF16    = &rowsKernel{4, 16, rowsFastBF16, rowsExactBF16, unpackBF16, nil, 0, nil}
	rowsF32R16  = &rowsKernel{4, 16, rowsFastF32R16, rowsExactF32R16, unpackF32R16, nil, 0, nil}
	rowsBF16R16 = &rowsKernel{4, 16, rowsFastBF16R16, rowsExactBF16R16, unpackBF16R16, nil, 0, nil}
	rowsI8      = &rowsKernel{2, 32, rowsFastI8, rowsExactI8, unpackI8, nil, 0, nil}
	rowsI4      = &rowsKernel{2, 32, rowsFastI4, rowsExactI4, unpackI4, nil, 0, nil}
	rowsU4      = &rowsKernel{2, 32, rowsFastU4, rowsExactU4, unpackU4, nil, 0, nil}
)
