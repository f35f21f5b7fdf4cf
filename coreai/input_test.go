package coreai

import (
	"encoding/json"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/internal/shown"
)

// TestRefused: what the engine does not run is an input error before a process is started.
func TestRefused(t *testing.T) {
	t.Parallel()
	bundle := samplePath("opticks-2m-int8hu-sym")
	for _, c := range []struct {
		name string
		spec engine.Spec
		want string
	}{
		{"a-checkpoint", engine.Spec{Model: filepath.Join("..", "testdata", "checkpoints", "single")}, "this engine runs converted bundles; a checkpoint runs with @cpu"},
		{"no-such-path", engine.Spec{Model: "nothing/here"}, "nothing/here"},
		{"a-contract", engine.Spec{Model: bundle, Contract: "hf-fp32"}, `contract: found "hf-fp32", want none`},
		{"a-scheme", engine.Spec{Model: bundle, Scheme: "int8lin"}, `scheme: found "int8lin", want none`},
		{"a-mode", engine.Spec{Model: bundle, Mode: "fast"}, `mode: found "fast", want none`},
		{"the-chunk-form", engine.Spec{Model: bundle, Delta: "chunk"}, `delta: found "chunk", want none`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := fakeDriver("dies-in-hello").Open(t.Context(), c.spec)
			if _, ok := errors.AsType[*inputerr.Error](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an input error with %q", err, c.want)
			}
		})
	}
}

// TestLayout: both profiles' states, out of the worker's form and back, by positions written out by hand.
func TestLayout(t *testing.T) {
	t.Parallel()
	kinds := []config.LayerKind{config.GatedDeltaNet, config.FullAttention, config.GatedDeltaNet}
	caches := []Tensor{{Name: "keyCache", Shape: []int{1, 1, 2, -1, 3}, DType: "F16"}, {Name: "valueCache", Shape: []int{1, 1, 2, -1, 3}, DType: "F16"}}
	for _, c := range []struct {
		name      string
		conv, rec Tensor
		want      []float32 // layer 2's conv_state [2 channels, 3]
	}{
		{"zoo-s1", Tensor{Name: "convState", Shape: []int{2, 1, 2, 2}, DType: "F16"}, Tensor{Name: "recState", Shape: []int{2, 1, 2, 3, 4}, DType: "F16"},
			[]float32{0, 4, 5, 0, 6, 7}}, // two columns are kept, the oldest is not there
		{"apple-q35", Tensor{Name: "convStates", Shape: []int{2, 1, 3, 2}, DType: "BF16"}, Tensor{Name: "recurrentStates", Shape: []int{2, 1, 2, 3, 4}, DType: "BF16"},
			[]float32{6, 8, 10, 7, 9, 11}}, // three rows of channels
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, err := newLayout(append(slices.Clone(caches), c.conv, c.rec), kinds)
			if err != nil {
				t.Fatal(err)
			}
			const n = 5
			values := map[string][]float32{}
			for _, s := range l.tensors() {
				size, _ := elements(l.filled(s, n))
				for i := range size {
					values[s.Name] = append(values[s.Name], float32(i))
				}
			}
			st := l.export(n, values)
			if got := st.Tensors["cache.layer2.conv_state"]; !slices.Equal(got.Data, c.want) || !slices.Equal(got.Shape, []int{2, 3}) {
				t.Errorf("conv state %v %v, want %v", got.Shape, got.Data, c.want)
			}
			if got := st.Tensors["cache.layer2.recurrent_state"]; got.Data[0] != 24 || !slices.Equal(got.Shape, []int{2, 3, 4}) {
				t.Errorf("recurrent state %v begins with %v, want 24", got.Shape, got.Data[0])
			}
			if got := st.Tensors["cache.layer1.value"]; got.Data[17] != 17 || !slices.Equal(got.Shape, []int{2, n, 3}) {
				t.Errorf("values %v", got)
			}
			back, err := l.values(st)
			if err != nil {
				t.Fatal(err)
			}
			for name, x := range values {
				if !slices.Equal(back[name], x) {
					t.Errorf("%s comes back as %v, was %v", name, back[name], x)
				}
			}
		})
	}
	for _, c := range []struct {
		why   string
		spoil func([]Tensor) []Tensor
	}{
		{"one is missing", func(ts []Tensor) []Tensor { return ts[:3] }},
		{"one more", func(ts []Tensor) []Tensor {
			return append(ts, Tensor{Name: "x", Shape: []int{1}, DType: "F16"})
		}},
		{"of another number of layers", func(ts []Tensor) []Tensor { ts[3].Shape = []int{1, 1, 2, 3, 4}; return ts }},
		{"dynamic where it may not be", func(ts []Tensor) []Tensor { ts[3].Shape = []int{2, 1, 2, -1, 4}; return ts }},
		{"keys and values differ", func(ts []Tensor) []Tensor { ts[1].Shape = []int{1, 1, 2, -1, 4}; return ts }},
	} {
		states := append(slices.Clone(caches), Tensor{Name: "convState", Shape: []int{2, 1, 2, 2}, DType: "F16"}, Tensor{Name: "recState", Shape: []int{2, 1, 2, 3, 4}, DType: "F16"})
		if _, err := newLayout(c.spoil(states), kinds); err == nil {
			t.Errorf("states are accepted; why not: %s", c.why)
		}
	}
}

