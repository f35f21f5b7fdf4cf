package kernels

// Elementwise operations of IEEE roundings alone: every variant has the same bits, so both arithmetics share them.

// Multiply is dst[i] *= x[i]; x has dst's length at least.
func Multiply(dst, x []float32) { multiplyKernel.run(dst, x) }

// Add is dst[i] += x[i]; x has dst's length at least.
func Add(dst, x []float32) { addKernel.run(dst, x) }

// Scale is x[i] *= r.
func Scale(x []float32, r float32) { scaleKernel.run(x, r) }

// Gain is dst[i] = float32(x[i]*r) * gain[i]: a norm's scale and gain. dst may be x.
func Gain(dst, x, gain []float32, r float32) { gainKernel.run(dst, x, gain, r) }

// Turn rotates the pairs (a[i], b[i]) by the angles of cos and sin, in place, each product and sum rounded to float32:
// the rotary embedding.
func Turn(a, b, cos, sin []float32) { turnKernel.run(a, b, cos, sin) }

func multiplyGo(dst, x []float32) {
	for i, v := range x[:len(dst)] {
		dst[i] *= v
	}
}

func addGo(dst, x []float32) {
	for i, v := range x[:len(dst)] {
		dst[i] += v
	}
}

func scaleGo(x []float32, r float32) {
	for i := range x {
		x[i] *= r
	}
}

func gainGo(dst, x, gain []float32, r float32) {
	x, gain = x[:len(dst)], gain[:len(dst)]
	for i, v := range x {
		dst[i] = float32(v*r) * gain[i]
	}
}

func turnGo(a, b, cos, sin []float32) {
	b, cos, sin = b[:len(a)], cos[:len(a)], sin[:len(a)]
	for i, x := range a {
		y := b[i]
		a[i] = float32(x*cos[i]) - float32(y*sin[i]) // float32(): not fused
		b[i] = float32(y*cos[i]) + float32(x*sin[i])
	}
}
