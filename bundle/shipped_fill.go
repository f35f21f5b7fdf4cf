package bundle

import (
	"fmt"
	"slices"
	"strings"

	"sibyl/bundle/aicode"
	"sibyl/config"
	"sibyl/internal/inputerr"
)

// filler makes tensors of uses.
type filler struct {
	s         *Shipped
	zero      map[*aicode.Const]bool // which offsets were found to be zero: they are shared
	kinds     map[string]int
	quantized []Tensor
	budget    int64 // bytes that splats may still be spread to: a file must not stand for much more than it holds
}

func (f *filler) refuse(op *aicode.Op, u *Use, found, want string) error {
	return &inputerr.Error{File: f.s.Asset.Path(), Field: op.Where(), Found: fmt.Sprintf("%s for %s", found, u.Name()), Want: want,
		Do: "sibyl does not read such weights as a model; the graph engine runs the graph as it is"}
}

// tensor is the weight of a use, in the role's shape.
func (f *filler) tensor(u *Use) (Tensor, error) {
	t := Tensor{Name: u.Name(), File: f.s.Asset.Path(), Shape: u.Shape, Form: u.Form, Turned: u.Turned}
	var err error
	if u.Dequant == nil {
		dtype, ok := map[aicode.Kind]DType{aicode.F32: F32, aicode.F16: F16, aicode.BF16: BF16}[u.Data.Const.Type.Elem]
		if !ok {
			return t, f.refuse(u.Data, u, "a constant "+u.Data.Const.Type.String(), "f32, f16 or bf16")
		}
		t.DType = dtype
		t.Data, err = f.spread(u, u.Data.Const)
	} else {
		err = f.blocks(&t, u)
	}
	if err != nil {
		return t, err
	}
	return f.shaped(t, u)
}

// spread is a constant's bytes with every element of its own: a splat is written out.
func (f *filler) spread(u *Use, k *aicode.Const) ([]byte, error) {
	if !k.Splat {
		return k.Data, nil
	}
	n, ok := k.Type.Bytes()
	if !ok || n > f.budget {
		return nil, f.refuse(u.Data, u, fmt.Sprintf("one element for all of %s", k.Type), "elements in the file")
	}
	f.budget -= n
	one := k.Data
	if k.Type.Elem.Bits() == 4 {
		one = []byte{k.Data[0]&15 | k.Data[0]<<4}
	}
	out := make([]byte, n)
	for i := range out {
		out[i] = one[i%len(one)]
	}
	return out, nil
}

// blocks reads a quantized weight: int8 and int4 with fp16 scales and no offsets, u4 with a least value in bf16.
func (f *filler) blocks(t *Tensor, u *Use) error {
	const want = "int8 or int4 with fp16 scales and no offsets, or u4 with bf16 scale and least value, in blocks along one axis"
	q, err := u.Dequant.Quantized()
	if err != nil {
		return &inputerr.Error{File: f.s.Asset.Path(), Field: u.Dequant.Where(), Err: err, Do: "export the model again"}
	}
	if q == nil || q.Scale == nil {
		return f.refuse(u.Dequant, u, "a palette or a computed scale", want)
	}
	elem, scale, compute := q.Data.Type.Elem, q.Scale.Type.Elem, u.Dequant.Results[0].Type.Elem
	quant := &Quantized{}
	switch {
	case elem == aicode.I8 && scale == aicode.F16 && compute == aicode.F16:
		quant.Format, t.DType = "int8", "I8"
	case elem == aicode.I4 && scale == aicode.F16 && compute == aicode.F16:
		quant.Format, t.DType = "int4", "I4"
	case elem == aicode.U4 && scale == aicode.BF16 && compute == aicode.BF16:
		quant.Format, t.DType = "u4-minval", "U4"
	default:
		return f.refuse(u.Dequant, u, fmt.Sprintf("%s with a scale of %s, computed in %s", elem, scale, compute), want)
	}
	n := len(q.Block)
	if !f.isZero(q.Offset1) || quant.Format != "u4-minval" && !f.isZero(q.Offset2) {
		return f.refuse(u.Dequant, u, elem.String()+" with offsets", want)
	}
	if n < 2 || !ones(q.Block[:n-2]) || q.Block[n-2] != 1 && q.Block[n-1] != 1 || u.Shape[n-1]%(8/elem.Bits()) != 0 {
		return f.refuse(u.Dequant, u, fmt.Sprintf("%s in blocks of %v of %v", elem, q.Block, u.Shape), want)
	}
	if quant.Axis, quant.Block = 1, int(q.Block[n-1]); quant.Block == 1 && q.Block[n-2] > 1 {
		quant.Axis, quant.Block = 0, int(q.Block[n-2])
	}
	if t.Data, err = f.spread(u, q.Data); err != nil {
		return err
	}
	if quant.Scale, err = f.spread(u, q.Scale); err != nil {
		return err
	}
	if quant.Format == "u4-minval" {
		if quant.Min, err = f.spread(u, q.Offset2); err != nil {
			return err
		}
	} else {
		quant.Mode = mode(quant.Format, t.Data)
	}
	t.Quant = quant
	f.kinds[strings.TrimSpace(fmt.Sprintf("%s %s", quant.Format, quant.Mode))+fmt.Sprintf(", blocks of %d", quant.Block)]++
	f.quantized = append(f.quantized, *t)
	return nil
}

