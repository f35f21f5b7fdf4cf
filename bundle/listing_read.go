package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math"

	"sibyl/bundle/aicode"
	"sibyl/internal/mmap"
	"sibyl/precision"
)

// Constants of the weight by their names in listings.
func (w *Weight) Constants() (names []string, consts []*aicode.Const) {
	names, consts = []string{"data"}, []*aicode.Const{w.Data.Const}
	switch q := w.Quant; {
	case q == nil:
	case q.Lut != nil:
		names, consts = append(names, "lut"), append(consts, q.Lut)
	default:
		names, consts = append(names, "scale", "offset1", "offset2"), append(consts, q.Scale, q.Offset1, q.Offset2)
	}
	return names, consts
}

// Bytes is what the weight takes in the file: all its constants.
func (w *Weight) Bytes() (n int64) {
	_, consts := w.Constants()
	for _, c := range consts {
		n += int64(len(c.Data))
	}
	return n
}

// Read reads every weight once and fills its Facts; hashes too, if wanted, which takes several times longer. progress, if not
// nil, is told the bytes done and in all.
func (b *Bundle) Read(ctx context.Context, l *Listing, hashes bool, progress func(done, total int64)) error {
	known := map[factKey]*Facts{}
	var done, total int64
	for _, w := range l.Weights {
		if k := w.key(); known[k] == nil {
			known[k] = &Facts{}
			total += w.Bytes()
		}
	}
	clear(known)
	for _, w := range l.Weights {
		if w.Facts = known[w.key()]; w.Facts != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reading weights stopped after %d of %d bytes: %w", done, total, err)
		}
		if err := b.Check(); err != nil {
			return err
		}
		w.Facts = w.read(hashes)
		known[w.key()] = w.Facts
		b.release(w)
		if done += w.Bytes(); progress != nil {
			progress(done, total)
		}
	}
	return nil
}

// release gives a weight's pages back: reading a bundle is no reason to fill the memory.
func (b *Bundle) release(w *Weight) {
	_, consts := w.Constants()
	for _, c := range consts {
		_ = b.Asset.data.Advise(mmap.DontNeed, int(c.Offset), len(c.Data)) // a hint
	}
}

// factKey tells weights of the same bytes and types.
type factKey struct {
	data, scale int64
	typ         string
}

func (w *Weight) key() factKey {
	k := factKey{data: w.Data.Const.Offset, scale: -1, typ: w.Data.Const.Type.String()}
	if w.Quant != nil && w.Quant.Scale != nil {
		k.scale = w.Quant.Scale.Offset
		k.typ += w.Quant.Op.Results[0].Type.String()
	}
	return k
}

func (w *Weight) read(hashes bool) *Facts {
	f := &Facts{}
	if q := w.Quant; q == nil {
		f.Scheme = w.Data.Const.Type.Elem.String()
		f.NaN, f.Inf = nonFiniteConst(w.Data.Const)
	} else {
		f.QMin, f.QMax = q.Data.Range()
		f.Scheme = q.Scheme(f.QMin, f.QMax)
		if q.Scale != nil {
			f.NaN, f.Inf = nonFiniteConst(q.Scale)
		}
	}
	if !hashes {
		return f
	}
	names, consts := w.Constants()
	for i, c := range consts {
		sum := sha256.Sum256(c.Data)
		f.SHA256 = append(f.SHA256, Sum{names[i], hex.EncodeToString(sum[:])})
	}
	if q := w.Quant; q != nil && q.Scale != nil {
		f.QThenScale = qThenScale(q)
		f.Dequant, f.DequantAs = dequantSum(q)
	}
	return f
}

// nonFiniteConst counts the elements that are no numbers.
func nonFiniteConst(c *aicode.Const) (nan, inf int64) {
	n := c.Len()
	if c.Splat {
		n = min(n, 1)
	}
	for i := range n {
		switch v := c.Float(i); {
		case math.IsNaN(v):
			nan++
		case math.IsInf(v, 0):
			inf++
		}
	}
	return nan, inf
}

// qThenScale hashes q as one byte a value and then the scales.
func qThenScale(q *aicode.Quantized) string {
	h := sha256.New()
	writeQ(h, q.Data)
	h.Write(q.Scale.Data)
	return hex.EncodeToString(h.Sum(nil))
}

func writeQ(h hash.Hash, c *aicode.Const) {
	if c.Type.Elem.Bits() == 8 && !c.Splat {
		h.Write(c.Data)
		return
	}
	buf := make([]byte, 0, 1<<14)
	for i := range c.Len() {
		if buf = append(buf, byte(c.Int(i))); len(buf) == cap(buf) {
			h.Write(buf)
			buf = buf[:0]
		}
	}
	h.Write(buf)
}

// dequantSum hashes the dense weight, in the two forms whose rounding is known: fp16(q * scale), and for minval
// bf16(bf16(scale * q) + minval). Source: docs/aimodel.md; both were held against the exporter's own runtime.
func dequantSum(q *aicode.Quantized) (sum, dtype string) {
	elem := q.Scale.Type.Elem
	zero2 := q.Offset2.Zero()
	if !q.Offset1.Zero() || q.Op.Results[0].Type.Elem != elem || !(elem == aicode.F16 && zero2 || elem == aicode.BF16) {
		return "", ""
	}
	h := sha256.New()
	buf := make([]byte, 0, 1<<14)
	eachScaled(q, func(i, s int64) {
		y := float32(q.Data.Int(i)) * float32(q.Scale.Float(s))
		var bits uint16
		if elem == aicode.F16 {
			bits = precision.F32ToF16(y)
		} else {
			bits = precision.F32ToBF16(y)
			if !zero2 {
				bits = precision.F32ToBF16(precision.BF16ToF32(bits) + float32(q.Offset2.Float(s)))
			}
		}
		if buf = append(buf, byte(bits), byte(bits>>8)); len(buf) == cap(buf) {
			h.Write(buf)
			buf = buf[:0]
		}
	})
	h.Write(buf)
	return hex.EncodeToString(h.Sum(nil)), elem.String()
}

// eachScaled calls f for every element of a quantized weight, row by row, with the place of its scale.
func eachScaled(q *aicode.Quantized, f func(i, scale int64)) {
	dims, block, scales := q.Data.Type.Dims, q.Block, q.Scale.Type.Dims
	last := len(dims) - 1
	if q.Data.Len() == 0 {
		return
	}
	at := make([]int64, max(last, 0)) // place of the row, per axis
	for i := int64(0); i < q.Data.Len(); {
		row := int64(0)
		for a := range at {
			row = row*scales[a] + at[a]/block[a]
		}
		if last < 0 {
			f(0, 0)
			return
		}
		row *= scales[last]
		for c := range dims[last] {
			f(i, row+c/block[last])
			i++
		}
		for a := last - 1; a >= 0; a-- {
			if at[a]++; at[a] < dims[a] {
				break
			}
			at[a] = 0
		}
	}
}
