package oracle

import (
	"math"
	"math/bits"
	"strconv"

	"sibyl/trace"
)

// Number is a float64 that is null in JSON when it has no value: NaN (meaningless here) or infinite.
type Number float64

// MarshalJSON writes the shortest digits that read back the same, or null.
func (n Number) MarshalJSON() ([]byte, error) {
	if !finite(float64(n)) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(n), 'g', -1, 64), nil
}

// TensorStats compares a tensor of TEST (b) with the same of REF (a). Elements that are finite on both sides enter
// the metrics, d = b - a in float64; the others are judged by class first and enter NonFinite only.
// Of I32 tensors only Elements, Differ and MaxAbsAt (the first that differs) mean something.
type TensorStats struct {
	Name     string      `json:"name"`
	Tap      trace.Tap   `json:"-"`
	Layer    int         `json:"layer"` // -1 at top level
	DType    trace.DType `json:"dtype"`
	Shape    []int       `json:"shape"`
	Elements int         `json:"elements"`
	// Differ counts elements whose bits differ. Two NaNs are equal whatever their payload; -0 and +0 differ.
	Differ    int       `json:"bits_differ"`
	NonFinite NonFinite `json:"non_finite"`

	MaxAbs   Number `json:"max_abs"`
	MaxAbsAt []int  `json:"max_abs_at"` // index in Shape; the first of equal ones; null if nothing differs
	MaxRef   Number `json:"max_ref"`    // largest |a|
	RMSDiff  Number `json:"rms_diff"`
	RMSRef   Number `json:"rms_ref"`
	// Cosine is sum(a*b) / sqrt(sum(a*a)*sum(b*b)): null where a side is all zeros, 1 where both are.
	Cosine Number `json:"cosine"`
	// SNR is 10*log10(sum(a*a) / sum(d*d)) in dB: null if nothing differs or a is all zeros.
	SNR Number `json:"snr_db"`
	// MaxULP and MedianULP count the float32 values between a and b; +0 and -0 are the same one. The median is
	// exact up to 255, above it is rounded down to a power of two.
	MaxULP    int64 `json:"max_ulp"`
	MedianULP int64 `json:"median_ulp"`
	// LeastTolerance is the smallest t with |d| <= t * max(1, MaxRef) for every element; null if none is, because
	// of NonFinite.Mismatched.
	LeastTolerance Number `json:"least_tolerance"`
	// RelError is RMSDiff / RMSRef: 0 if nothing differs, null if a is all zeros and b is not.
	RelError Number `json:"rel_error"`
}

// NonFinite counts NaN, +Inf and -Inf. Same class on both sides is equal, anything else is a mismatch.
type NonFinite struct {
	Ref        int   `json:"ref"`
	Test       int   `json:"test"`
	Mismatched int   `json:"mismatched"`
	FirstAt    []int `json:"first_mismatch_at"` // index in the shape; null if none
	EitherAt   []int `json:"first_at"`          // of the first on either side
}

// Identical says whether no bit differs (NaN payloads aside).
func (s *TensorStats) Identical() bool { return s.Differ == 0 && s.NonFinite.Mismatched == 0 }

// any says whether a side holds a NaN or an infinity.
func (n *NonFinite) any() bool { return n.Ref+n.Test > 0 }

// numbers says whether at least one element is a number on both sides, so that the metrics say something.
func (s *TensorStats) numbers() bool {
	return s.NonFinite.Mismatched > 0 || s.NonFinite.Ref < s.Elements // without a mismatch they stand in the same places
}

// medianLinear is how many ULP distances have a bin of their own; from there on there is one a power of two.
const medianLinear = 256

