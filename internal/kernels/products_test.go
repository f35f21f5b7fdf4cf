package kernels

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestProducts: products of one x with several weights, of any forms and numbers of rows, have the bits of each by itself.
func TestProducts(t *testing.T) {
	for _, k := range []struct {
		one  *kernel[linearFunc]
		many *kernel[linearsFunc]
	}{{linearFastKernel, linearsFastKernel}, {linearExactKernel, linearsExactKernel}} {
		for l, many := range k.many.variants {
			if many == nil || !usable(Level(l)) {
				continue
			}
			t.Run(k.many.name+"/"+Level(l).String(), func(t *testing.T) {
				r := rand.New(rand.NewPCG(41, uint64(l)))
				i := 0
				for _, n := range []int{32, 64, 320, 544} {
					for _, tokens := range []int{1, 4, 5, 7, 40, 130} {
						var products, want []Product
						x := make([]float32, n*tokens)
						fill(r, x, 200)
						for _, rows := range []int{61, 1, 100, 12, 48}[:2+i%4] {
							forms := kinds()
							w := storedMatrix(t, r, forms[i%len(forms)], rows, n, 0)
							i++
							products = append(products, Product{make([]float32, rows*tokens), w})
							want = append(want, Product{make([]float32, rows*tokens), w})
							(*k.one.variants[l])(NewPool(1), want[len(want)-1].Out, x, tokens, w)
						}
						(*many)(NewPool(1+i%3), x, tokens, products)
						for j, o := range products {
							for at, v := range o.Out {
								if !same(v, want[j].Out[at]) {
									t.Fatalf("%d columns, %d tokens, weight %d, %v of %d rows: [%d] = %x, by itself %x", n, tokens, j, o.W.Format, o.W.Rows, at, v, want[j].Out[at])
								}
							}
						}
					}
				}
			})
		}
	}
}

// TestProductsByLinear: an arithmetic that has only Linear does several products with it.
func TestProductsByLinear(t *testing.T) {
	var seen []int
	own := *Fast
	own.Linears = nil
	own.Linear = func(_ *Pool, out, _ []float32, rows int, w *Matrix) {
		seen = append(seen, rows, w.Rows)
		out[0] = 7
	}
	a, b := Product{make([]float32, 6), &Matrix{Rows: 2}}, Product{make([]float32, 9), &Matrix{Rows: 3}}
	own.Products(NewPool(1), nil, 3, a, b)
	if !slices.Equal(seen, []int{3, 2, 3, 3}) || a.Out[0] != 7 || b.Out[0] != 7 {
		t.Errorf("saw %v, gave %v and %v", seen, a.Out[0], b.Out[0])
	}
}

// TestTouch: no bit changes, of any number.
func TestTouch(t *testing.T) {
	Touch(nil)
	for _, n := range []int{1, 1023, 1024, 1025, 5000} {
		x := make([]float32, n)
		for i := range x {
			x[i] = []float32{float32(math.Copysign(0, -1)), float32NaN, float32(math.Inf(1)), 1.5}[i%4]
		}
		want := slices.Clone(x)
		Touch(x)
		for i := range x {
			if math.Float32bits(x[i]) != math.Float32bits(want[i]) {
				t.Fatalf("%d numbers: [%d] = %x, was %x", n, i, x[i], want[i])
			}
		}
	}
}