func ones(x []int64) bool {
	for _, v := range x {
		if v != 1 {
			return false
		}
	}
	return true
}

func (f *filler) isZero(k *aicode.Const) bool {
	z, known := f.zero[k]
	if !known {
		z = k.Zero()
		f.zero[k] = z
	}
	return z
}

// modeBytes is how much of q is looked at to tell its mode: the symmetric form reaches -128 (or -8) in about every
// third block, so that 2,000 blocks without it are of the other.
const modeBytes = 64 << 10

// mode is "symmetric" if q reaches the negative end, which clipping leaves unused.
func mode(format string, q []byte) string {
	for _, b := range q[:min(len(q), modeBytes)] {
		if format == "int8" && b == 0x80 || format == "int4" && (b&15 == 8 || b>>4 == 8) {
			return "symmetric"
		}
	}
	return "clipping"
}

// shaped gives t the role's shape: rows of a fused matrix, taps of a conv, one head's gains of many.
func (f *filler) shaped(t Tensor, u *Use) (Tensor, error) {
	c := f.s.cfg
	switch {
	case u.Proj != "":
		want := []int{1, c.MoE.NumExperts, c.MoE.IntermediateSize, c.HiddenSize}
		if u.Proj == "down" {
			want[2], want[3] = want[3], want[2]
		}
		if !slices.Equal(t.Shape, want) {
			return t, f.refuse(u.Data, u, fmt.Sprintf("a shape of %v", t.Shape), fmt.Sprint(want))
		}
		t.Shape = t.Shape[1:]
		return t, nil
	case u.Role == config.Conv1D:
		return f.conv(t, u)
	case u.Role == config.QNorm || u.Role == config.KNorm:
		return f.headNorm(t, u)
	case u.Spans != nil:
		return f.rows(t, u)
	}
	return t, f.fits(t.Shape, u)
}

// fits compares a shape with the role's.
func (f *filler) fits(shape []int, u *Use) error {
	if want := u.Role.Shape(f.s.cfg); !slices.Equal(shape, want) {
		return f.refuse(u.Data, u, fmt.Sprintf("a shape of %v", shape), fmt.Sprint(want)+" by the states and the embedding")
	}
	return nil
}

