package quant

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"

	"golang.org/x/sync/errgroup"

	"sibyl/bundle"
	"sibyl/internal/inputerr"
	"sibyl/precision"
)

// pieceElems is how many weights are worked on at once by one goroutine. It is fixed, so that sums, and with them
// every figure, are the same for any number of threads.
const pieceElems = 1 << 18

// piece is some rows of a unit's part, before and after.
type piece struct {
	part, row, rows int // row within the part
	wide            []byte
	data            []byte // as stored: q, or the rounded weights
	scale, min      []byte
	tally           tally
}

// sink takes a unit's bytes: what is "" (unquantized), ".q", ".scale" or ".minval", at a byte offset of that tensor.
type sink func(what string, offset int64, p []byte) error

// hashes are those of one unit.
type hashes struct{ q, min string }

// encode reads a unit piece by piece on up to threads goroutines, quantizes it, and gives the pieces in order to put
// (nil: nowhere). done is told source bytes. A weight that is no number, or none on the format's grid, is an
// *inputerr.Error.
func (u *unit) encode(ctx context.Context, threads int, put sink, done func(int64)) (hashes, tally, error) {
	var sum tally
	h := sha256.New()
	var scales, mins []byte // 1/16 of a byte a weight: kept until q is hashed
	if u.spec.Format.Quantized() {
		scales = make([]byte, 0, 2*(u.elements()/u.spec.Block))
	}
	var offset int64
	take := func(p *piece) error {
		if u.spec.Format.Quantized() {
			h.Write(p.wide)
			scales, mins = append(scales, p.scale...), append(mins, p.min...)
		}
		sum.add(&p.tally)
		if put == nil {
			return nil
		}
		what := ""
		if u.spec.Format.Quantized() {
			what = ".q"
		}
		err := put(what, offset, p.data)
		offset += int64(len(p.data))
		return err
	}
	err := u.pieces(ctx, threads, func(p *piece) error {
		done(int64(p.rows*u.cols) * u.sourceBytes() / int64(u.elements()))
		return take(p)
	})
	if err != nil || !u.spec.Format.Quantized() {
		return hashes{}, sum, err
	}
	h.Write(scales)
	out := hashes{q: hex.EncodeToString(h.Sum(nil))}
	if len(mins) > 0 {
		low := sha256.Sum256(mins)
		out.min = hex.EncodeToString(low[:])
	}
	if put != nil {
		if err = put(".scale", 0, scales); err == nil && len(mins) > 0 {
			err = put(".minval", 0, mins)
		}
	}
	return out, sum, err
}

// step is how many rows a piece has: whole blocks.
func (u *unit) step() int {
	step := max(1, pieceElems/u.cols)
	if u.spec.Format.Quantized() && u.spec.Axis == 0 {
		step = max(1, step/u.spec.Block) * u.spec.Block
	}
	return step
}

