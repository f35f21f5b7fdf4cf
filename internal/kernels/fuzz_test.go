package kernels

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"sibyl/precision"
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
	// One token and blocks of 64 columns: pairs of float32 (gen/pair.go), which 0x36 weights as binary16 do not all hold.
	f.Add(slices.Repeat([]byte{0x81, 0x3d, 7, 0xbc, 0x85, 0x36}, 43), slices.Repeat([]byte{0xcd, 0xcc, 0x4c, 0x3e, 1, 2, 0x80, 0xbf}, 64), uint8(2), uint8(8), uint8(0))
	f.Add(slices.Repeat([]byte{0x81, 0x3d, 7, 0xbc, 0x85, 0x36}, 43), slices.Repeat([]byte{0xcd, 0xcc, 0x4c, 0x3e, 1, 2, 0x80, 0xbf}, 64), uint8(4), uint8(7), uint8(0))
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
				if c.abs[i] < math.MaxFloat32/2 && !within(got, c.want[i], c.fastBound(i), &worst) {
					t.Fatalf("%v, fast, %v: [%d] = %x, want %x within %g", l, c, i, got, c.want[i], c.fastBound(i))
				}
			}
			one := make([]float32, R)
			if run(NewPool(1), one, x[:m.Cols], 1, m); l == NoAsm {
				return
			}
			for i, got := range c.run(t, *linearAloneKernel.variants[l]) { // every token is the same
				if !same(got, one[i%R]) {
					t.Fatalf("%v, rows alone, %v: [%d] = %x, by itself %x", l, c, i, got, one[i%R])
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
		fuzzElementwise(t, x, y, equal)
		top, nan := Max(x)
		if want, bad := maxGo(x); nan != bad || !nan && top != want {
			t.Fatalf("max %x, %v, want %x, %v", top, nan, want, bad)
		}
	})
}

// fuzzElementwise holds the sums, the conv and what works element by element to their definitions' bits.
func fuzzElementwise(t *testing.T, x, y []float32, equal func(what string, l Level, got, want []float32)) {
	others(sumExactKernel, func(l Level, run func([]float32) float32) {
		equal("sum", l, []float32{run(x)}, []float32{sumExactGo(x)})
	})
	w, win := slices.Concat(x, y, y, x), slices.Concat(y, y, x, x)
	others(convExactKernel, func(l Level, run convFunc) {
		got, want := make([]float32, len(x)), make([]float32, len(x))
		run(got, w, win)
		convExactGo(want, w, win)
		equal("conv", l, got, want)
	})
	for _, k := range []*kernel[pairFunc]{multiplyKernel, addKernel} {
		others(k, func(l Level, run pairFunc) {
			got, want := slices.Clone(x), slices.Clone(x)
			run(got, y)
			(*k.variants[NoAsm])(want, y)
			equal(k.name, l, got, want)
		})
	}
	others(gainKernel, func(l Level, run gainFunc) {
		got, want := make([]float32, len(x)), make([]float32, len(x))
		run(got, x, y, x[0])
		gainGo(want, x, y, x[0])
		equal("gain", l, got, want)
	})
	others(scaleKernel, func(l Level, run func([]float32, float32)) {
		got, want := slices.Clone(x), slices.Clone(x)
		run(got, y[0])
		scaleGo(want, y[0])
		equal("scale", l, got, want)
	})
	others(turnKernel, func(l Level, run turnFunc) {
		a, b, wantA, wantB := slices.Clone(x), slices.Clone(y), slices.Clone(x), slices.Clone(y)
		run(a, b, y, x)
		turnGo(wantA, wantB, y, x)
		equal("turn", l, a, wantA)
		equal("turn", l, b, wantB)
	})
	others(narrowF16Kernel, func(l Level, run func([]uint16, []float32)) {
		got, want := make([]uint16, len(x)), make([]uint16, len(x))
		run(got, x)
		narrowF16Go(want, x)
		if !slices.Equal(got, want) {
			t.Fatalf("narrow f16, %v, length %d: %04x, want %04x", l, len(x), got, want)
		}
		back := make([]float32, len(x))
		(*widenF16Kernel.variants[l])(back, got)
		wide := make([]float32, len(x))
		widenF16Go(wide, got)
		equal("widen f16", l, back, wide)
	})
	for _, k := range []struct {
		fast  *kernel[mapFunc]
		one   func(float32) float32
		units int // TestMapVariants
	}{{expFastKernel, precision.ExpR32, 1}, {sigmoidFastKernel, precision.SigmoidR32, 4}, {siluFastKernel, precision.SiLUR32, 4}} {
		others(k.fast, func(l Level, run mapFunc) {
			got := make([]float32, len(x))
			run(got, x)
			for i, v := range x {
				if want := k.one(v); !same(got[i], want) && unitsApart(got[i], want) > k.units {
					t.Fatalf("%s, %v, length %d: of %x: %x, want %x", k.fast.name, l, len(x), v, got[i], want)
				}
			}
		})
	}
}

// FuzzAttend: any queries, keys and values, for one row and for many. Where nothing is so large that a sum could overflow, the
// result lies within its bound; elsewhere what is finite by the definition is finite.
func FuzzAttend(f *testing.F) {
	f.Add(slices.Repeat([]byte{0, 0, 128, 63, 0, 0, 0, 191}, 20), uint8(3), uint8(5), uint8(7))
	f.Add(slices.Repeat([]byte{0xdb, 0x0f, 0x49, 0xc0, 1, 2, 3, 0x40}, 33), uint8(40), uint8(130), uint8(24))
	f.Fuzz(func(t *testing.T, b []byte, rows, visible, dim uint8) {
		x := floats(b)
		if len(x) == 0 || len(x) > 400 {
			return
		}
		small := true
		for _, v := range x {
			small = small && v-v == 0 && v < 1e6 && v > -1e6
		}
		others(attendKernel, func(l Level, run func(*Attention)) {
			a := attendCase(t, rand.New(rand.NewPCG(1, 2)), int(rows)%50+1, 4, int(dim)%70+1, int(visible)+1)
			for i, p := range [][]float32{a.Q, a.K, a.V} {
				for j := range p {
					p[j] = x[(j*(i+1)+i)%len(x)]
				}
			}
			run(a)
			if small {
				var worst float64
				a.check(t, l.String(), &worst)
				return
			}
			want := *a
			want.Out = slices.Clone(a.Out)
			attendGo(&want)
			for i, v := range want.Out {
				if isFinite(v) && v < math.MaxFloat32/4 && v > -math.MaxFloat32/4 && !isFinite(a.Out[i]) {
					t.Fatalf("%v: [%d] = %x, by the definition %x", l, i, a.Out[i], v)
				}
			}
		})
	})
}
