package kernels

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
)

// floats reads as many float32 as b holds.
func floats(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

// others runs f for the variants beside the definition that this machine runs.
func others[F any](k *kernel[F], f func(l Level, run F)) {
	for l, run := range k.variants {
		if run != nil && Level(l) != NoAsm && usable(Level(l)) {
			f(Level(l), *run)
		}
	}
}

// FuzzLinear: any bytes as weights of any kind and as x. Exact has the definition's bits, fast its bound where no partial
// sum can overflow.
func FuzzLinear(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 128, 191}, []byte{0, 0, 128, 63}, uint8(0), uint8(1), uint8(0))
	f.Add(slices.Repeat([]byte{0x80, 0x3f}, 64), slices.Repeat([]byte{0, 0, 128, 63}, 32), uint8(2), uint8(4), uint8(1))
	f.Add(slices.Repeat([]byte{7, 0x81}, 96), slices.Repeat([]byte{0xcd, 0xcc, 0x4c, 0x3e}, 64), uint8(6), uint8(1), uint8(5))
	f.Add(slices.Repeat([]byte{0x31, 0x2c}, 160), slices.Repeat([]byte{0, 0, 0, 0xbf}, 64), uint8(8), uint8(2), uint8(7))
	f.Fuzz(func(t *testing.T, weights, acts []byte, kindOf, rows, tokens uint8) {
		k, x := kinds()[int(kindOf)%len(kinds())], floats(acts)
		R, T := int(rows)%9+1, int(tokens)%20+1
		m := fuzzMatrix(k, R, len(x), weights)
		if m == nil {
			return
		}
		x = slices.Repeat(x, T)
		c := newLinearCase(m, x, T)
		others(linearExactKernel, func(l Level, run linearFunc) {
			for i, got := range c.run(t, run) {
				if !same(got, c.want[i]) {
					t.Fatalf("%v, exact, %v: [%d] = %x, want %x", l, c, i, got, c.want[i])
				}
			}
		})
		others(linearFastKernel, func(l Level, run linearFunc) {
			var worst float64
			for i, got := range c.run(t, run) {
				if c.abs[i] < math.MaxFloat32/2 && !within(got, c.want[i], fastBound(m.Cols, c.abs[i]), &worst) {
					t.Fatalf("%v, fast, %v: [%d] = %x, want %x within %g", l, c, i, got, c.want[i], fastBound(m.Cols, c.abs[i]))
				}
			}
		})
	})
}

// fuzzMatrix makes a matrix of b, repeated as often as it takes; nil where the format or the input has no such matrix.
func fuzzMatrix(k kind, rows, cols int, b []byte) *Matrix {
	if cols == 0 || cols > 600 || len(b) == 0 || k.f > I8Block && cols%2 != 0 {
		return nil
	}
	fill := func(n, from int) []byte {
		out := make([]byte, n)
		for i := range out {
			out[i] = b[(from+i)%len(b)]
		}
		return out
	}
	if k.f <= BF16 {
		m, _ := NewMatrix(k.f, rows, cols, fill(rows*cols*elemSize[k.f], 0), k.round)
		return m
	}
	size := blockOf(cols)
	blk := Blocks{Size: size, Axis: 1, Scale: fill(2*rows*cols/size, 1)}
	if k.f == U4Minval {
		blk.Min = fill(2*rows*cols/size, 3)
	}
	m, _ := NewQuantized(k.f, rows, cols, fill(rows*k.f.rowBytes(cols), 0), blk, k.round)
	return m
}

// FuzzVectors: any float32 through the kernels on vectors, exact ones and those of equal bits.
func FuzzVectors(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 128, 127, 1, 0, 0, 0, 0, 0, 0, 128})
	f.Add(slices.Repeat([]byte{0xdb, 0x0f, 0x49, 0xc0}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := floats(b)
		if len(x) == 0 || len(x) > 1000 {
			return
		}
		y := slices.Clone(x)
		slices.Reverse(y)
		equal := func(what string, l Level, got, want []float32) {
			for i := range got {
				if !same(got[i], want[i]) {
					t.Fatalf("%s, %v, length %d: [%d] = %x, want %x", what, l, len(x), i, got[i], want[i])
				}
			}
		}
		inPlace := func(k *kernel[func([]float32)]) {
			others(k, func(l Level, run func([]float32)) {
				got, want := slices.Clone(x), slices.Clone(x)
				run(got)
				(*k.variants[NoAsm])(want)
				equal(k.name, l, got, want)
			})
		}
		inPlace(softmaxExactKernel)
		inPlace(roundF16Kernel)
		inPlace(roundBF16Kernel)
		for _, k := range []*kernel[mapFunc]{expExactKernel, sigmoidExactKernel, siluExactKernel} {
			others(k, func(l Level, run mapFunc) {
				got, want := make([]float32, len(x)), make([]float32, len(x))
				run(got, x)
				(*k.variants[NoAsm])(want, x)
				equal(k.name, l, got, want)
			})
		}
		others(dotExactKernel, func(l Level, run dotFunc) {
			equal("dot", l, []float32{run(x, y)}, []float32{dotExactGo(x, y)})
		})
		others(rmsExactKernel, func(l Level, run rmsFunc) {
			equal("rms", l, []float32{run(x, 1e-6)}, []float32{invRMSExactGo(x, 1e-6)})
		})
		others(deltaExactKernel, func(l Level, run deltaFunc) {
			dv := len(x)
			S, want := slices.Concat(x, y), slices.Concat(x, y) // dk = 2
			out, wantOut := make([]float32, dv), make([]float32, dv)
			k, q := []float32{x[0], y[0]}, []float32{y[0], 0.5}
			run(S, q, k, x, out, 0.75, x[0], make([]float64, 2*dv))
			deltaStepExactGo(want, q, k, x, wantOut, 0.75, x[0], make([]float64, 2*dv))
			equal("delta S", l, S, want)
			equal("delta out", l, out, wantOut)
		})
		top, nan := Max(x)
		if want, bad := maxGo(x); nan != bad || !nan && top != want {
			t.Fatalf("max %x, %v, want %x, %v", top, nan, want, bad)
		}
	})
}