// pieces works on a batch of pieces at a time and hands them over in order.
func (u *unit) pieces(ctx context.Context, threads int, take func(*piece) error) error {
	step := u.step()
	var batch []*piece
	flush := func() error {
		var g errgroup.Group
		for _, p := range batch {
			g.Go(func() (err error) {
				defer bundle.Catch(&err)()
				return u.work(p)
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, p := range batch {
			if err := take(p); err != nil {
				return err
			}
		}
		batch = batch[:0]
		return nil
	}
	for part := range u.parts {
		for row := 0; row < u.rows; row += step {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("quantizing stopped at %s: %w", u.name, err)
			}
			batch = append(batch, &piece{part: part, row: row, rows: min(step, u.rows-row)})
			if len(batch) == threads {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// work fills a piece.
func (u *unit) work(p *piece) error {
	m, err := u.matrix(p.part)
	if err != nil {
		return err
	}
	n := p.rows * u.cols
	w, before := make([]float32, n), make([]float32, n)
	for r := range p.rows {
		m.Row(before[r*u.cols:], p.row+r)
	}
	copy(w, before)
	if !u.spec.Format.Quantized() {
		formatTable[u.spec.Format].round.Slice(w)
		if err := u.finite(p, before, w); err != nil {
			return err
		}
		p.data = u.store(w)
		p.tally.plain(before, w)
		return nil
	}
	c := u.spec.codec()
	c.base().Slice(w)
	if err := u.finite(p, before, w); err != nil {
		return err
	}
	fits := u.spec.encode(c, w, u.cols)
	p.wide, p.data = make([]byte, n), make([]byte, u.spec.Format.packed(n))
	packInt8(p.wide, w)
	u.spec.Format.pack(p.data, w)
	for _, f := range fits {
		p.scale = binary.LittleEndian.AppendUint16(p.scale, f.scale)
		if c.unsigned() {
			p.min = binary.LittleEndian.AppendUint16(p.min, f.min)
		}
	}
	u.spec.decode(c, w, u.cols, fits)
	p.tally.blocks(u, p, before, w)
	return nil
}

// encode turns rows of weights on the format's base grid into q, in place, and gives the blocks' fits in the order
// in which they are stored. Blocks along columns are whole in w.
func (s Spec) encode(c codec, w []float32, cols int) []fit {
	if s.Axis == 1 {
		fits := make([]fit, len(w)/s.Block)
		for b := range fits {
			x := w[b*s.Block:][:s.Block]
			fits[b] = c.fit(x)
			c.quantize(x, fits[b])
		}
		return fits
	}
	var fits []fit
	for band := range len(w) / (s.Block * cols) {
		fits = append(fits, fitColumns(c, w[band*s.Block*cols:][:s.Block*cols], cols)...)
	}
	for i := range w {
		c.quantize(w[i:i+1], fits[s.blockOf(i, cols)])
	}
	return fits
}

// decode turns q into weights, in place.
func (s Spec) decode(c codec, q []float32, cols int, fits []fit) {
	if s.Axis == 1 {
		for b, f := range fits {
			c.dequantize(q[b*s.Block:][:s.Block], f)
		}
		return
	}
	for i := range q {
		c.dequantize(q[i:i+1], fits[s.blockOf(i, cols)])
	}
}

// blockOf is the block of element i of rows of cols.
func (s Spec) blockOf(i, cols int) int {
	if s.Axis == 1 {
		return i / s.Block
	}
	return i/cols/s.Block*cols + i%cols
}

// store writes unquantized weights as the file has them.
func (u *unit) store(w []float32) []byte {
	switch u.dtype() {
	case bundle.F32:
		b := make([]byte, 0, 4*len(w))
		for _, v := range w {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		return b
	case bundle.BF16:
		b := make([]byte, 0, 2*len(w))
		for _, v := range w {
			b = binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(v)>>16)) // exact: v is on the grid
		}
		return b
	}
	b := make([]byte, 0, 2*len(w))
	for _, v := range w {
		b = binary.LittleEndian.AppendUint16(b, precision.F32ToF16(v))
	}
	return b
}

// finite refuses weights that are no numbers, before or after they are rounded.
func (u *unit) finite(p *piece, before, after []float32) error {
	const inf = 0x7f800000
	bad, overflow, first := 0, 0, -1
	for i := range after {
		if math.Float32bits(after[i])&inf != inf {
			continue
		}
		if math.Float32bits(before[i])&inf == inf {
			bad++
		} else {
			overflow++
		}
		if first < 0 {
			first = i
		}
	}
	if first < 0 {
		return nil
	}
	t := u.parts[p.part]
	e := &inputerr.Error{File: t.File, Field: "tensor " + inputerr.Clip(t.Name, 120), Want: "numbers", Do: "such a model computes nothing: use a sound checkpoint (inspect lists all of its NaN and Inf)"}
	at := fmt.Sprintf("row %d, column %d", p.row+first/u.cols, first%u.cols)
	e.Found = fmt.Sprintf("%d NaN or Inf from %s on", bad, at)
	if bad == 0 {
		e.Found, e.Want = fmt.Sprintf("%d weights from %s on (%g) beyond the largest number of the format", overflow, at, before[first]), "magnitudes below 65520 in fp16"
		e.Do = "keep this tensor in bf16 by a recipe"
	}
	return e
}
