package plain64

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/bundle"
	"sibyl/engine"
)

// goldens is where the goldens of the original implementation are; each set has its manifest and generator there.
const goldens = "../testdata/goldens"

// checkpointOf gives the folder that holds a set's weights.
func checkpointOf(set string) string {
	switch set {
	case "long-dense-gva":
		set = "tiny-dense-gva"
	case "long-opticks", "opticks-2m":
		return "" // the embedded demo model
	}
	return filepath.Join(goldens, set)
}

func open(t testing.TB, set string) *Engine {
	t.Helper()
	e, err := engine.Open(context.Background(), "fp64", engine.Spec{Model: checkpointOf(set)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e.(*Engine)
}

// tensor is a golden: F32 or I32, exact in float64.
type tensor struct {
	shape []int
	data  []float64
}

func (x tensor) ids() []int32 {
	out := make([]int32, len(x.data))
	for i, v := range x.data {
		out[i] = int32(v)
	}
	return out
}

// row gives row i of a tensor [n, width].
func (x tensor) row(i int) []float64 {
	w := x.shape[len(x.shape)-1]
	return x.data[i*w : (i+1)*w]
}

// golden reads a set's golden.safetensors; a reader of its own, so that the reader under test elsewhere cannot hide an error here.
func golden(t testing.TB, set string) map[string]tensor {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldens, set, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(b)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	out := map[string]tensor{}
	for name, raw := range header {
		var e struct {
			DType   bundle.DType `json:"dtype"`
			Shape   []int        `json:"shape"`
			Offsets [2]int       `json:"data_offsets"`
		}
		if name == "__metadata__" {
			continue
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		data := b[8+int(n):][e.Offsets[0]:e.Offsets[1]]
		x := tensor{shape: e.Shape}
		for i := 0; i+4 <= len(data); i += 4 {
			v := binary.LittleEndian.Uint32(data[i:])
			switch e.DType {
			case "F32":
				x.data = append(x.data, float64(math.Float32frombits(v)))
			case "I32":
				x.data = append(x.data, float64(int32(v)))
			}
		}
		out[name] = x
	}
	return out
}

// collector is a sink that keeps everything and holds the engine to the order of the rows.
type collector struct {
	t    testing.TB
	data []map[string][]float64 // per sequence
	rows []map[string]int
}

func (c *collector) Wants(string) bool { return true }

func (c *collector) Put(name string, seq, pos, rows int, x []float32) error {
	for len(c.data) <= seq {
		c.data = append(c.data, map[string][]float64{})
		c.rows = append(c.rows, map[string]int{})
	}
	if c.rows[seq][name] != pos {
		c.t.Errorf("%s: rows at position %d, want them at %d", name, pos, c.rows[seq][name])
	}
	c.rows[seq][name] += rows
	for _, v := range x {
		c.data[seq][name] = append(c.data[seq][name], float64(v))
	}
	return nil
}

// distance is the largest |got-want| and the largest |want|; NaN anywhere, or lengths that differ, give +Inf.
func distance(got, want []float64) (diff, largest float64) {
	if len(got) != len(want) {
		return math.Inf(1), 1
	}
	for i := range want {
		d := math.Abs(got[i] - want[i])
		if d != d {
			return math.Inf(1), 1
		}
		diff, largest = max(diff, d), max(largest, math.Abs(want[i]))
	}
	return diff, largest
}

// score runs one prompt and gives every logit row (float32), position by position.
func score(t testing.TB, e *Engine, p engine.Prompt, want engine.Want) (rows [][]float64, ids []int32) {
	t.Helper()
	want.Logits = true
	err := e.Score(context.Background(), []engine.Prompt{p}, want, func(p *engine.Position) error {
		row := make([]float64, len(p.Logits))
		for i, v := range p.Logits {
			row[i] = float64(v)
		}
		rows, ids = append(rows, row), append(ids, p.ID)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows, ids
}

// prompts lists a set's prompts by prefix: "p1", "p17", ...
func prompts(g map[string]tensor) map[string][]int32 {
	out := map[string][]int32{}
	for name, x := range g {
		if p, ok := strings.CutSuffix(name, ".input_ids"); ok {
			out[p] = x.ids()
		}
	}
	return out
}

func errText(err error) string {
	if err == nil {
		return "no error"
	}
	return fmt.Sprint(err)
}
