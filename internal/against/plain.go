package against

import (
	"math"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/config"
	"sibyl/precision"
)

// plain compares a weight that is stored as numbers. Its tensor is first rounded to the dtype that the export computes in (fp16, or
// bf16 where that is what is stored), then folded in float32.
func plain(k *aicode.Const, u *bundle.Use, s *source) Part {
	p := Part{Name: s.name, Spec: u.Form.String(), Elements: int64(s.rows * s.cols), Diff: Diff{First: -1}}
	if u.Form == bundle.AsIs {
		p.Spec = k.Type.Elem.String()
	}
	w := make([]float32, s.cols)
	for _, span := range spansOf(u, s) {
		for row := range span.N {
			from := span.To + row
			if repeated(u) {
				from = 0
			}
			s.read(w, from)
			for i, x := range w {
				p.element(k, stored(u, s, span.From+row, i), int64(from*s.cols+i), x, u.Form)
			}
		}
	}
	p.Diff.finish(p.Elements)
	return p
}

// stored is where element i of a tensor's row stands: the same flat place, but for a conv that is stored tap by tap and
// for matrices that are stored as their transposes.
func stored(u *bundle.Use, s *source, row, i int) int64 {
	if u.Turned {
		n := u.Shape[len(u.Shape)-2] // rows of one matrix
		return int64(row/n*n*s.cols + i*n + row%n)
	}
	if u.Role == config.Conv1D && len(u.Shape) == 2 && u.Shape[0] == s.cols {
		return int64(i*s.rows + row)
	}
	return int64(row*s.cols + i)
}

// element compares one element: at is its place in the constant, of its place in the tensor.
func (p *Part) element(k *aicode.Const, at, of int64, x float32, form bundle.Form) {
	have := k.Float(at)
	base := precision.F16ToF32(precision.F32ToF16(x))
	if k.Type.Elem == aicode.BF16 {
		base = precision.BF16ToF32(precision.F32ToBF16(x))
	}
	want := base
	switch form {
	case bundle.OnePlus:
		want = 1 + base
	case bundle.NegExp:
		want = -precision.ExpR32(base)
	}
	if math.Float32bits(float32(have)) == math.Float32bits(want) {
		return
	}
	if form == bundle.NegExp && ulps(float32(have), want) <= 1 {
		return // the exporter's exp is a library's, whose last bit is its own
	}
	if form != bundle.AsIs && subnormal(base) && foldedAsZero(float32(have), form, base) {
		p.Fault = append(p.Fault, of)
		return
	}
	p.Diff.Values++
	p.Diff.distance(of, have-float64(want))
}

// subnormal says whether x is an fp16 subnormal.
func subnormal(x float32) bool { return x != 0 && math.Abs(float64(x)) < 0x1p-14 }

// foldedAsZero is the fault of coreai-core 1.0.0b3 on Linux: its constant folder casts an fp16 subnormal to a float32 that is far too
// small. Source: docs/aimodel.md.
func foldedAsZero(have float32, form bundle.Form, base float32) bool {
	w := float64(have)
	switch form {
	case bundle.OnePlus:
		w--
	case bundle.NegExp:
		w = -w - 1 // exp(small) = 1 + small
	}
	return math.Abs(w) <= 0x1p-23+math.Abs(float64(base))/64
}

// ulps is the distance in units of the last place, of numbers of one sign.
func ulps(a, b float32) int64 {
	d := int64(math.Float32bits(a)) - int64(math.Float32bits(b))
	if d < 0 {
		return -d
	}
	return d
}
