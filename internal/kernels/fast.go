package kernels

import (
	"encoding/binary"
	"math"
	"sync"

	"sibyl/precision"
)

// The fast arithmetic: float32 in any order, within |error| <= n u/(1-n u) sum|w*x|, u = 2^-24. Several chains a sum
// keep the pipeline full and the error well below that.

func dotFastGo(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	i := 0
	for ; i+3 < len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// dotBF16 is the row's dot product without a copy of the row: one 8-byte load holds four weights. Four chains, since
// more do not fit the registers and spill, in blocks that join a total.
func dotBF16(x []float32, p []byte) float32 {
	var sum float32
	for len(x) > rowChain {
		sum += chainBF16(x[:rowChain], p)
		x, p = x[rowChain:], p[2*rowChain:]
	}
	return sum + chainBF16(x, p)
}

// rowChain is the block of dotBF16: long enough that the calls cost nothing.
const rowChain = 512

func chainBF16(x []float32, p []byte) float32 {
	var s0, s1, s2, s3 float32
	n := len(x)
	p = p[:2*n]
	i := 0
	for ; i+7 < n; i += 8 {
		y := x[i : i+8 : i+8]
		q := p[2*i : 2*i+16 : 2*i+16]
		u := binary.LittleEndian.Uint64(q)
		s0 += math.Float32frombits(uint32(u)<<16) * y[0]
		s1 += math.Float32frombits(uint32(u)&0xffff0000) * y[1]
		s2 += math.Float32frombits(uint32(u>>32)<<16) * y[2]
		s3 += math.Float32frombits(uint32(u>>32)&0xffff0000) * y[3]
		u = binary.LittleEndian.Uint64(q[8:])
		s0 += math.Float32frombits(uint32(u)<<16) * y[4]
		s1 += math.Float32frombits(uint32(u)&0xffff0000) * y[5]
		s2 += math.Float32frombits(uint32(u>>32)<<16) * y[6]
		s3 += math.Float32frombits(uint32(u>>32)&0xffff0000) * y[7]
	}
	for ; i < n; i++ {
		s0 += precision.BF16ToF32(binary.LittleEndian.Uint16(p[2*i:])) * x[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// dotF16 is dotBF16 for binary16, by table.
func dotF16(x []float32, p []byte) float32 {
	var s0, s1, s2, s3 float32
	table := f16Table()
	n := len(x)
	p = p[:2*n]
	i := 0
	for ; i+3 < n; i += 4 {
		y := x[i : i+4 : i+4]
		u := binary.LittleEndian.Uint64(p[2*i : 2*i+8 : 2*i+8])
		s0 += table[uint16(u)] * y[0]
		s1 += table[uint16(u>>16)] * y[1]
		s2 += table[uint16(u>>32)] * y[2]
		s3 += table[uint16(u>>48)] * y[3]
	}
	for ; i < n; i++ {
		s0 += table[binary.LittleEndian.Uint16(p[2*i:])] * x[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// f16Table holds float32 of every binary16: 256 KB, which stay in the second-level cache, and one load instead of
// ten instructions an element.
var f16Table = sync.OnceValue(func() *[1 << 16]float32 {
	t := new([1 << 16]float32)
	for i := range t {
		t[i] = precision.F16ToF32(uint16(i))
	}
	return t
})

func dotF32(x []float32, p []byte) float32 {
	var s0, s1, s2, s3 float32
	n := len(x)
	p = p[:4*n]
	i := 0
	for ; i+3 < n; i += 4 {
		y := x[i : i+4 : i+4]
		q := p[4*i : 4*i+16 : 4*i+16]
		s0 += math.Float32frombits(binary.LittleEndian.Uint32(q)) * y[0]
		s1 += math.Float32frombits(binary.LittleEndian.Uint32(q[4:])) * y[1]
		s2 += math.Float32frombits(binary.LittleEndian.Uint32(q[8:])) * y[2]
		s3 += math.Float32frombits(binary.LittleEndian.Uint32(q[12:])) * y[3]
	}
	for ; i < n; i++ {
		s0 += math.Float32frombits(binary.LittleEndian.Uint32(p[4*i:])) * x[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// linearFastGo: one token reads each row straight from its stored form; more tokens share a decoded row.
func linearFastGo(p *Pool, out, x []float32, rows int, w *Matrix) {
	if rows == 1 && w.Round == precision.F32 {
		gemvFast(p, out, x, w)
		return
	}
	n, N := w.Cols, w.Rows
	p.For((N+1)/2, 2*n*rows, func(lo, hi int) {
		buf := make([]float32, 2*n)
		for o := 2 * lo; o < min(2*hi, N); o += 2 {
			two := min(2, N-o)
			w.Row(buf, o)
			w.Row(buf[n:], o+two-1)
			a, b := buf[:n], buf[n:]
			for t := 0; t < rows; t += 2 {
				t1 := min(t+1, rows-1)
				r00, r01, r10, r11 := dot2x2(a, b, x[t*n:][:n], x[t1*n:][:n])
				d, e := out[t*N+o:], out[t1*N+o:]
				d[0], e[0] = r00, r01
				if two == 2 {
					d[1], e[1] = r10, r11
				}
			}
		}
	})
}

// linearAloneGo is linearFastGo of each token by itself.
func linearAloneGo(p *Pool, out, x []float32, rows int, w *Matrix) {
	for t := range rows {
		linearFastGo(p, out[t*w.Rows:][:w.Rows], x[t*w.Cols:][:w.Cols], 1, w)
	}
}

func gemvFast(p *Pool, out, x []float32, w *Matrix) {
	n := w.Cols
	x = x[:n]
	p.For(w.Rows, n, func(lo, hi int) {
		switch w.Format {
		case F32:
			for o := lo; o < hi; o++ {
				out[o] = dotF32(x, w.Data[4*o*n:][:4*n])
			}
		case BF16:
			for o := lo; o < hi; o++ {
				out[o] = dotBF16(x, w.Data[2*o*n:][:2*n])
			}
		case F16:
			for o := lo; o < hi; o++ {
				out[o] = dotF16(x, w.Data[2*o*n:][:2*n])
			}
		default: // quantized and computed: the definition, a decoded row at a time
			row := make([]float32, n)
			for o := lo; o < hi; o++ {
				w.Row(row, o)
				out[o] = dotFastGo(row, x)
			}
		}
	})
}

// block is how many products a chain sums before it joins the total: short chains err less (Higham 4.2, blocked sums).
const block = 32

// dot2x2 is two weight rows against two tokens, in blocks of 32 products of two chains each.
func dot2x2(a, b, x, y []float32) (ax, ay, bx, by float32) {
	n := len(a)
	for lo := 0; lo < n; lo += block {
		hi := min(n, lo+block)
		p, q, r, s := tile2x2(a[lo:hi], b[lo:hi], x[lo:hi], y[lo:hi])
		ax += p
		ay += q
		bx += r
		by += s
	}
	return ax, ay, bx, by
}

func tile2x2(a, b, x, y []float32) (ax, ay, bx, by float32) {
	n := len(a)
	b, x, y = b[:n], x[:n], y[:n]
	var cx, cy, dx, dy float32
	i := 0
	for ; i+1 < n; i += 2 {
		a0, b0, x0, y0 := a[i], b[i], x[i], y[i]
		ax += a0 * x0
		ay += a0 * y0
		bx += b0 * x0
		by += b0 * y0
		a1, b1, x1, y1 := a[i+1], b[i+1], x[i+1], y[i+1]
		cx += a1 * x1
		cy += a1 * y1
		dx += b1 * x1
		dy += b1 * y1
	}
	if i < n {
		ax += a[i] * x[i]
		ay += a[i] * y[i]
		bx += b[i] * x[i]
		by += b[i] * y[i]
	}
	return ax + cx, ay + cy, bx + dx, by + dy
}

func convFastGo(out, w, x []float32) {
	C := len(out)
	clear(out)
	for len(w) > 0 {
		for c, v := range w[:C] {
			out[c] += v * x[c]
		}
		w, x = w[C:], x[C:]
	}
}

func sumFastGo(x []float32) float32 {
	var s0, s1 float32
	i := 0
	for ; i+1 < len(x); i += 2 {
		s0 += x[i]
		s1 += x[i+1]
	}
	if i < len(x) {
		s0 += x[i]
	}
	return s0 + s1
}

func weightedRowsFastGo(out, w, v []float32, stride int) {
	clear(out)
	for j, a := range w {
		row := v[j*stride:][:len(out)]
		for d, x := range row {
			out[d] += a * x
		}
	}
}

func invRMSFastGo(x []float32, eps float32) float32 {
	var s float64 // one reduction a row: float64 costs nothing here and keeps the row's scale right
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return rsqrtFast(float32(s/float64(len(x))) + eps)
}

func rsqrtFast(x float32) float32 { return float32(1 / math.Sqrt(float64(x))) }

func exp1(x float32) float32         { return float32(precision.Exp64(float64(x))) }
func sigmoid1(x float32) float32     { return float32(precision.Sigmoid64(float64(x))) }
func silu1(x float32) float32        { return float32(precision.SiLU64(float64(x))) }
func softplusFast(x float32) float32 { return float32(precision.Softplus64(float64(x))) }
func softplus3Fast(x float32) float32 {
	if x > 20 {
		return x
	}
	return float32(precision.Log64(float64(1 + exp1(x))))
}

func softmaxFastGo(x []float32) {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m || v != v {
			m = v
		}
	}
	var sum float32
	for i, v := range x {
		e := exp1(v - m)
		x[i] = e
		sum += e
	}
	inv := 1 / sum
	for i := range x {
		x[i] *= inv
	}
}

func deltaStepFastGo(S, q, k, v, out []float32, decay, beta float32, tmp []float64) {
	dv := len(v)
	clear(out)
	for d, kd := range k {
		row := S[d*dv:][:dv]
		for e, s := range row {
			s *= decay
			row[e] = s
			out[e] += s * kd
		}
	}
	delta := make([]float32, dv)
	for e := range delta {
		delta[e] = beta * (v[e] - out[e])
	}
	clear(out)
	for d, kd := range k {
		row, qd := S[d*dv:][:dv], q[d]
		for e, s := range row {
			s += kd * delta[e]
			row[e] = s
			out[e] += s * qd
		}
	}
}
