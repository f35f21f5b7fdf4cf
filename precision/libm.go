package precision

import (
	"math"
	"math/big"
	"sync"
)

// ExpLibm and LogLibm are expf and logf as glibc (2.28 and later) computes them, which a contract defined by a runtime
// that calls libm needs: they are float64 inside and within 0.51 ulp, so one value in some hundred is not the nearest
// float32. The method and its constants are S. Nagy's (ARM optimized routines, 2017): exp by a table of 2^(i/32) and a
// cubic, log by a table of 16 reciprocals and a quartic.

const expN = 32

// expTable holds 2^(i/32), each the nearest float64.
var expTable = sync.OnceValue(func() *[expN]float64 {
	t := new([expN]float64)
	step := bigNew(2)
	for range 5 { // 2^(1/32)
		step.Sqrt(step)
	}
	p := bigNew(1)
	for i := range t {
		t[i], _ = p.Float64()
		p = new(big.Float).SetPrec(bigPrec).Mul(p, step)
	}
	return t
})

// ExpLibm is glibc's expf.
func ExpLibm(x float32) float32 {
	switch {
	case x != x:
		return x
	case x > 0x1.62e42ep6: // log(2^128)
		return float32(math.Inf(1))
	case x < -0x1.9fe368p6: // log(2^-150)
		return 0
	}
	// x = (k + r) ln2 / 32, |r| <= 1/2
	z := float64(float64(x) * (0x1.71547652b82fep+0 * expN))
	k := math.RoundToEven(z)
	r := z - k
	i := int64(k)
	s := math.Ldexp(expTable()[i&(expN-1)], int(i>>5))
	const c0, c1, c2 = 0x1.c6af84b912394p-5 / expN / expN / expN, 0x1.ebfce50fac4f3p-3 / expN / expN, 0x1.62e42ff0c52d6p-1 / expN
	y := float64(c2*r) + 1
	y += float64((float64(c0*r) + c1) * float64(r*r))
	return float32(y * s)
}

// logTable holds {1/c, log c} for c near the middle of each sixteenth of [0x1.66p-1, 0x1.66p0).
var logTable = [16][2]float64{
	{0x1.661ec79f8f3bep+0, -0x1.57bf7808caadep-2}, {0x1.571ed4aaf883dp+0, -0x1.2bef0a7c06ddbp-2},
	{0x1.49539f0f010bp+0, -0x1.01eae7f513a67p-2}, {0x1.3c995b0b80385p+0, -0x1.b31d8a68224e9p-3},
	{0x1.30d190c8864a5p+0, -0x1.6574f0ac07758p-3}, {0x1.25e227b0b8eap+0, -0x1.1aa2bc79c81p-3},
	{0x1.1bb4a4a1a343fp+0, -0x1.a4e76ce8c0e5ep-4}, {0x1.12358f08ae5bap+0, -0x1.1973c5a611cccp-4},
	{0x1.0953f419900a7p+0, -0x1.252f438e10c1ep-5}, {0x1p+0, 0x0p+0},
	{0x1.e608cfd9a47acp-1, 0x1.aa5aa5df25984p-5}, {0x1.ca4b31f026aap-1, 0x1.c5e53aa362eb4p-4},
	{0x1.b2036576afce6p-1, 0x1.526e57720db08p-3}, {0x1.9c2d163a1aa2dp-1, 0x1.bc2860d22477p-3},
	{0x1.886e6037841edp-1, 0x1.1058bc8a07ee1p-2}, {0x1.767dcf5534862p-1, 0x1.4043057b6ee09p-2},
}

// LogLibm is glibc's logf.
func LogLibm(x float32) float32 {
	b := math.Float32bits(x)
	switch {
	case x == 1:
		return 0
	case x != x || x < 0:
		return float32(math.NaN())
	case x == 0:
		return float32(math.Inf(-1))
	case math.IsInf(float64(x), 1):
		return x
	case b < 0x00800000: // subnormal
		b = math.Float32bits(x*0x1p23) - 23<<23
	}
	const off = 0x3f330000
	tmp := b - off
	i := tmp >> 19 & 15
	k := int32(tmp) >> 23
	z := float64(math.Float32frombits(b - tmp&0xff800000))
	r := float64(z*logTable[i][0]) - 1
	y0 := logTable[i][1] + float64(float64(k)*0x1.62e42fefa39efp-1)
	r2 := float64(r * r)
	y := float64(0x1.5575b0be00b6ap-2*r) + -0x1.ffffef20a4123p-2
	y += float64(-0x1.00ea348b88334p-2 * r2)
	return float32(float64(y*r2) + (y0 + r))
}
