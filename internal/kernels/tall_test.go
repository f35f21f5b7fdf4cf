//go:build amd64 && !noasm

package kernels

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// tallOf is the product of m, whole groups of rows and whole rounds of columns, with x by its kernel for long rows.
func tallOf(t *testing.T, m *Matrix, x []float32) []float32 {
	t.Helper()
	out := guarded[float32](t, m.Rows, true)
	var a rowsArgs
	a.point(m, 0, 0, m.Cols)
	a.x, a.dst, a.rows = unsafe.Pointer(unsafe.SliceData(x)), unsafe.Pointer(&out[0]), m.Rows
	a.call(m.rowsKernel().tall)
	return out
}

// hasTall says whether m is one for tallOf.
func hasTall(m *Matrix) bool {
	k := m.rowsKernel()
	return k != nil && k.tall != nil && m.Rows%tallRows == 0 && m.Cols%16 == 0
}

func checkTall(t *testing.T, c *linearCase) {
	t.Helper()
	var worst float64
	for i, got := range tallOf(t, c.w, c.x) {
		if !within(got, c.want[i], c.fastBound(i), &worst) {
			t.Fatalf("%v: [%d] = %x, want %x within %g", c, i, got, c.want[i], c.fastBound(i))
		}
	}
}

// TestTallRows: the kernels for long rows keep the bound of every fast product, between guard pages, at any length.
func TestTallRows(t *testing.T) {
	if !usable(AVX2) {
		t.Skip("needs AVX2")
	}
	r := rand.New(rand.NewPCG(77, 1))
	tried := 0
	for _, special := range []int{0, 40} {
		for _, k := range kinds() {
			for n := 16; n <= 272; n += 16 {
				m := storedMatrix(t, r, k, tallRows*(1+n/16%3), n, special)
				if !hasTall(m) {
					continue
				}
				x := guarded[float32](t, n, n%32 == 0)
				fill(r, x, special*4)
				checkTall(t, newLinearCase(m, x, 1))
				tried++
			}
		}
	}
	if tried < 100 {
		t.Fatalf("only %d products were tried", tried)
	}
}

// TestTallLinear: products whose rows are long take them, with rows and columns left over.
func TestTallLinear(t *testing.T) {
	r := rand.New(rand.NewPCG(77, 2))
	for _, k := range kinds() {
		for i, tokens := range []int{1, 3} {
			cols := tallCols + 2 + 15*i
			if k.f > BF16 {
				continue
			}
			x := guarded[float32](t, tokens*cols, true)
			fill(r, x, 0)
			c := newLinearCase(storedMatrix(t, r, k, 19, cols, 0), x, tokens)
			bothWays(t, func() {
				variants(t, linearFastKernel, func(t *testing.T, run func(*Pool, []float32, []float32, int, *Matrix)) {
					var worst float64
					for i, got := range c.run(t, run) {
						if !within(got, c.want[i], c.fastBound(i), &worst) {
							t.Fatalf("%v: [%d] = %x, want %x within %g", c, i, got, c.want[i], c.fastBound(i))
						}
					}
				})
			})
		}
	}
}

// TestLongAlone: nor do rows of weights that are long enough for the kernels of this file depend on the tokens beside a token, on
// threads, or on how loops are parted.
func TestLongAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(77, 4))
	for _, k := range kinds() {
		if k.f > BF16 {
			continue
		}
		for _, rows := range []int{997, 1024} {
			const tokens, cols = 3, tallCols + 70
			x := guarded[float32](t, tokens*cols, true)
			fill(r, x, 0)
			c := newLinearCase(storedMatrix(t, r, k, rows, cols, 0), x, tokens)
			bothWays(t, func() { checkAlone(t, c) })
		}
	}
}

// bothWays runs f with streams asked for ahead, and not.
func bothWays(t *testing.T, f func()) {
	was := asksAhead
	t.Cleanup(func() { asksAhead = was })
	for _, asksAhead = range []bool{true, false} {
		f()
	}
	asksAhead = was
}

// TestRowsAhead: to ask for what lies ahead changes no bit and needs no memory there.
func TestRowsAhead(t *testing.T) {
	if !usable(AVX2) {
		t.Skip("needs AVX2")
	}
	r := rand.New(rand.NewPCG(77, 3))
	tried := 0
	for _, k := range kinds() {
		for n := 32; n <= 512; n += 32 {
			m := storedMatrix(t, r, k, 1+n/32%5, n, 0)
			rows := m.rowsKernel()
			if rows == nil || rows.ahead == nil {
				continue
			}
			x := guarded[float32](t, n, n%64 == 0)
			fill(r, x, 0)
			sums := func(run func(a *byte)) []float32 {
				out := guarded[float32](t, m.Rows, true)
				var a rowsArgs
				a.point(m, 0, 0, n)
				a.x, a.dst, a.rows = unsafe.Pointer(&x[0]), unsafe.Pointer(&out[0]), m.Rows
				a.call(run)
				return out
			}
			want := sums(rows.fast)
			for i, got := range sums(rows.ahead) {
				if math.Float32bits(got) != math.Float32bits(want[i]) {
					t.Fatalf("%v, %d columns, row %d: %x ahead, %x not", k, n, i, got, want[i])
				}
			}
			tried++
		}
	}
	if tried < 50 {
		t.Fatalf("only %d products were tried", tried)
	}
}

// FuzzTallRows: any bytes as weights and as x.
func FuzzTallRows(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 128, 191}, []byte{0, 0, 128, 63}, uint8(0), uint8(0))
	f.Add([]byte{0x80, 0x3f, 1, 0x40}, []byte{0, 0, 128, 63, 0xcd, 0xcc, 0x4c, 0x3e}, uint8(2), uint8(1))
	f.Add([]byte{7, 0x3c, 0xff, 0x81}, []byte{0, 0, 128, 63}, uint8(4), uint8(2))
	f.Fuzz(func(t *testing.T, weights, acts []byte, kindOf, groups uint8) {
		x := floats(acts)
		for len(x)%16 != 0 {
			x = append(x, x[len(x)%7%len(x)])
		}
		m := fuzzMatrix(kinds()[int(kindOf)%len(kinds())], tallRows*(1+int(groups)%3), len(x), weights)
		if m == nil || !hasTall(m) || !usable(AVX2) {
			return
		}
		c := newLinearCase(m, x, 1)
		for i := range c.abs {
			if !(c.abs[i] < 1e38) {
				return // a partial sum may overflow
			}
		}
		checkTall(t, c)
	})
}
