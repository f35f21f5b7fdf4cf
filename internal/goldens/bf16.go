package goldens

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/internal/safetensors"
	"sibyl/precision"
)

// Modules is a set of testdata/bf16-modules: what every module of a Hugging Face model loaded in bfloat16 was given and
// gave back. Its README.txt holds the names, the boundary table and the bounds that Points applies.
type Modules struct {
	*Set
	Prompt  string // the tensors' first part, "p17"
	Calls   []ModuleCall
	weights map[string]Tensor
}

// ModuleCall is one call of the model: the prefill, then single tokens on the same cache.
type ModuleCall struct {
	Prefix string // of the tensors' names, with the dot
	IDs    []int32
	Pos    int  // tokens consumed before
	Step   bool // not the prefill
}

// LoadModules reads testdata/bf16-modules/NAME with the stored weights of the checkpoint it was made from.
func LoadModules(t testing.TB, name string) *Modules {
	t.Helper()
	dir := filepath.Join(Root(), "..", "bf16-modules")
	m := &Modules{Set: &Set{Name: name, Model: filepath.Join(Root(), name), Tensors: map[string]Tensor{}}, weights: map[string]Tensor{}}
	readInto(t, m.Tensors, filepath.Join(dir, name+".safetensors"))
	files, err := filepath.Glob(filepath.Join(m.Model, "model*.safetensors"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no weights (%v)", m.Model, err)
	}
	for _, f := range files {
		readInto(t, m.weights, f)
	}
	b, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var head struct {
		Prompt string
		Calls  []string
	}
	if err := json.Unmarshal(b, &head); err != nil {
		t.Fatal(err)
	}
	m.Prompt = head.Prompt
	pos := 0
	for _, c := range head.Calls {
		call := ModuleCall{Prefix: m.Prompt + ".", Pos: pos, Step: c != "prefill"}
		if call.Step {
			call.Prefix += c + "."
		}
		call.IDs = m.Get(t, call.Prefix+"input_ids").IDs()
		m.Calls = append(m.Calls, call)
		pos += len(call.IDs)
	}
	return m
}

func readInto(t testing.TB, dst map[string]Tensor, path string) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, x := range f.Tensors() {
		dst[x.Name] = Tensor{Shape: slices.Clone(x.Shape), Data: widen(x)}
	}
}

// widen reads any of the goldens' types as float32, in which all their values are exact (ids and positions are small).
func widen(x safetensors.Tensor) []float32 {
	var one func(b []byte) float32
	size := 4
	switch x.DType {
	case "F32":
		one = func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }
	case "I32":
		one = func(b []byte) float32 { return float32(int32(binary.LittleEndian.Uint32(b))) }
	case "I64":
		size, one = 8, func(b []byte) float32 { return float32(int64(binary.LittleEndian.Uint64(b))) }
	case "F16":
		size, one = 2, func(b []byte) float32 { return precision.F16ToF32(binary.LittleEndian.Uint16(b)) }
	case "BF16":
		size, one = 2, func(b []byte) float32 { return precision.BF16ToF32(binary.LittleEndian.Uint16(b)) }
	default:
		return nil
	}
	out := make([]float32, 0, len(x.Data)/size)
	for b := x.Data; len(b) > 0; b = b[size:] {
		out = append(out, one(b))
	}
	return out
}

// Get gives a golden that must be there.
func (m *Modules) Get(t testing.TB, name string) Tensor {
	t.Helper()
	x, ok := m.Tensors[name]
	if !ok || len(x.Data) == 0 {
		t.Fatalf("bf16-modules %s has no %s", m.Name, name)
	}
	return x
}

// Weight gives a stored weight by its name after "model.language_model.".
func (m *Modules) Weight(t testing.TB, name string) Tensor {
	t.Helper()
	for _, full := range []string{"model.language_model." + name, name} {
		if x, ok := m.weights[full]; ok {
			return x
		}
	}
	t.Fatalf("checkpoint %s has no %s", m.Name, name)
	return Tensor{}
}

// Force is a sink that hands every tap with a golden to Check and then puts the golden in its place. Taps are the
// engine's own buffers, so each module that follows is fed what the original's was fed: one run holds every module apart.
type Force struct {
	Modules *Modules
	Prefix  string // the call's
	Check   func(tap string, got, want []float32)
}

// Wants implements engine.Sink.
func (f *Force) Wants(name string) bool { return len(f.Modules.Tensors[f.Prefix+name].Data) > 0 }

// Put implements engine.Sink.
func (f *Force) Put(name string, _, _, _ int, x []float32) error {
	want := f.Modules.Tensors[f.Prefix+name].Data
	f.Check(name, x, want)
	copy(x, want)
	return nil
}

// SumAbs gives, when it is called, sum_i |x[t, i] * w[o, i]| as [rows, outs]: the size that a sum's rounding errors
// scale with.
func SumAbs(x, w []float32, inner int) func() []float64 {
	return func() []float64 {
		rows, outs := len(x)/inner, len(w)/inner
		out := make([]float64, rows*outs)
		for t := range rows {
			for o := range outs {
				for i, v := range x[t*inner:][:inner] {
					out[t*outs+o] += math.Abs(float64(v) * float64(w[o*inner+i]))
				}
			}
		}
		return out
	}
}

// LayerTap takes "layer3.attn.q_rope" apart; ok is false for taps outside of layers.
func LayerTap(name string) (layer int, tap string, ok bool) {
	rest, ok := strings.CutPrefix(name, "layer")
	if !ok {
		return 0, name, false
	}
	digits, tap, ok := strings.Cut(rest, ".")
	for _, d := range digits {
		layer = 10*layer + int(d-'0')
	}
	return layer, tap, ok
}

// BF16Sets are the sets of testdata/bf16-modules.
var BF16Sets = []string{"tiny-dense-gva", "tiny-moe"}