// comparison gathers TensorStats block by block, and the sums of each row that the first divergence needs.
type comparison struct {
	info                  trace.TensorInfo
	width                 int // elements of a row
	n                     int // elements seen
	differ, firstDiff     int
	nonFinite             NonFinite
	firstNonFinite        int // mismatch
	firstEither           int // element that is not finite on a side
	maxAbs, maxRef        float64
	maxAt                 int
	sumDD, sumAA, sumBB   float64
	sumAB                 float64
	maxULP                uint32
	ulps                  [medianLinear + 33]int
	gridA, gridB          int // fewest trailing zeros of a 24-bit significand
	rowDD, rowAA          []float64
	rowDiffer, rowInvalid []int32 // per row: elements that differ; non-finite mismatches
	rowNonFinite          []int32 // per row: elements that are not finite on a side
}

func newComparison(info trace.TensorInfo) *comparison {
	c := &comparison{info: info, width: max(info.Len(), 1), firstDiff: -1, firstNonFinite: -1, firstEither: -1, maxAt: -1, gridA: 24, gridB: 24}
	rows := 1
	if info.PerToken() && len(info.Shape) > 0 {
		rows = info.Shape[0]
		c.width = max(info.Len()/rows, 1)
	}
	c.rowDD, c.rowAA = make([]float64, rows), make([]float64, rows)
	c.rowDiffer, c.rowInvalid, c.rowNonFinite = make([]int32, rows), make([]int32, rows), make([]int32, rows)
	return c
}

// add takes the next elements of both sides, in order. Sums are sequential float64, so the figures are the same on
// every machine: a*b of two float32 is exact, and the conversions forbid fusing where it would not be.
func (c *comparison) add(a, b []float32) {
	for i := range a {
		row := c.n / c.width
		x, y := float64(a[i]), float64(b[i])
		if !finite(x) || !finite(y) {
			c.addNonFinite(x, y, row)
			c.n++
			continue
		}
		ba, bb := math.Float32bits(a[i]), math.Float32bits(b[i])
		if ba != bb {
			c.differ++
			c.rowDiffer[row]++
			if c.firstDiff < 0 {
				c.firstDiff = c.n
			}
		}
		d := y - x
		if e := math.Abs(d); e > c.maxAbs {
			c.maxAbs, c.maxAt = e, c.n
		}
		c.maxRef = max(c.maxRef, math.Abs(x))
		dd, aa := float64(d*d), float64(x*x)
		c.sumDD += dd
		c.sumAA += aa
		c.sumBB += float64(y * y)
		c.sumAB += float64(x * y)
		c.rowDD[row] += dd
		c.rowAA[row] += aa
		u := ulps32(ba, bb)
		c.maxULP = max(c.maxULP, u)
		c.ulps[ulpBin(u)]++
		c.gridA = min(c.gridA, trailing(ba))
		c.gridB = min(c.gridB, trailing(bb))
		c.n++
	}
}

// addNonFinite judges a pair of which at least one is NaN or infinite.
func (c *comparison) addNonFinite(x, y float64, row int) {
	if !finite(x) {
		c.nonFinite.Ref++
	}
	if !finite(y) {
		c.nonFinite.Test++
	}
	c.rowNonFinite[row]++
	if c.firstEither < 0 {
		c.firstEither = c.n
	}
	if x == y || (x != x && y != y) {
		return
	}
	c.nonFinite.Mismatched++
	c.rowInvalid[row]++
	c.differ++
	c.rowDiffer[row]++
	if c.firstDiff < 0 {
		c.firstDiff = c.n
	}
	if c.firstNonFinite < 0 {
		c.firstNonFinite = c.n
	}
}

// ulps32 is the number of steps between two finite float32 on the line of all of them.
func ulps32(a, b uint32) uint32 {
	x, y := ordered(a), ordered(b)
	if x > y {
		return uint32(x - y)
	}
	return uint32(y - x)
}

// ordered maps bits to an integer that grows with the value; +0 and -0 are 0.
func ordered(b uint32) int64 {
	if b>>31 != 0 {
		return -int64(b & 0x7fffffff)
	}
	return int64(b)
}