// TestNumbers: every dtype out and in again, and the order of candidates with NaN, ties and infinities.
func TestNumbers(t *testing.T) {
	t.Parallel()
	x := []float32{0, float32(math.Copysign(0, -1)), 1.5, -2, 0x1p-14, float32(math.Inf(1))}
	for _, dtype := range []string{"F16", "BF16", "F32"} {
		if got := decode(dtype, encode(dtype, x)); !slices.Equal(got, x) {
			t.Errorf("%s: %v comes back as %v", dtype, x, got)
		}
	}
	row := []float32{1, 3, float32(math.NaN()), 3, float32(math.Inf(1)), -1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, k := range []int{4, len(row)} { // inserted, sorted
		var ids []int32
		for _, c := range shown.Largest(row, k)[:4] {
			ids = append(ids, c.ID)
		}
		if !slices.Equal(ids, []int32{2, 4, 1, 3}) {
			t.Errorf("of %d: ids %v, want NaN, infinity, then the lowest id of the tie", k, ids)
		}
	}
	if p := shown.Position(0, 7, []float32{1, 3, 2, 3}, 2, false); p.ID != 1 || !slices.Equal(p.Ties, []int32{1, 3}) || math.Abs(p.LSE-(3+math.Log(2+math.Exp(-2)+math.Exp(-1)))) > 1e-12 {
		t.Errorf("%+v", p)
	}
}

// FuzzMessage: no line makes parse or what follows it panic, and what passes is what the protocol allows.
func FuzzMessage(f *testing.F) {
	for _, line := range []string{
		`{"id":1,"ok":true,"v":1,"runtime":"coreai-core","version":"1.0.0b3","engine":"coreai-cpu"}`,
		`{"id":1,"ok":true,"functions":["main"],"outputs":[{"name":"logits","shape":[1,1,8],"dtype":"F16"}],"states":[{"name":"keyCache","shape":[1,1,2,-1,3],"dtype":"F16"}],"vocab":8,"call":1,"forcing":"stepwise"}`,
		`{"id":1,"ok":false,"err":{"code":"shape","msg":"no"}}`, `{"id":1,"ev":"step","pos":0,"tok":3,"file":"rows-1","sha256":""}`,
		`{"id":1,"ev":"done","reason":"max","len":3}`, `{"id":1,"ok":true,"vocab":1e30}`, `{"id":1}`, `[]`, "null", "\xff", `{"id":1,"ev":"done","states":[{"shape":[9223372036854775807,2]}]}`,
	} {
		f.Add([]byte(line))
	}
	w := &worker{}
	f.Fuzz(func(t *testing.T, line []byte) {
		if !json.Valid(line) && line != nil {
			if _, err := w.parse(line, 1); failure(err) == nil {
				t.Fatalf("%q is accepted: %v", line, err)
			}
			return
		}
		m, err := w.parse(line, 1)
		if err != nil {
			return
		}
		_ = greet(m)
		if m.Opened.check("x.aimodel") != nil || m.Forcing == GrowingPrefix {
			return
		}
		if out := tensorNamed(m.Outputs, "logits"); out == nil || m.Vocab < 1 || m.Vocab > maxVocab || dtypeBytes[out.DType] == 0 {
			t.Fatalf("%q passes", line)
		}
		if l, err := newLayout(m.States, []config.LayerKind{config.FullAttention, config.GatedDeltaNet}); err == nil {
			for _, s := range l.tensors() {
				if n, ok := elements(l.filled(s, 3)); ok && n < 1 {
					t.Fatalf("%q: state %s of %d values", line, s.Name, n)
				}
			}
		}
	})
}
