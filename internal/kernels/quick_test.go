package kernels

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"sibyl/precision"
)

// TestFastWeights: a fast product with one that is 1 and zeros is a weight, and it is the definition's, for every q with every
// scale (and some minvals) that 16 bits hold. Where the contract has float32 weights it may be q*s as well. Rows with a weight
// that is no number are TestLinearFastVariants'.
func TestFastWeights(t *testing.T) {
	for _, k := range []kind{{I8Block, precision.F32}, {I8Block, precision.F16}, {I4Block, precision.F32}, {I4Block, precision.F16}, {U4Minval, precision.BF16}} {
		t.Run(fmt.Sprintf("%v/%v", k.f, k.round), func(t *testing.T) { oneByOne(t, linearFastKernel, k, k.round == precision.F32) })
	}
}

// TestExactWeights is TestFastWeights for exact products, which have no other weights under any contract.
func TestExactWeights(t *testing.T) {
	for _, k := range []kind{{I8Block, precision.F32}, {I4Block, precision.F32}, {U4Minval, precision.BF16}} {
		t.Run(k.f.String(), func(t *testing.T) { oneByOne(t, linearExactKernel, k, false) })
	}
}

// oneByOne holds the weights that products see to the definition's; scaled, they may be q*s.
func oneByOne(t *testing.T, of *kernel[linearFunc], k kind, scaled bool) {
	step, cols := 1, 32
	if testing.Short() {
		step = 61
	}
	if k.f == I8Block {
		cols = 256
	}
	rows, per := (1<<16+step-1)/step, cols/32
	r := rand.New(rand.NewPCG(9, uint64(k.f)))
	q, b := make([]byte, rows*k.f.rowBytes(cols)), Blocks{Size: 32, Axis: 1, Scale: make([]byte, 2*rows*per)}
	for i := range q {
		q[i] = byte(i)
		if k.f != I8Block {
			q[i] = byte(i&15 | (i+5)&15<<4)
		}
	}
	if k.f == U4Minval {
		b.Min = make([]byte, len(b.Scale))
	}
	for i := range rows * per {
		s := uint16(i / per * step)
		binary.LittleEndian.PutUint16(b.Scale[2*i:], s)
		if b.Min == nil {
			continue
		}
		// A minval of the scale's size, of any size within bounds, or nothing.
		m := s + uint16(r.IntN(1<<11)) - 1<<10
		switch r.IntN(4) {
		case 0:
			m = uint16(r.IntN(mostMinval)) | uint16(r.IntN(2))<<15
		case 1:
			m = uint16(r.IntN(2)) << 15
		}
		binary.LittleEndian.PutUint16(b.Min[2*i:], m^uint16(r.IntN(2))<<15)
	}
	m, err := NewQuantized(k.f, rows, cols, q, b, k.round)
	if err != nil {
		t.Fatal(err)
	}
	want := m.Floats()
	var judged []int
	for o := range rows {
		finite := true
		for _, v := range want[o*cols:][:cols] {
			finite = finite && v-v == 0
		}
		if finite {
			judged = append(judged, o)
		}
	}
	others(of, func(l Level, run linearFunc) {
		x, out, p := make([]float32, cols), make([]float32, rows), NewPool(2)
		for c := range cols {
			x[c] = 1
			run(p, out, x, 1, m)
			x[c] = 0
			for _, o := range judged {
				if got, w := out[o], want[o*cols+c]; got != w && !(scaled && got == scaledQ(m, o, c)) {
					t.Fatalf("%v, scale %#04x, column %d: %x, want %x", l, o*step, c, got, w)
				}
			}
		}
	})
}

// mostMinval bounds the minvals of the test: the bits of 2^60.
const mostMinval = (127 + 60) << 7

// scaledQ is q*s of an integer format with blocks of 32.
func scaledQ(m *Matrix, o, c int) float32 {
	s := precision.F16ToF32(binary.LittleEndian.Uint16(m.Blocks.Scale[2*(o*m.Cols/32+c/32):]))
	if m.Format == I8Block {
		return float32(int8(m.Data[o*m.Cols+c])) * s
	}
	return float32(int8(m.Data[(o*m.Cols+c)/2]>>(c%2*4)<<4)>>4) * s
}