func ulpBin(u uint32) int {
	if u < medianLinear {
		return int(u)
	}
	return medianLinear + bits.Len32(u)
}

// trailing is the number of trailing zero bits of a float32's 24-bit significand: at least 13 for an fp16 value, at
// least 16 for a bf16 value. Zero and subnormal numbers say nothing.
func trailing(b uint32) int {
	if b>>23&0xff == 0 {
		return 24
	}
	return bits.TrailingZeros32(b | 1<<23)
}

// stats closes the sums.
func (c *comparison) stats() TensorStats {
	s := TensorStats{Name: c.info.Name, Tap: c.info.Tap, Layer: c.info.Layer, DType: c.info.DType, Shape: c.info.Shape,
		Elements: c.n, Differ: c.differ, NonFinite: c.nonFinite}
	s.NonFinite.FirstAt, s.NonFinite.EitherAt = c.index(c.firstNonFinite), c.index(c.firstEither)
	nan := Number(math.NaN())
	if c.info.DType == trace.I32 {
		s.MaxAbs, s.MaxRef, s.RMSDiff, s.RMSRef, s.Cosine, s.SNR, s.LeastTolerance, s.RelError = nan, nan, nan, nan, nan, nan, nan, nan
		s.MaxAbsAt = c.index(c.firstDiff)
		return s
	}
	count := float64(max(c.n-c.nonFiniteElements(), 1))
	s.MaxAbs, s.MaxRef, s.MaxAbsAt = Number(c.maxAbs), Number(c.maxRef), c.index(c.maxAt)
	s.RMSDiff, s.RMSRef = Number(math.Sqrt(c.sumDD/count)), Number(math.Sqrt(c.sumAA/count))
	s.Cosine, s.SNR = nan, nan
	switch {
	case c.sumAA == 0 && c.sumBB == 0:
		s.Cosine = 1
	case c.sumAA > 0 && c.sumBB > 0:
		// One root of the product, which fits float64 for any float32s, makes the cosine of equal sides exactly 1.
		s.Cosine = Number(max(-1, min(1, c.sumAB/math.Sqrt(c.sumAA*c.sumBB))))
	}
	if c.sumDD > 0 && c.sumAA > 0 {
		s.SNR = Number(10 * math.Log10(c.sumAA/c.sumDD))
	}
	s.MaxULP, s.MedianULP = int64(c.maxULP), c.medianULP()
	s.RelError = Number(relative(c.sumDD, c.sumAA))
	s.LeastTolerance = Number(c.maxAbs / max(1, c.maxRef))
	if c.nonFinite.Mismatched > 0 {
		s.LeastTolerance, s.RelError = Number(math.Inf(1)), Number(math.Inf(1))
	}
	return s
}

// nonFiniteElements is how many elements are kept out of the metrics.
func (c *comparison) nonFiniteElements() int {
	finiteOnes := 0
	for _, k := range c.ulps {
		finiteOnes += k
	}
	return c.n - finiteOnes
}

func (c *comparison) medianULP() int64 {
	total := c.n - c.nonFiniteElements()
	seen := 0
	for bin, k := range c.ulps {
		if seen += k; 2*seen >= total {
			if bin < medianLinear {
				return int64(bin)
			}
			return 1 << (bin - medianLinear - 1)
		}
	}
	return 0
}

// relative is sqrt(dd/aa): 0 without error, infinite where there is no signal.
func relative(dd, aa float64) float64 {
	switch {
	case dd == 0:
		return 0
	case aa == 0:
		return math.Inf(1)
	}
	return math.Sqrt(dd / aa)
}

// index turns a flat position into an index in the shape, nil for -1.
func (c *comparison) index(flat int) []int {
	if flat < 0 {
		return nil
	}
	out := make([]int, len(c.info.Shape))
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = flat % c.info.Shape[i]
		flat /= c.info.Shape[i]
	}
	return out
}
