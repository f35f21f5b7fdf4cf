package graph

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/safetensors"
	"sibyl/internal/shown"
	"sibyl/precision"
)

// sample is a bundle of testdata with what Apple's runtime said about it.
type sample struct {
	name    string
	model   string
	file    *safetensors.File
	prompts []string
}

func samples(t testing.TB) []sample {
	t.Helper()
	files, err := filepath.Glob("../testdata/bundles/*/runtime.safetensors")
	if err != nil || len(files) == 0 {
		t.Fatal("no samples", err)
	}
	var out []sample
	for _, file := range files {
		f, err := safetensors.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		dir := filepath.Dir(file)
		models, err := filepath.Glob(dir + "/*.aimodel")
		if err != nil || len(models) != 1 {
			t.Fatal(dir, models, err)
		}
		s := sample{filepath.Base(dir), models[0], f, nil}
		for _, x := range f.Tensors() {
			if p, ok := strings.CutSuffix(x.Name, ".input_ids"); ok {
				s.prompts = append(s.prompts, p)
			}
		}
		out = append(out, s)
	}
	return out
}

// floats gives a tensor as float32, nil if it is not there.
func (s *sample) floats(name string) []float32 {
	x, ok := s.file.Tensor(name)
	if !ok {
		return nil
	}
	out := make([]float32, x.Elements())
	for i := range out {
		switch x.DType {
		case safetensors.I32:
			out[i] = float32(int32(binary.LittleEndian.Uint32(x.Data[4*i:])))
		case safetensors.F16:
			out[i] = precision.F16ToF32(binary.LittleEndian.Uint16(x.Data[2*i:]))
		case safetensors.BF16:
			out[i] = precision.BF16ToF32(binary.LittleEndian.Uint16(x.Data[2*i:]))
		default:
			panic(x.DType)
		}
	}
	return out
}

func (s *sample) ids(name string) []int32 {
	var out []int32
	for _, v := range s.floats(name) {
		out = append(out, int32(v))
	}
	return out
}

func open(t testing.TB, model, contract string) *Engine {
	t.Helper()
	e, err := driver{}.Open(t.Context(), engine.Spec{Model: model, Contract: contract})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e.(*Engine)
}

// TestRuntimeBits: with coreai-cpu's arithmetic the graph gives every bit that Apple's CPU runtime for Linux gave.
func TestRuntimeBits(t *testing.T) {
	t.Parallel()
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			e := open(t, s.model, "coreai-cpu")
			for _, p := range s.prompts {
				if testing.Short() && len(s.ids(p+".input_ids")) > 20 {
					continue
				}
				t.Run(p, func(t *testing.T) { runtimePrompt(t, e, &s, p) })
			}
		})
	}
}

// runtimePrompt holds what the runtime recorded of a prompt against the same calls: a token a call with 16 greedy tokens
// after them, the whole prompt in one call, and function prefill with main behind it.
func runtimePrompt(t *testing.T, e *Engine, s *sample, p string) {
	ids := s.ids(p + ".input_ids")
	kind := p + "."
	if s.floats(p+".logits") == nil {
		kind = p + ".decode."
	}
	seq := e.layout.start()
	got := rows(t, e, seq, ids, engine.Path{Chunk: 1}, 0)
	differ(t, kind+"logits", got, s.floats(kind+"logits"))
	s.states(t, e, seq, kind)
	s.greedy(t, e, seq, kind, got[len(got)-e.info.VocabSize:])

	if want := s.floats(p + ".main_whole.logits"); want != nil {
		seq = e.layout.start()
		differ(t, p+".main_whole.logits", rows(t, e, seq, ids, engine.Path{}, 0), want)
		s.states(t, e, seq, p+".main_whole.")
	}
	if want := s.floats(p + ".prefill.logits_last"); want != nil {
		seq = e.layout.start()
		rows(t, e, seq, ids[:len(ids)-1], engine.Path{}, len(ids)) // nothing is asked for: function prefill
		s.states(t, e, seq, p+".prefill.")
		got = rows(t, e, seq, ids[len(ids)-1:], engine.Path{}, 0)
		differ(t, p+".prefill.logits_last", got, want)
		s.greedy(t, e, seq, p+".prefill.", got)
	}
}

// rows consumes ids and gives the logits of positions from on.
func rows(t *testing.T, e *Engine, seq *sequence, ids []int32, path engine.Path, from int) (out []float32) {
	t.Helper()
	a := asked{from: from, logits: true, each: func(q *engine.Position) error { out = append(out, q.Logits...); return nil }}
	if err := e.prompt(t.Context(), seq, engine.Prompt{IDs: ids}, path, a); err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *sample) states(t *testing.T, e *Engine, seq *sequence, kind string) {
	t.Helper()
	for i, a := range e.layout.handles {
		differ(t, kind+a.name, filled(e, seq, i).floats(), s.floats(kind+a.name))
	}
}

// filled is the i-th state, caches cut to the tokens they hold.
func filled(e *Engine, seq *sequence, i int) *Tensor {
	x := seq.states[i].t
	if a := e.layout.handles[i]; a == e.layout.key || a == e.layout.value {
		x = x.part(3, 0, seq.len)
	}
	return x
}

func (s *sample) greedy(t *testing.T, e *Engine, seq *sequence, kind string, logits []float32) {
	t.Helper()
	for i, want := range s.ids(kind + "greedy.ids") {
		got := shown.Position(0, i, logits, 2, false).ID
		if got != want {
			t.Errorf("%sgreedy token %d: %d, want %d", kind, i, got, want)
			return
		}
		logits = rows(t, e, seq, []int32{got}, engine.Path{}, 0)
	}
}

// differ compares bits.
func differ(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	n, first := 0, -1
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n > 0 {
		t.Errorf("%s: %d of %d values differ, first at %d: %v, want %v", what, n, len(want), first, got[first], want[first])
	}
}
