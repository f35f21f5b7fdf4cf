// Package goldens reads the golden sets under testdata, for tests and for docs/accuracy.md. Each set's golden.json says
// what made it.
package goldens

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sibyl/internal/safetensors"
)

// Root is the folder of the sets, wherever the test runs.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "testdata", "goldens")
}

// Tensor is one golden, in float32; integers are exact in it.
type Tensor struct {
	Shape []int
	Data  []float32
}

// Row gives row i of a tensor whose rows are its last axis.
func (t Tensor) Row(i int) []float32 {
	w := t.Shape[len(t.Shape)-1]
	return t.Data[i*w : (i+1)*w]
}

// IDs gives an integer tensor.
func (t Tensor) IDs() []int32 {
	out := make([]int32, len(t.Data))
	for i, v := range t.Data {
		out[i] = int32(v)
	}
	return out
}

// MaxAbs is the largest magnitude.
func (t Tensor) MaxAbs() float64 {
	m := 0.0
	for _, v := range t.Data {
		m = max(m, math.Abs(float64(v)))
	}
	return m
}

// Set is one golden set.
type Set struct {
	Name    string
	Model   string // the checkpoint it was made from; "" is the demo model
	Tensors map[string]Tensor
}

// Sets of each kind.
var (
	Tiny = []string{"tiny-asym", "tiny-dense-gva", "tiny-dense-tied", "tiny-moe", "tiny-realdims"}
	Edge = []string{"edge-cancel", "edge-decay", "edge-ties", "edge-zero-qk"}
	Long = []string{"long-dense-gva", "long-opticks"}
)

// Load reads set NAME's FILE.safetensors ("golden").
func Load(t testing.TB, name, file string) *Set {
	t.Helper()
	s, err := Read(name, file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Read is Load outside of tests.
func Read(name, file string) (*Set, error) {
	s := &Set{Name: name, Tensors: map[string]Tensor{}}
	switch name {
	case "long-dense-gva":
		s.Model = filepath.Join(Root(), "tiny-dense-gva")
	case "long-opticks", "opticks-2m":
	default:
		s.Model = filepath.Join(Root(), name)
	}
	f, err := safetensors.Open(filepath.Join(Root(), name, file+".safetensors"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for _, x := range f.Tensors() {
		data, err := floats(x)
		if err != nil {
			return nil, err
		}
		s.Tensors[x.Name] = Tensor{Shape: slices.Clone(x.Shape), Data: data}
	}
	return s, nil
}

func floats(x safetensors.Tensor) ([]float32, error) {
	out := make([]float32, 0, len(x.Data)/4)
	switch x.DType {
	case "F32":
		for b := x.Data; len(b) > 0; b = b[4:] {
			out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
	case "I32":
		for b := x.Data; len(b) > 0; b = b[4:] {
			out = append(out, float32(int32(binary.LittleEndian.Uint32(b))))
		}
	case "I8":
		for _, b := range x.Data {
			out = append(out, float32(int8(b)))
		}
	case "F16", "BF16":
		out = widen(x)
	default:
		return nil, fmt.Errorf("golden %s has dtype %s", x.Name, x.DType)
	}
	return out, nil
}

var promptName = regexp.MustCompile(`^(\w+)\.(?:input_ids|prompt_ids|ids)$`)

// Prompts gives the token ids of the set's prompts by name ("p17"; "" for sets with one).
func (s *Set) Prompts() map[string][]int32 {
	out := map[string][]int32{}
	for name, x := range s.Tensors {
		if m := promptName.FindStringSubmatch(name); m != nil {
			out[m[1]] = x.IDs()
		}
	}
	if x, ok := s.Tensors["input_ids"]; ok {
		out[""] = x.IDs()
	}
	return out
}

// JSON reads the set's FILE.json into v.
func (s *Set) JSON(t testing.TB, file string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(Root(), s.Name, file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s/%s.json: %v", s.Name, file, err)
	}
}

// Rollouts are the prompts from which engines' greedy ids are compared, and how many tokens each: the set's short prompts; of the demo
// model 12 of 64 tokens, its eight and four cuts of its passage.
func (s *Set) Rollouts() (prompts [][]int32, tokens int) {
	all := s.Prompts()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if ids := all[name]; len(ids) <= 70 && (s.Name != "opticks-2m" || strings.HasPrefix(name, "g")) {
			prompts = append(prompts, ids)
		}
	}
	if s.Name != "opticks-2m" {
		return prompts, 24
	}
	for i := range 4 {
		prompts = append(prompts, all["passage"][45*i:][:16])
	}
	return prompts, 64
}
