package oracle

import (
	"math"

	"sibyl/trace"
)

// LayerError says what a layer adds to the difference of the two residual streams. With x the stream into the layer
// and y the one out of it, d = TEST - REF, all norms over all tokens and channels:
//
//	total        = |dy| / |y_ref|
//	inherited    = |dx| / |y_ref|         what would be there if the layer's branches agreed exactly
//	contribution = |dy - dx| / |y_ref|    what the branches add: fresh error, and what they make of the inherited
//	mixer, mlp   = the same for the two halves, split at after_mixer
//
// The streams add as vectors, so total <= inherited + contribution; Alignment is the cosine between dx and dy - dx
// (1: the layer makes it worse, -1: it cancels it). Fresh error and error passed on by the branches cannot be told
// apart from two runs alone.
type LayerError struct {
	Layer        int    `json:"layer"`
	Total        Number `json:"total"`
	Inherited    Number `json:"inherited"`
	Contribution Number `json:"contribution"`
	Mixer        Number `json:"mixer"` // null without after_mixer
	MLP          Number `json:"mlp"`
	Alignment    Number `json:"alignment"` // null if either part is zero
}

// layerErrors reads each stream once more, a few blocks at a time. Layers whose streams were not both recorded, or
// hold a non-finite mismatch, are left out.
func (d *differ) layerErrors() ([]LayerError, error) {
	out := []LayerError{}
	for l := 0; l <= d.lastLayer(); l++ {
		x, y := d.lookup(trace.Embed, -1), d.lookup(trace.LayerOut, l)
		if l > 0 {
			x = d.lookup(trace.LayerOut, l-1)
		}
		if x == nil || y == nil || x.n != y.n || x.nonFinite.Ref+x.nonFinite.Test+y.nonFinite.Ref+y.nonFinite.Test > 0 {
			continue
		}
		mid := d.lookup(trace.AfterMixer, l)
		if mid != nil && (mid.n != y.n || mid.nonFinite.Ref+mid.nonFinite.Test > 0) {
			mid = nil
		}
		e, err := d.layerError(l, x, mid, y)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// layerError sums up one layer; mid may be nil.
func (d *differ) layerError(l int, x, mid, y *comparison) (LayerError, error) {
	var dx, fresh, mixer, mlp, cross float64
	bx, bm := make([]float64, blockSize), make([]float64, blockSize) // differences of the block, x and mid
	for off := 0; off < y.n; off += blockSize {
		n := min(blockSize, y.n-off)
		if err := d.difference(x, off, bx[:n]); err != nil {
			return LayerError{}, err
		}
		if mid != nil {
			if err := d.difference(mid, off, bm[:n]); err != nil {
				return LayerError{}, err
			}
		}
		by := make([]float64, n)
		if err := d.difference(y, off, by); err != nil {
			return LayerError{}, err
		}
		for i := range n {
			f := by[i] - bx[i]
			dx += float64(bx[i] * bx[i])
			fresh += float64(f * f)
			cross += float64(f * bx[i])
			if mid != nil {
				m, p := bm[i]-bx[i], by[i]-bm[i]
				mixer += float64(m * m)
				mlp += float64(p * p)
			}
		}
	}
	e := LayerError{Layer: l, Total: Number(relative(y.sumDD, y.sumAA)), Inherited: Number(relative(dx, y.sumAA)),
		Contribution: Number(relative(fresh, y.sumAA)), Mixer: Number(math.NaN()), MLP: Number(math.NaN()), Alignment: Number(math.NaN())}
	if mid != nil {
		e.Mixer, e.MLP = Number(relative(mixer, y.sumAA)), Number(relative(mlp, y.sumAA))
	}
	if dx > 0 && fresh > 0 {
		e.Alignment = Number(cross / (math.Sqrt(dx) * math.Sqrt(fresh)))
	}
	return e, nil
}

// difference fills dst with TEST - REF of a tensor from element off.
func (d *differ) difference(c *comparison, off int, dst []float64) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if err := d.ref.Read(c.info.Name, off, d.a[:len(dst)]); err != nil {
		return err
	}
	if err := d.test.Read(c.info.Name, off, d.b[:len(dst)]); err != nil {
		return err
	}
	for i := range dst {
		dst[i] = float64(d.b[i]) - float64(d.a[i])
	}
	return nil
}
