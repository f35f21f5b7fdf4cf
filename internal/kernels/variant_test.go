package kernels

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"sibyl/precision"
)

// variants runs f for every variant of k that this machine can run, the definition included, as a subtest of its own; it
// tells which ones the machine cannot run.
func variants[F any](t *testing.T, k *kernel[F], f func(t *testing.T, run F)) {
	t.Helper()
	for l, run := range k.variants {
		if run == nil {
			continue
		}
		if !usable(Level(l)) {
			t.Logf("%s/%v is not tested here: %s", k.name, Level(l), missing(Level(l)))
			continue
		}
		t.Run(k.name+"/"+Level(l).String(), func(t *testing.T) { f(t, *run) })
	}
}

// same says whether two results are equal bit by bit; any two NaN are.
func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

// within says whether got lies within bound of the exact value want, and adds what it used of the bound to worst.
func within(got, want float32, bound float64, worst *float64) bool {
	if g, w := float64(got), float64(want); g-g != 0 || w-w != 0 {
		return same(got, want)
	} else if d := math.Abs(g - w); d > 0 {
		*worst = max(*worst, d/bound)
		return d <= bound
	}
	return true
}

// specials are what random numbers leave out.
var specials = []float32{0, float32(math.Copysign(0, -1)), 1, -1, math.SmallestNonzeroFloat32, -0x1p-140, 0x1.fffffep-127, 0x1p-126,
	float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 65504, 65520, 0x1p-24, 0x1p-25, 0x1.8p-24}

// fill writes normal numbers, one in so many of them a special (0: none; then one in 30 is a subnormal or a zero).
func fill(r *rand.Rand, x []float32, special int) {
	for i := range x {
		x[i] = float32(r.NormFloat64() * math.Exp(r.NormFloat64()))
		switch {
		case special > 0 && r.IntN(special) == 0:
			x[i] = specials[r.IntN(len(specials))]
		case r.IntN(30) == 0:
			x[i] = specials[r.IntN(8)]
		}
	}
}

// kind is a stored form as a test names it.
type kind struct {
	f     Format
	round precision.Round
}

func kinds() []kind {
	return []kind{{F32, precision.F32}, {F16, precision.F32}, {BF16, precision.F32}, {F32, precision.F16}, {BF16, precision.F16},
		{F16, precision.BF16}, {I8Block, precision.F32}, {I4Block, precision.F32}, {U4Minval, precision.F32}, {I8Block, precision.BF16},
		{I8Block, precision.F16}, {I4Block, precision.F16}, {U4Minval, precision.BF16}}
}

