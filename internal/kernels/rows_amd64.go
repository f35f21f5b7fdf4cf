//go:build !noasm

package kernels

import (
	"math"

	"sibyl/precision"
)

var (
	rowsF32     = &rowsKernel{0, 32, rowsFastF32, rowsExactF32, unpackF32, mostF32, 0, rowsTallF32, rowsAheadF32}
	rowsF16     = &rowsKernel{0, 32, rowsFastF16, rowsExactF16, unpackF16, mostF16, 1023 - 15, rowsTallF16, rowsAheadF16}
	rowsBF16    = &rowsKernel{0, 32, rowsFastBF16, rowsExactBF16, unpackBF16, mostBF16, 1023 - 127, rowsTallBF16, rowsAheadBF16}
	rowsF32R16  = &rowsKernel{0, 32, rowsFastF32R16, rowsExactF32R16, unpackF32R16, nil, 0, rowsTallF32R16, rowsAheadF32R16}
	rowsBF16R16 = &rowsKernel{0, 32, rowsFastBF16R16, rowsExactBF16R16, unpackBF16R16, mostBF16R16, 1023 - 127, rowsTallBF16R16, rowsAheadBF16R16}
	rowsI8      = &rowsKernel{0, 32, rowsFastI8, rowsExactI8, unpackI8, nil, 0, nil, nil}
	rowsI4      = &rowsKernel{0, 32, rowsFastI4, rowsExactI4, unpackI4, nil, 0, nil, nil}
	rowsU4      = &rowsKernel{0, 32, rowsFastU4, rowsExactU4, unpackU4, nil, 0, nil, nil}
)

func mostF32(bits uint32) float64 { return float64(math.Float32frombits(bits)) }
func mostF16(bits uint32) float64 { return float64(precision.F16ToF32(uint16(bits))) }

// mostBF16R16 is at least the largest weight rounded to binary16, infinite from 65520 on.
func mostBF16R16(bits uint32) float64 {
	return float64(precision.F16.Value(precision.BF16ToF32(uint16(bits))))
}

func mostBF16(bits uint32) float64 { return float64(precision.BF16ToF32(uint16(bits))) }

func init() { asksAhead = readsBetterAsked() }

// readsBetterAsked: AMD's family 1Ah, Zen 5, and later ones; others have not been measured, or lost by it (gen/rows.go).
func readsBetterAsked() bool {
	maker, signature := processor()
	family := signature >> 8 & 0xf
	if family == 0xf {
		family += signature >> 20 & 0xff
	}
	return maker == [3]uint32{0x68747541, 0x69746e65, 0x444d4163} && family >= 0x1a // "AuthenticAMD"
}
