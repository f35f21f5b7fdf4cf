package metal

import (
	"encoding/binary"
	"math"

	"sibyl/metal/gpu"
	"sibyl/precision"
)

// memory gives a device's buffers and counts them against its working set, before anything is allocated. What is not released
// one by one goes with close.
type memory struct {
	dev  gpu.Device
	name string
	used int64
	held map[gpu.Buffer]int64 // what each counts
}

func newMemory(dev gpu.Device, name string) *memory {
	return &memory{dev: dev, name: name, held: map[gpu.Buffer]int64{}}
}

// room refuses what would be beyond the working set.
func (m *memory) room(n int) error {
	if limit := m.dev.Info().WorkingSet; limit > 0 && m.used+int64(n) > limit {
		return gpu.TooLarge(m.name, int64(n), m.used, limit)
	}
	return nil
}

func (m *memory) hold(b gpu.Buffer, n int) {
	m.held[b] = int64(n)
	m.used += int64(n)
}

func (m *memory) buffer(n int) (gpu.Slice, error) {
	n = max(n, 16)
	if err := m.room(n); err != nil {
		return gpu.Slice{}, err
	}
	b, err := m.dev.Buffer(n)
	if err != nil {
		return gpu.Slice{}, err
	}
	m.hold(b, n)
	return gpu.Slice{Buffer: b}, nil
}

// wrap is mapped bytes as they lie; they count too, since the device keeps what it reads. whole is the refusal, failed that the device
// does not take them so.
func (m *memory) wrap(b []byte) (s gpu.Slice, whole, failed error) {
	if err := m.room(len(b)); err != nil {
		return s, err, nil
	}
	buf, offset, err := m.dev.Wrap(b)
	if err != nil {
		return s, nil, err
	}
	m.hold(buf, len(b))
	return gpu.Slice{Buffer: buf, Offset: offset}, nil, nil
}

func (m *memory) drop(b gpu.Buffer) {
	m.used -= m.held[b]
	delete(m.held, b)
	b.Release()
}

func (m *memory) release(s *gpu.Slice) {
	if s.Buffer != nil {
		m.drop(s.Buffer)
		s.Buffer = nil
	}
}

// close releases all that is left.
func (m *memory) close() {
	for b := range m.held {
		m.drop(b)
	}
}

// copied is a buffer that holds b.
func (m *memory) copied(b []byte) (gpu.Slice, error) {
	s, err := m.buffer(len(b))
	if err == nil {
		copy(s.Buffer.Bytes(), b)
	}
	return s, err
}

func (m *memory) floats(x []float32) (gpu.Slice, error) {
	s, err := m.buffer(4 * len(x))
	if err == nil {
		putFloats(s, x)
	}
	return s, err
}

// putFloats and getFloats move float32 between host and buffer; getHalves reads binary16.
func putFloats(s gpu.Slice, x []float32) {
	p := s.Buffer.Bytes()[s.Offset:]
	for i, v := range x {
		binary.LittleEndian.PutUint32(p[4*i:], math.Float32bits(v))
	}
}

func putWords(s gpu.Slice, x []uint32) {
	p := s.Buffer.Bytes()[s.Offset:]
	for i, v := range x {
		binary.LittleEndian.PutUint32(p[4*i:], v)
	}
}

func getFloats(s gpu.Slice, at, n int) []float32 {
	p, x := s.Buffer.Bytes()[s.Offset+4*at:], make([]float32, n)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(p[4*i:]))
	}
	return x
}

// A stored is a state's or cache's memory in its own type.
type stored struct {
	gpu.Slice
	typ precision.Round
}

func (s stored) size() int {
	if s.typ == precision.F16 {
		return 2
	}
	return 4
}

func (s stored) get(i int) float32 {
	p := s.Buffer.Bytes()[s.Offset:]
	if s.typ == precision.F16 {
		return precision.F16ToF32(binary.LittleEndian.Uint16(p[2*i:]))
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(p[4*i:]))
}

func (s stored) put(i int, v float32) {
	p := s.Buffer.Bytes()[s.Offset:]
	if s.typ == precision.F16 {
		binary.LittleEndian.PutUint16(p[2*i:], precision.F32ToF16(v))
		return
	}
	binary.LittleEndian.PutUint32(p[4*i:], math.Float32bits(v))
}