// conv turns [C, 1, 1, K] and [K, C] to [C, 1, K].
func (f *filler) conv(t Tensor, u *Use) (Tensor, error) {
	want := u.Role.Shape(f.s.cfg)
	channels, taps, size := want[0], want[2], t.DType.Size()
	switch {
	case t.Quant != nil:
		return t, f.refuse(u.Data, u, "a quantized conv", "a plain one")
	case slices.Equal(t.Shape, []int{taps, channels}) && len(t.Data) == channels*taps*size:
		turned := make([]byte, len(t.Data))
		for i := range channels * taps {
			copy(turned[i*size:][:size], t.Data[(i%taps*channels+i/taps)*size:])
		}
		t.Shape, t.Data = want, turned
		return t, nil
	}
	kept := []int{channels}
	for _, d := range t.Shape[1:] {
		if d != 1 || len(kept) == 1 && len(t.Shape) <= 3 {
			kept = append(kept, d)
		}
	}
	if elems := t.Elements(); t.Shape[0] != channels || t.Shape[len(t.Shape)-1] != taps || elems != channels*taps {
		return t, f.fits(kept, u)
	}
	t.Shape = want
	return t, nil
}

// headNorm is the gain of one head. apple-q35 stores it once a head, [heads+kv, 1, hd]: all must be the same.
func (f *filler) headNorm(t Tensor, u *Use) (Tensor, error) {
	if u.Spans == nil {
		return t, f.fits(t.Shape, u)
	}
	hd := f.s.cfg.HeadDim * t.DType.Size()
	span := u.Spans[0]
	if t.Quant != nil || len(t.Data) < (span.From+span.N)*hd || t.Shape[len(t.Shape)-1] != f.s.cfg.HeadDim {
		return t, f.refuse(u.Data, u, fmt.Sprintf("gains of %v", t.Shape), fmt.Sprintf("[heads, 1, %d]", f.s.cfg.HeadDim))
	}
	all := t.Data[span.From*hd:][: span.N*hd : span.N*hd]
	for h := 1; h < span.N; h++ {
		if string(all[:hd]) != string(all[h*hd:][:hd]) {
			return t, f.refuse(u.Data, u, fmt.Sprintf("other gains for head %d than for head 0", h), "one gain for all heads")
		}
	}
	t.Shape, t.Data = []int{f.s.cfg.HeadDim}, all[:hd:hd]
	return t, nil
}

// rows gathers the rows of a fused matrix in the role's order; neighbours are one part.
func (f *filler) rows(t Tensor, u *Use) (Tensor, error) {
	if len(t.Shape) != 2 {
		return t, f.refuse(u.Data, u, fmt.Sprintf("rows of a constant %v", t.Shape), "those of a matrix")
	}
	if u.Turned {
		return t, f.refuse(u.Data, u, "rows of a fused matrix that is stored [in, out]", "[out, in]")
	}
	spans := slices.Clone(u.Spans)
	slices.SortFunc(spans, func(a, b Span) int { return a.To - b.To })
	whole, cols := t.Shape[0], t.Shape[1]
	var merged []Span
	next := 0
	for _, s := range spans {
		if s.To != next || s.From < 0 || s.N < 1 || s.From+s.N > whole {
			return t, f.refuse(u.Data, u, fmt.Sprintf("rows %d..%d of %d in the place of rows %d..%d", s.From, s.From+s.N, whole, s.To, s.To+s.N), "all rows once")
		}
		next += s.N
		if n := len(merged); n > 0 && merged[n-1].From+merged[n-1].N == s.From {
			merged[n-1].N += s.N
			continue
		}
		merged = append(merged, s)
	}
	if err := f.fits([]int{next, cols}, u); err != nil {
		return t, err
	}
	if t.Turned {
		return t, f.refuse(u.Data, u, "a fused matrix stored [in, out]", "[out, in]")
	}
	if q := t.Quant; q != nil && q.Axis == 0 {
		return t, f.refuse(u.Data, u, "blocks that span rows of a fused matrix", "blocks along the input")
	}
	part := func(s Span) Tensor {
		p := t.view(s.From*cols, s.N, cols)
		p.Form = t.Form
		return p
	}
	if len(merged) == 1 {
		return part(merged[0]), nil
	}
	out := Tensor{Name: t.Name, DType: t.DType, Shape: []int{next, cols}, File: t.File, Form: t.Form}
	for _, s := range merged {
		out.Parts = append(out.Parts, part(s))
	}
	return out, nil
}
