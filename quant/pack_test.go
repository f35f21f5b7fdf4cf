package quant

import (
	"encoding/binary"
	"math"
	"testing"

	"sibyl/config"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// TestPack: the bytes read back are the values that View gives, for every quantized format.
func TestPack(t *testing.T) {
	t.Parallel()
	const rows, cols = 3, 64
	var data []byte
	for i := range rows * cols {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(math.Sin(float64(i*i)))))
	}
	m, err := kernels.NewMatrix(kernels.F32, rows, cols, data, precision.F32)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Spec{int8Clip, int8Sym, int4Clip, u4Min, {Format: Int4, Block: 16, Axis: 1, Symmetric: true}} {
		a := &Assignment{layers: [][config.NumRoles]Spec{{config.UpProj: s}}}
		view, err := a.View(0, config.UpProj, m)
		if err != nil {
			t.Fatal(err)
		}
		p, ok, err := a.Pack(0, config.UpProj, m)
		if err != nil || !ok {
			t.Fatalf("%s: %v, %v", s, ok, err)
		}
		got, err := kernels.NewQuantized(formatTable[p.Format].kern, rows, cols, p.Q, kernels.Blocks{Size: p.Block, Axis: 1, Scale: p.Scale, Min: p.Min}, precision.F32)
		if err != nil {
			t.Fatal(err)
		}
		x, y := got.Floats(), view.Floats()
		for i := range x {
			if math.Float32bits(x[i]) != math.Float32bits(y[i]) {
				t.Fatalf("%s: element %d is %v, View gives %v", s, i, x[i], y[i])
			}
		}
	}
	for _, s := range []Spec{fp16, {Format: Int8, Block: 3, Axis: 0}} {
		a := &Assignment{layers: [][config.NumRoles]Spec{{config.UpProj: s}}}
		if _, ok, err := a.Pack(0, config.UpProj, m); ok || err != nil {
			t.Errorf("%s: %v, %v, want View to serve it", s, ok, err)
		}
	}
}
