package faults

import (
	"encoding/binary"
	"math"

	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/model"
	"sibyl/precision"
)

// subject is a bound decoder on its way to being wrong.
type subject struct {
	d     *model.Decoder
	sound *kernels.Arith
	mixer map[int]*kernels.Arith // layers whose mixer has an arithmetic of its own

	// Where the fault permutes channels, a state is laid out otherwise inside than outside.
	toInner, toOuter func(*engine.State)
}

func newSubject(d *model.Decoder, sound *kernels.Arith) *subject {
	return &subject{d: d, sound: sound, mixer: map[int]*kernels.Arith{}}
}

// apply runs a fault of the decoder and gives the arithmetic to start with.
func (s *subject) apply(f *Fault, layers []int, strength float32) (*kernels.Arith, error) {
	if f.decoder != nil {
		if err := f.decoder(s, strength); err != nil {
			return nil, err
		}
		return s.sound, nil
	}
	for _, l := range layers {
		if err := f.layer(s, l, strength); err != nil {
			return nil, err
		}
	}
	return s.install(), nil
}

// arith gives layer l's mixer an arithmetic of its own and returns it to be changed.
func (s *subject) arith(l int) *kernels.Arith {
	if s.mixer[l] == nil {
		own := *s.sound
		s.mixer[l] = &own
	}
	return s.mixer[l]
}

func (s *subject) arithOf(l int) *kernels.Arith {
	if a := s.mixer[l]; a != nil {
		return a
	}
	return s.sound
}

// install makes each layer's MLP hand the batch the arithmetic of the next layer's mixer: a batch has one arithmetic for
// all layers, and the MLP is where a layer ends. The last hands it layer 0's, which the final norm and the head also
// meet; faults of mixers therefore leave Linear alone, and InvRMS as it is.
func (s *subject) install() *kernels.Arith {
	if len(s.mixer) == 0 {
		return s.sound
	}
	for l := range s.d.Layers {
		layer := &s.d.Layers[l]
		layer.MLP = &relay{inner: layer.MLP, own: s.sound, next: s.arithOf((l + 1) % len(s.d.Layers))}
	}
	return s.arithOf(0)
}

type relay struct {
	inner     model.FeedForward
	own, next *kernels.Arith
}

// Forward implements model.FeedForward.
func (r *relay) Forward(out, x []float32, batch *ragged.Batch) {
	batch.Arith = r.own
	r.inner.Forward(out, x, batch)
	batch.Arith = r.next
}

// contract gives layer l's mixer a contract of its own and returns it to be changed.
func (s *subject) contract(l int) *precision.Contract {
	layer := &s.d.Layers[l]
	if g := layer.GDN; g != nil {
		c := *g.Contract
		g.Contract = &c
		return &c
	}
	c := *layer.Attention.Contract
	layer.Attention.Contract = &c
	return &c
}

// rowsOf copies a matrix.
func rowsOf(m *kernels.Matrix) [][]float32 {
	rows := make([][]float32, m.Rows)
	for i := range rows {
		rows[i] = make([]float32, m.Cols)
		m.Row(rows[i], i)
	}
	return rows
}

// matrixOf stores rows as they are.
func matrixOf(rows [][]float32) *kernels.Matrix {
	data := make([]byte, 0, 4*len(rows)*len(rows[0]))
	for _, r := range rows {
		for _, v := range r {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
	}
	return &kernels.Matrix{Format: kernels.F32, Rows: len(rows), Cols: len(rows[0]), Data: data}
}

// edit changes a weight through f, which gets its rows.
func edit(m **kernels.Matrix, f func(rows [][]float32) [][]float32) { *m = matrixOf(f(rowsOf(*m))) }

// shift adds by to every element of a vector, which may be shared: it is replaced.
func shift(x *[]float32, by float32) {
	y := make([]float32, len(*x))
	for i, v := range *x {
		y[i] = v + by
	}
	*x = y
}

// chosen says whether element i belongs to the share s of a set: the multiples of the golden ratio spread them evenly,
// and a larger share holds every smaller one.
func chosen(i int, share float32) bool {
	_, frac := math.Modf(float64(i) * 0.6180339887498949)
	return frac < float64(share)
}

// blend is (1-s)*a + s*b, and a itself at s = 0.
func blend(a, b, s float32) float32 { return a + s*(b-a) }
