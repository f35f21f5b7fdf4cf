package suite

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"sibyl/metal/gpu"
	"sibyl/metal/ops"
	"sibyl/precision"
)

// bench is one case at work: its inputs, its outputs with what they should be, and the ops to run.
type bench struct {
	*rand.Rand
	set  *ops.Set
	ins  []input
	outs []*output
}

type input struct {
	buf  gpu.Buffer
	copy []byte
}

// output is a tensor that kernels write, as F32 or F16 or int32; start is what it holds before (NaN, unless the op reads it).
type output struct {
	name  string
	buf   gpu.Buffer
	n     int
	typ   precision.Round
	ints  bool
	start []float32
	want  []num
	check func(got []float32) error // instead of want
	first []byte                    // of the first order of threads
}

const guard = 64 // bytes behind every output, which no kernel may touch

func newBench(set *ops.Set, name string, seed uint64) *bench {
	h := fnv.New64a()
	h.Write([]byte(name))
	return &bench{Rand: rand.New(rand.NewPCG(seed, h.Sum64())), set: set}
}

func (b *bench) release() {
	for _, i := range b.ins {
		i.buf.Release()
	}
	for _, o := range b.outs {
		o.buf.Release()
	}
}

func (b *bench) buffer(n int) gpu.Buffer {
	buf, err := b.set.Device.Buffer(n)
	if err != nil {
		panic(failed{err})
	}
	return buf
}

// failed carries a device's error to run.
type failed struct{ err error }

// bytes is an input.
func (b *bench) bytes(x []byte) gpu.Slice {
	buf := b.buffer(max(1, len(x)))
	copy(buf.Bytes(), x)
	b.ins = append(b.ins, input{buf, append([]byte(nil), buf.Bytes()...)})
	return gpu.Slice{Buffer: buf}
}

// in is an input of float32.
func (b *bench) in(x []float32) gpu.Slice {
	var p []byte
	for _, v := range x {
		p = binary.LittleEndian.AppendUint32(p, math.Float32bits(v))
	}
	return b.bytes(p)
}

// words is an input of 32-bit integers.
func words[T ~uint32 | ~int32](b *bench, x []T) gpu.Slice {
	var p []byte
	for _, v := range x {
		p = binary.LittleEndian.AppendUint32(p, uint32(v))
	}
	return b.bytes(p)
}

func (b *bench) seqs(s []ops.Seq) gpu.Slice {
	var w []uint32
	for _, q := range s {
		w = append(w, q.Row, q.Len, q.Pos, q.Slot)
	}
	return words(b, w)
}

// normals are n numbers of a normal distribution, on the grid r.
func (b *bench) normals(n int, scale float64, r precision.Round) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = r.Value(float32(b.NormFloat64() * scale))
	}
	return x
}

// out is an output of n elements that starts as NaN.
func (b *bench) out(name string, n int) *output {
	start := make([]float32, n)
	for i := range start {
		start[i] = float32(math.NaN())
	}
	return b.inout(name, start, precision.F32)
}

// inout is a tensor that an op reads and writes, stored as typ.
func (b *bench) inout(name string, start []float32, typ precision.Round) *output {
	o := &output{name: name, n: len(start), typ: typ, start: start}
	o.buf = b.buffer(o.bytes() + guard)
	b.outs = append(b.outs, o)
	return o
}

func (o *output) slice() gpu.Slice { return gpu.Slice{Buffer: o.buf} }

func (o *output) bytes() int {
	if o.typ == precision.F16 {
		return 2 * o.n
	}
	return 4 * o.n
}

// reset writes the start and the guard.
func (o *output) reset() {
	p := o.buf.Bytes()
	for i, v := range o.start {
		if o.typ == precision.F16 {
			binary.LittleEndian.PutUint16(p[2*i:], precision.F32ToF16(v))
		} else {
			binary.LittleEndian.PutUint32(p[4*i:], math.Float32bits(v))
		}
	}
	for i := o.bytes(); i < len(p); i++ {
		p[i] = 0xa5
	}
}

// floats reads the output; integers come as they are.
func (o *output) floats() []float32 {
	p, x := o.buf.Bytes(), make([]float32, o.n)
	for i := range x {
		switch {
		case o.typ == precision.F16:
			x[i] = precision.F16ToF32(binary.LittleEndian.Uint16(p[2*i:]))
		case o.ints:
			x[i] = float32(int32(binary.LittleEndian.Uint32(p[4*i:])))
		default:
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(p[4*i:]))
		}
	}
	return x
}

// finish checks what the run left: guards, inputs, and the same bits in every order of threads.
func (b *bench) finish(order int) error {
	for _, i := range b.ins {
		if string(i.buf.Bytes()) != string(i.copy) {
			return fmt.Errorf("an input was written to")
		}
	}
	for _, o := range b.outs {
		p := o.buf.Bytes()
		for i := o.bytes(); i < len(p); i++ {
			if p[i] != 0xa5 {
				return fmt.Errorf("%s: written %d bytes beyond its end", o.name, i-o.bytes()+1)
			}
		}
		p = p[:o.bytes()]
		if order == 0 {
			o.first = append(o.first[:0], p...)
			continue
		}
		for i := range p {
			if p[i] != o.first[i] {
				return fmt.Errorf("%s: element %d has other bits when threads run in order %d", o.name, i*o.n/o.bytes(), order)
			}
		}
	}
	return nil
}

// measure compares outputs with what they should be.
func (b *bench) measure(r *Result) error {
	var noise, signal float64
	for _, o := range b.outs {
		got := o.floats()
		if o.check != nil {
			if err := o.check(got); err != nil {
				return fmt.Errorf("%s: %w", o.name, err)
			}
		}
		for i := range o.want {
			g, w := float64(got[i]), o.want[i]
			if math.IsInf(w.e, 1) {
				continue
			}
			r.Outputs++
			if float32(w.v) == got[i] {
				r.SameBits++
			}
			d := math.Abs(g - w.v)
			if d == 0 || math.IsInf(w.v, 0) && g == w.v {
				continue
			}
			if !(d <= w.e) {
				return fmt.Errorf("%s[%d]: got %v, want %v, %.3g apart, bound %.3g", o.name, i, got[i], w.v, d, w.e)
			}
			if !w.step { // of a step of the grid there is all or nothing
				r.Worst = math.Max(r.Worst, d/w.e)
			}
			r.MaxULP = math.Max(r.MaxULP, d/ulpOf(w.v))
			noise, signal = noise+d*d, signal+w.v*w.v
		}
	}
	if signal > 0 {
		r.NMSE = noise / signal
	}
	return nil
}

// ulpOf is the distance of float32's neighbours at x.
func ulpOf(x float64) float64 {
	_, e := math.Frexp(x)
	return math.Ldexp(1, max(e-24, -149))
}
