package aicode

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// use reads what others read of a program.
func use(p *Program) {
	for _, g := range p.Graphs {
		_ = g.Body.Walk(func(op *Op) error {
			if q, err := op.Quantized(); q != nil && err == nil && q.Data.Len() < 1<<16 {
				q.Scheme(q.Data.Range())
			}
			if op.Const != nil && op.Const.Len() < 1000 {
				op.Const.Ints()
				op.Const.Floats()
			}
			return nil
		})
	}
}

// FuzzDecode: small files, assembled by hand.
func FuzzDecode(f *testing.F) {
	f.Add(one(nil))
	f.Add(one(func(a *assembly, c int) {
		a.keys, a.blobs = []string{"w"}, [][]byte{{0, 0x3c, 0, 0x40}}
		a.op("primitive.constant_v1", add(&a.props, num(a.attr(num(7), num(0)))), []int{c}, nil)
		a.op("primitive.add_v1", -1, []int{c}, []int{0, 1})
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := Decode(b, "fuzz"); err == nil {
			use(p)
		}
	})
}

// FuzzEdits: sample bundles with some bytes outside their blobs changed: place (4 bytes) and value.
func FuzzEdits(f *testing.F) {
	files, err := filepath.Glob("../../testdata/bundles/*/*.aimodel/main.mlirb")
	if err != nil || len(files) == 0 {
		f.Fatal("no samples", err)
	}
	var samples [][]byte
	var places [][]span
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		samples, places = append(samples, b), append(places, spots(f, b))
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(5), []byte{9, 0, 0, 0, 0xff, 200, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		n := int(which) % len(samples)
		b := append([]byte(nil), samples[n]...)
		for ; len(edits) >= 5; edits = edits[5:] {
			at := int64(binary.LittleEndian.Uint32(edits))
			s := places[n][int(at)%len(places[n])]
			if at = s.off + at/int64(len(places[n]))%s.size; at >= 0 && at < int64(len(b)) {
				b[at] = edits[4]
			}
		}
		if p, err := Decode(b, "fuzz"); err == nil {
			use(p)
		}
	})
}
