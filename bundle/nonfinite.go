package bundle

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"sibyl/internal/mmap"
)

// NonFinite says how many elements of a weight are no numbers.
type NonFinite struct {
	Tensor string // name in the file
	File   string
	NaN    int64
	Inf    int64
}

// String is a line for a warning.
func (n NonFinite) String() string { return fmt.Sprintf("%s: %d NaN, %d Inf", n.Tensor, n.NaN, n.Inf) }

// NonFinite reads all weights in use, on all cores, and gives those that hold NaN or infinities, in canonical
// order. progress, if not nil, is told the bytes done and in all, from one goroutine at a time.
func (w *weights) NonFinite(ctx context.Context, progress func(done, total int64)) ([]NonFinite, error) {
	var parts []Tensor
	_ = w.each(func(_ string, _ DType, _ []int, p []Tensor) error { // no error comes from this function
		for _, t := range p {
			parts = append(parts, t.floats()...)
		}
		return nil
	})
	counts := make([]NonFinite, len(parts))
	var done, total int64
	for _, t := range parts {
		total += int64(len(t.Data))
	}
	for i, t := range parts {
		var err error
		if counts[i], err = w.scan(ctx, t); err != nil {
			return nil, fmt.Errorf("reading stopped after %d of %d bytes: %w", done, total, err)
		}
		if done += int64(len(t.Data)); progress != nil {
			progress(done, total)
		}
	}
	var found []NonFinite
	for _, n := range counts {
		if n.NaN+n.Inf > 0 {
			found = append(found, n)
		}
	}
	return found, nil
}

// floats is a weight's bytes that could be no numbers: of a quantized one the scales and minvals.
func (t Tensor) floats() (out []Tensor) {
	if t.Parts != nil {
		for _, p := range t.Parts {
			out = append(out, p.floats()...)
		}
		return out
	}
	if t.Quant == nil {
		return []Tensor{t}
	}
	out = []Tensor{{Name: t.Name + ".scale", File: t.File, DType: quantFormats[t.Quant.Format].scale, Data: t.Quant.Scale}}
	if len(t.Quant.Min) > 0 {
		out = append(out, Tensor{Name: t.Name + ".minval", File: t.File, DType: BF16, Data: t.Quant.Min})
	}
	return out
}

// scan counts one tensor, in blocks spread over the cores, and lets go of each.
func (w *weights) scan(ctx context.Context, t Tensor) (NonFinite, error) {
	blocks := (len(t.Data) + scanBlock - 1) / scanBlock
	w.hintBytes(t.Data[:min(len(t.Data), scanAhead)], mmap.WillNeed)
	nan, inf := make([]int64, blocks), make([]int64, blocks)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range blocks {
		if ctx.Err() != nil {
			break
		}
		b := t.Data[i*scanBlock : min((i+1)*scanBlock, len(t.Data))]
		next := t.Data[min(i*scanBlock+scanAhead, len(t.Data)):min((i+1)*scanBlock+scanAhead, len(t.Data))]
		g.Go(func() (err error) {
			defer mmap.Catch(&err)()
			w.hintBytes(next, mmap.WillNeed)
			nan[i], inf[i] = countNonFinite(b, t.DType)
			w.hintBytes(b, mmap.DontNeed)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return NonFinite{}, err
	}
	n := NonFinite{Tensor: t.Name, File: t.File}
	for i := range blocks {
		n.NaN += nan[i]
		n.Inf += inf[i]
	}
	return n, ctx.Err()
}

// layouts are the three float formats as bits: an element is not finite when all bits of exp are set, and infinite
// when moreover no bit of frac is.
var layouts = map[DType]struct{ width, exp, frac uint64 }{
	F32:  {32, 0x7f800000, 0x007fffff},
	F16:  {16, 0x7c00, 0x03ff},
	BF16: {16, 0x7f80, 0x007f},
}

// countNonFinite looks at eight bytes at a time, and at single elements only where some exponent is all ones.
func countNonFinite(b []byte, d DType) (nan, inf int64) {
	l := layouts[d]
	var exp, one uint64 // exp and 1 in every lane
	for s := uint64(0); s < 64; s += l.width {
		exp |= l.exp << s
		one |= 1 << s
	}
	high := one << (l.width - 1)
	lane := func(word uint64) {
		for s := uint64(0); s < 64; s += l.width {
			if x := word >> s; x&l.exp == l.exp {
				if x&l.frac == 0 {
					inf++
				} else {
					nan++
				}
			}
		}
	}
	for ; len(b) >= 8; b = b[8:] {
		word := binary.LittleEndian.Uint64(b)
		// x is zero in a lane whose exponent is all ones, and never has the lane's top bit, which is the sign: so
		// x - 1 has it just there. A borrow may also flag the lane above: lane looks again.
		if x := ^word & exp; (x-one)&high != 0 {
			lane(word)
		}
	}
	if len(b) > 0 {
		var rest [8]byte // zeros are finite
		copy(rest[:], b)
		lane(binary.LittleEndian.Uint64(rest[:]))
	}
	return nan, inf
}
