package goldens

import (
	"fmt"
	"math"
	"strings"
	"sync"
)

// The bounds of bf16-modules/README.txt, "What a test should demand".
const (
	EqualShare = 0.995          // of a bf16 point's elements, at least, over all layers and calls
	SumSlack   = 4 * 0x1p-24    // beyond 1 ulp, of sum|w*x|: another order of the float32 sum
	F32Bound   = 2e-6           // of the largest golden value: torch's own float32 steps are not correctly rounded
	SDPAShare  = 0.97           // of the sdpa tap: torch's vector exp flips bf16 roundings of exp
	SDPASlack  = 1.0 / (1 << 8) // beyond 1 ulp, of sum w|v|: one flip of every exp
	noShare    = math.SmallestNonzeroFloat64
)

// Points compares modules with their goldens, rounding point by rounding point.
type Points struct {
	mu    sync.Mutex
	names []string
	rows  map[string]*pointRow
}

// pointRow sums a point up over all layers and calls.
type pointRow struct {
	n, equal, ulp int
	least         float64 // share of equal elements asked for
	worst         float64 // distance over bound
	f32           bool    // ulp is of float32
	beyond        int     // elements outside their bound
	first         string  // the first of them
}

// BF16 holds a bf16 point that is no sum of products to ulps, element by element.
func (p *Points) BF16(point, where string, got, want []float32, ulps float64) {
	p.add(point, where, got, want, EqualShare, func(i int, ulp float64) float64 { return ulps * ulp })
}

// Sum holds a bf16 sum of products to 1 ulp and slack * size()[i]; size is sum|w*x| (SumAbs) and asked for only where
// bits differ. least is the equal share.
func (p *Points) Sum(point, where string, got, want []float32, size func() []float64, slack, least float64) {
	size = sync.OnceValue(size)
	p.add(point, where, got, want, least, func(i int, ulp float64) float64 { return ulp + slack*size()[i] })
}

// Core holds the delta rule's bf16 out to 1 ulp and F32Bound of the largest value.
func (p *Points) Core(point, where string, got, want []float32) {
	slack := F32Bound * largest(want)
	p.add(point, where, got, want, EqualShare, func(i int, ulp float64) float64 { return ulp + slack })
}

// F32 holds a float32 point to F32Bound of the largest value; equal bits are not asked for.
func (p *Points) F32(point, where string, got, want []float32) {
	bound := F32Bound * largest(want)
	p.add(point, where, got, want, noShare, func(int, float64) float64 { return bound })
}

func largest(x []float32) float64 { return Tensor{Data: x}.MaxAbs() }

func (p *Points) add(point, where string, got, want []float32, least float64, bound func(i int, ulp float64) float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rows == nil {
		p.rows = map[string]*pointRow{}
	}
	r := p.rows[point]
	if r == nil {
		r = &pointRow{least: least, f32: least == noShare}
		p.rows[point], p.names = r, append(p.names, point)
	}
	if len(got) != len(want) {
		r.miss(fmt.Sprintf("%s: %d numbers, want %d", where, len(got), len(want)))
		return
	}
	for i, g := range got {
		w := want[i]
		r.n++
		if g == w {
			r.equal++
			continue
		}
		d, ulp := math.Abs(float64(g)-float64(w)), ulpOf(g, w, 7)
		r.ulp = max(r.ulp, r.ulps(g, w))
		b := bound(i, ulp)
		r.worst = max(r.worst, d/b)
		if !(d <= b) {
			r.miss(fmt.Sprintf("%s[%d] = %g, want %g, bound %.3g", where, i, g, w, b))
		}
	}
}

func (r *pointRow) miss(what string) {
	if r.beyond++; r.beyond == 1 {
		r.first = what
	}
}

// ulps is the distance in units of the point's own type, of the larger value.
func (r *pointRow) ulps(a, b float32) int {
	bits := 7
	if r.f32 {
		bits = 23
	}
	return int(min(1e6, math.Round(math.Abs(float64(a)-float64(b))/ulpOf(a, b, bits))))
}

// ulpOf is the unit in the last place of the larger of a and b, with bits after the point.
func ulpOf(a, b float32, bits int) float64 {
	big := max(math.Abs(float64(a)), math.Abs(float64(b)), 0x1p-126)
	_, e := math.Frexp(big)
	return math.Ldexp(1, e-1-bits)
}

// Failures names the points that break a bound, with the first element that does.
func (p *Points) Failures() []string {
	var out []string
	for _, name := range p.names {
		r := p.rows[name]
		if share := float64(r.equal) / float64(max(1, r.n)); share < r.least {
			out = append(out, fmt.Sprintf("%s: %.3f %% of %d equal, want %.1f %%", name, 100*share, r.n, 100*r.least))
		} else if r.beyond > 0 {
			out = append(out, fmt.Sprintf("%s: %d of %d beyond the bound, first %s", name, r.beyond, r.n, r.first))
		}
	}
	return out
}

// Fails says whether a point of this name broke a bound: what a control must show.
func (p *Points) Fails(point string) bool {
	for _, f := range p.Failures() {
		if strings.HasPrefix(f, point+":") {
			return true
		}
	}
	return false
}

// String is the table of docs/accuracy.md: share of equal bits, worst distance in ulps of the point's type and as a
// part of its bound.
func (p *Points) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-44s %8s %9s %7s %12s\n", "point", "n", "equal %", "ulp", "of bound")
	for _, name := range p.names {
		r := p.rows[name]
		fmt.Fprintf(&b, "%-44s %8d %9.3f %7d %12.3f\n", name, r.n, 100*float64(r.equal)/float64(r.n), r.ulp, r.worst)
	}
	return b.String()
}
