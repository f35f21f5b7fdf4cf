package against

import (
	"encoding/binary"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/precision"
	"sibyl/quant"
)

// specs are the ways in which coreai-opt could have made such a weight, likeliest first; none for schemes it does not have.
func specs(q *aicode.Quantized, cols int) []quant.Spec {
	if q.Scale == nil || !q.Offset1.Zero() || len(q.Block) < 2 {
		return nil
	}
	last := len(q.Block) - 1
	for _, b := range q.Block[:last] {
		if b != 1 {
			return nil
		}
	}
	s := quant.Spec{Block: int(q.Block[last]), Axis: 1}
	if s.Block == 0 || cols%s.Block != 0 {
		return nil
	}
	switch zero := q.Offset2.Zero(); {
	case q.Data.Type.Elem == aicode.U4 && q.Scale.Type.Elem == aicode.BF16:
		s.Format = quant.U4
		return []quant.Spec{s}
	case !zero || q.Scale.Type.Elem != aicode.F16:
		return nil
	case q.Data.Type.Elem == aicode.I8:
		s.Format = quant.Int8
	case q.Data.Type.Elem == aicode.I4:
		s.Format = quant.Int4
	default:
		return nil
	}
	other := s
	other.Symmetric = true
	return []quant.Spec{s, other}
}

// batchElems is how many weights are quantized at once.
const batchElems = 1 << 16

// quantized compares a quantized weight with the tensor of a role, quantized again.
func quantized(q *aicode.Quantized, u *bundle.Use, s *source) Part {
	best := Part{Name: s.name, Spec: "a scheme that sibyl does not quantize with", Elements: int64(s.rows * s.cols), Diff: Diff{First: -1}, Skipped: true}
	for i, spec := range specs(q, s.cols) {
		p := Part{Name: s.name, Spec: spec.String(), Elements: int64(s.rows * s.cols), Diff: Diff{First: -1}}
		for _, span := range spansOf(u, s) {
			compareRows(&p.Diff, q, spec, s, span)
		}
		p.Diff.finish(p.Elements)
		if i == 0 || p.Diff.Q+p.Diff.Scales < best.Diff.Q+best.Diff.Scales {
			best = p
		}
		if p.Diff.Equal() {
			break
		}
	}
	return best
}

func spansOf(u *bundle.Use, s *source) []bundle.Span {
	if len(u.Spans) > 0 {
		return u.Spans
	}
	return []bundle.Span{{N: s.rows}}
}

// compareRows quantizes the rows of a span and compares q, scales and minvals.
func compareRows(d *Diff, q *aicode.Quantized, spec quant.Spec, s *source, span bundle.Span) {
	step := max(1, batchElems/s.cols)
	per := s.cols / spec.Block
	w := make([]float32, step*s.cols)
	for row := 0; row < span.N; row += step {
		n := min(step, span.N-row)
		s.read(w[:n*s.cols], span.To+row)
		wantQ, wantS, wantM := spec.EncodeRows(w[:n*s.cols], s.cols)
		at := int64(span.From+row) * int64(s.cols)
		scaleAt := int64(span.From+row) * int64(per)
		haveQ := qBytes(q.Data, at, int64(len(wantQ)))
		haveS := pairs(q.Scale, scaleAt, int64(n*per))
		haveM := wantM
		if wantM != nil {
			haveM = pairs(q.Offset2, scaleAt, int64(n*per))
		}
		if string(haveQ) == string(wantQ) && string(haveS) == string(wantS) && string(haveM) == string(wantM) {
			continue
		}
		d.count(haveQ, wantQ, haveS, wantS, haveM, wantM)
		signed := spec.Format != quant.U4
		for i := range wantQ {
			b := i / spec.Block
			x := dequant(haveQ[i], haveS, haveM, b, signed) - dequant(wantQ[i], wantS, wantM, b, signed)
			if x != 0 || haveQ[i] != wantQ[i] {
				d.distance(int64(span.To+row)*int64(s.cols)+int64(i), x)
			}
		}
	}
}

func (d *Diff) count(haveQ, wantQ, haveS, wantS, haveM, wantM []byte) {
	for i := range wantQ {
		if haveQ[i] != wantQ[i] {
			d.Q++
		}
	}
	for i := 0; i < len(wantS); i += 2 {
		if haveS[i] != wantS[i] || haveS[i+1] != wantS[i+1] {
			d.Scales++
		}
	}
	for i := 0; i < len(wantM); i += 2 {
		if haveM[i] != wantM[i] || haveM[i+1] != wantM[i+1] {
			d.Mins++
		}
	}
}

// dequant is the weight that the graph computes with: fp16(q * scale), or bf16(bf16(scale * q) + minval).
func dequant(q byte, scale, low []byte, block int, signed bool) float64 {
	s := binary.LittleEndian.Uint16(scale[2*block:])
	if signed {
		return float64(precision.F16ToF32(precision.F32ToF16(float32(int8(q)) * precision.F16ToF32(s))))
	}
	y := precision.BF16ToF32(precision.F32ToBF16(float32(q) * precision.BF16ToF32(s)))
	m := precision.BF16ToF32(binary.LittleEndian.Uint16(low[2*block:]))
	return float64(precision.BF16ToF32(precision.F32ToBF16(y + m)))
}

// qBytes gives n elements of q from at on, one a byte.
func qBytes(k *aicode.Const, at, n int64) []byte {
	switch {
	case k.Type.Elem == aicode.I8 && !k.Splat:
		return k.Data[at : at+n]
	case k.Type.Elem.Bits() == 4 && !k.Splat && at%2 == 0 && n%2 == 0:
		return bundle.Nibbles(make([]byte, 0, n), k.Data[at/2:(at+n)/2], k.Type.Elem == aicode.I4)
	}
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(k.Int(at + int64(i)))
	}
	return out
}

// pairs gives n 16-bit elements from at on.
func pairs(k *aicode.Const, at, n int64) []byte {
	if !k.Splat {
		return k.Data[2*at : 2*(at+n)]
	}
	out := make([]byte, 0, 2*n)
	for range n {
		out = append(out, k.Data...)
	}
	return out
}