// storedMatrix is a random matrix of a kind, in guarded memory, as long as it has columns for the format. Blocks are of
// 32 where the columns allow it.
func storedMatrix(t testing.TB, r *rand.Rand, k kind, rows, cols, special int) *Matrix {
	t.Helper()
	at := func(n int) []byte { return guarded[byte](t, n, r.IntN(3) > 0) }
	if k.f <= BF16 {
		w := make([]float32, rows*cols)
		fill(r, w, special)
		data := at(rows * cols * elemSize[k.f])
		copy(data, stored(k.f, w))
		m, err := NewMatrix(k.f, rows, cols, data, k.round)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	size := blockOf(cols)
	b := Blocks{Size: size, Axis: 1, Scale: at(2 * rows * cols / size)}
	q := at(rows * k.f.rowBytes(cols))
	for i := range q {
		q[i] = byte(r.Uint32())
	}
	scale := func(b []byte) {
		for i := 0; i < len(b); i += 2 {
			v := float32(r.NormFloat64() * 0.02)
			if special > 0 && r.IntN(special) == 0 {
				v = specials[r.IntN(len(specials))]
			}
			if k.f == U4Minval {
				binary.LittleEndian.PutUint16(b[i:], precision.F32ToBF16(v))
			} else {
				binary.LittleEndian.PutUint16(b[i:], precision.F32ToF16(v))
			}
		}
	}
	scale(b.Scale)
	if k.f == U4Minval {
		b.Min = at(len(b.Scale))
		scale(b.Min)
	}
	m, err := NewQuantized(k.f, rows, cols, q, b, k.round)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// blockOf is 32 where it divides the columns, else another size that does.
func blockOf(cols int) int {
	for _, size := range []int{32, 16, 8, 4, 2} {
		if cols%size == 0 {
			return size
		}
	}
	return 1
}

// lengths are all up to 257, and some around the blocks of columns of a large product.
func lengths() []int {
	var out []int
	for n := 1; n <= 257; n++ {
		if testing.Short() && n > 40 && n%8 > 1 && n%32 != 31 {
			continue
		}
		out = append(out, n)
	}
	return append(out, 288, 511, 512, 513, 1024, 1100)
}

// linearCase is one product and what must come out of it.
type linearCase struct {
	w      *Matrix
	x      []float32
	tokens int
	want   []float32 // exact, by the definition
	abs    []float64 // sum |w*x|
}

func newLinearCase(w *Matrix, x []float32, tokens int) *linearCase {
	c := &linearCase{w: w, x: x, tokens: tokens, want: make([]float32, tokens*w.Rows), abs: make([]float64, tokens*w.Rows)}
	linearExactGo(NewPool(1), c.want, x, tokens, w)
	held := w.Floats()
	for t := range tokens {
		for o := range w.Rows {
			for i, v := range held[o*w.Cols:][:w.Cols] {
				c.abs[t*w.Rows+o] += math.Abs(float64(v) * float64(x[t*w.Cols+i]))
			}
		}
	}
	return c
}

func (c *linearCase) String() string {
	return fmt.Sprintf("%v read as %v [%d, %d], blocks of %d, %d tokens", c.w.Format, c.w.Asked, c.w.Rows, c.w.Cols, c.w.Blocks.Size, c.tokens)
}

// run gives the product by f, between sentinels.
func (c *linearCase) run(t *testing.T, f func(p *Pool, out, x []float32, rows int, w *Matrix)) []float32 {
	t.Helper()
	const sentinel = 12345
	out := guarded[float32](t, len(c.want)+2, true)
	out[0], out[len(out)-1] = sentinel, sentinel
	f(NewPool(2), out[1:len(out)-1], c.x, c.tokens, c.w)
	if out[0] != sentinel || out[len(out)-1] != sentinel {
		t.Fatalf("%v: wrote outside of its output", c)
	}
	return out[1 : len(out)-1]
}

// linearCases makes one case for each kind and length; rows and tokens change from one to the next, so that both forms
// of a product and every tail of rows and tokens occur.
func linearCases(t *testing.T, special int, f func(c *linearCase)) {
	r := rand.New(rand.NewPCG(31, uint64(special)))
	rows, tokens := []int{1, 2, 3, 4, 5, 7, 25, 61}, []int{1, 2, 4, 5, 6, 7, 8, 9, 16, 17, 33, 49, 57}
	i := 0
	for _, n := range lengths() {
		for _, k := range kinds() {
			if k.f > I8Block && n%2 != 0 {
				continue
			}
			i++
			w := storedMatrix(t, r, k, rows[i%len(rows)], n, special)
			tok := tokens[i%len(tokens)]
			x := guarded[float32](t, tok*n, i%2 == 0)
			fill(r, x, special*4)
			if i%7 == 0 { // fp16 activations: sums that are exact, and often half way between two float32
				precision.RoundF16(x)
			}
			f(newLinearCase(w, x, tok))
		}
	}
}

// TestLinearExactVariants: every variant has the definition's bits.
func TestLinearExactVariants(t *testing.T) {
	for _, special := range []int{0, 40} {
		var cases []*linearCase
		linearCases(t, special, func(c *linearCase) { cases = append(cases, c) })
		variants(t, linearExactKernel, func(t *testing.T, run func(*Pool, []float32, []float32, int, *Matrix)) {
			for _, c := range cases {
				for i, got := range c.run(t, run) {
					if !same(got, c.want[i]) {
						t.Fatalf("%v: [%d] = %x, want %x", c, i, got, c.want[i])
					}
				}
			}
		})
	}
}

// fastBound is the error of n products in float32, in any order, fused or not: n u/(1-n u) sum|w*x|, u = 2^-24 (Higham,
// Accuracy and Stability, 3.1), plus half of 2^-149 for each product and sum that underflows, plus the rounding of the
// exact value it is compared with.
func fastBound(n int, abs float64) float64 {
	return 1.01*float64(n+1)*0x1p-24*abs + float64(n)*0x1p-149
}

// fastBound is the bound of sum i of c. A block's sum may be multiplied with its scale, below 2^9, and with it what underflowed.
// Where a contract has float32 weights, fast takes q*s of integers in blocks, a factor 1+d off the weight, |d| <= 2^-11: the
// rounding to binary16 that the exact weight has (Higham 2.2; one that is subnormal there is exact).
func (c *linearCase) fastBound(i int) float64 {
	bound := fastBound(c.w.Cols, c.abs[i])
	if c.w.Format != I8Block && c.w.Format != I4Block {
		return bound
	}
	bound += float64(c.w.Cols) * 0x1p-140
	if c.w.Asked == precision.F32 {
		bound += 1.01 * 0x1p-11 * c.abs[i]
	}
	return bound
}

// TestLinearFastVariants: every variant keeps its bound. Worst seen: 0.70 of it, at one column, where the one rounding of
// the product and that of the exact value make up the whole bound.
func TestLinearFastVariants(t *testing.T) {
	for _, special := range []int{0, 40} {
		var cases []*linearCase
		linearCases(t, special, func(c *linearCase) { cases = append(cases, c) })
		variants(t, linearFastKernel, func(t *testing.T, run func(*Pool, []float32, []float32, int, *Matrix)) {
			var worst float64
			for _, c := range cases {
				for i, got := range c.run(t, run) {
					if !within(got, c.want[i], c.fastBound(i), &worst) {
						t.Fatalf("%v: [%d] = %x, want %x within %g", c, i, got, c.want[i], c.fastBound(i))
					}
				}
			}
			t.Logf("worst seen: %.2f of the bound", worst)
		})
	}
}

// TestLinearAlone: among rows by themselves each has the bits that it has in a fast product of its own, at every level, of every
// form, for any number of rows, threads and tails.
func TestLinearAlone(t *testing.T) {
	for _, special := range []int{0, 40} {
		linearCases(t, special, func(c *linearCase) { checkAlone(t, c) })
	}
}

func checkAlone(t *testing.T, c *linearCase) {
	t.Helper()
	for l, alone := range linearAloneKernel.variants {
		if alone == nil || !usable(Level(l)) {
			continue
		}
		all, one := c.run(t, *alone), make([]float32, c.w.Rows)
		for i := range c.tokens {
			(*linearFastKernel.variants[l])(NewPool(1+i%3), one, c.x[i*c.w.Cols:][:c.w.Cols], 1, c.w)
			for o, want := range one {
				if got := all[i*c.w.Rows+o]; !same(got, want) {
					t.Fatalf("%v, %v: [%d, %d] = %x, by itself %x", Level(l), c, i, o, got, want)
				}
			}
		}
	}
}

// TestUseRefuses: a level this process cannot run is refused in the words a user acts on.
func TestUseRefuses(t *testing.T) {
	have := map[string]bool{}
	for _, l := range Levels() {
		have[l.String()] = true
	}
	for _, name := range []string{"avx2", "avx512", "neon", "sse", "AVX2", "noasm", ""} {
		_, err := chooseLevel(name)
		if have[name] || name == "" {
			if err != nil {
				t.Errorf("%q: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), "SIBYL_CPU: ") || !strings.Contains(err.Error(), "want ") ||
			!strings.Contains(err.Error(), "leave it empty for "+best().String()) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestUseTakesNextBelow: a level without a variant of a kernel takes the next one that has; AVX-512 is not a way back to
// the definition.
func TestUseTakesNextBelow(t *testing.T) {
	for _, tt := range []struct {
		has  []Level
		use  Level
		want Level
	}{
		{nil, AVX512, NoAsm},
		{[]Level{AVX2}, AVX512, AVX2},
		{[]Level{AVX2, AVX512}, AVX512, AVX512},
		{[]Level{AVX2, AVX512}, AVX2, AVX2},
		{[]Level{AVX512}, AVX2, NoAsm},
		{[]Level{AVX2, AVX512}, NEON, NoAsm},
		{[]Level{AVX2, AVX512}, NoAsm, NoAsm},
	} {
		var told Level
		k := &kernel[Level]{name: "test", taken: func(l Level) { told = l }}
		for _, l := range append([]Level{NoAsm}, tt.has...) {
			k.variants[l] = &l
		}
		if k.use(tt.use); k.run != tt.want || told != tt.want {
			t.Errorf("variants %v, use %v: %v and told %v, want %v", tt.has, tt.use, k.run, told, tt.want)
		}
	}
}

// TestMissingFeature: the error names the feature, what was found and what is wanted.
func TestMissingFeature(t *testing.T) {
	old := needs
	t.Cleanup(func() { needs = old })
	needs = [numLevels][]feature{AVX2: {{"avx2", true}, {"fma", false}, {"f16c", false}}}
	_, err := chooseLevel("avx2")
	want := "SIBYL_CPU: avx2: found a processor without fma, f16c, want an amd64 processor with avx2, fma and f16c, " +
		"and a build with assembly; leave it empty for noasm, or choose noasm"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if best() != NoAsm {
		t.Errorf("best is %v on a machine without fma", best())
	}
	needs[AVX2] = []feature{{"avx2", true}}
	needs[AVX512] = []feature{{"avx2", true}, {"avx512f", true}, {"avx512bw", false}, {"avx512vl", false}}
	_, err = chooseLevel("avx512")
	want = "SIBYL_CPU: avx512: found a processor without avx512bw, avx512vl, want an amd64 processor with avx512f, avx512bw, " +
		"avx512dq and avx512vl besides avx2, fma and f16c, and a build with assembly; leave it empty for avx2, or choose noasm or avx2"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if best() != AVX2 {
		t.Errorf("best is %v on a machine with half of AVX-512", best())
	}
}
