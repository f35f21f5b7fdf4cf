package coreai

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
	"sibyl/internal/safetensors"
	"sibyl/internal/shown"
)

// Live tests run Apple's own runtime: they need coreai-core in the Python of SIBYL_COREAI_PYTHON, else python3.

// samples are the bundles of testdata. None was made by this repository: see its manifest.
var samples = []string{
	"tiny-dense-tied-fp16", "tiny-dense-tied-int4lin", "tiny-moe-int8hu-sym", "opticks-2m-int8hu-sym",
	"tiny-dense-gva-apple-q35-bf16", "tiny-dense-gva-apple-q35", "tiny-moe-apple-q35", "opticks-2m-apple-q35",
}

func samplePath(name string) string { return filepath.Join("..", "testdata", "bundles", name) }

// samplePathOf is a sample's LanguageBundle, or its .aimodel where there is none.
func sampleModel(t testing.TB, name string) string {
	t.Helper()
	dir := samplePath(name)
	if found, _ := filepath.Glob(filepath.Join(dir, "metadata.json")); len(found) == 1 {
		return dir
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.aimodel"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s holds %d .aimodel folders: %v", dir, len(found), err)
	}
	return found[0]
}

// needRuntime skips, with the way to get it, where the runtime is not installed. A wrong version is a failure.
func needRuntime(t testing.TB) {
	t.Helper()
	w, _, err := Driver{}.worker(t.Context())
	if err == nil {
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	if f := failure(err); f != nil && (f.Code == MissingRuntime || f.Code == NoWorker) {
		t.Skipf("needs Apple's runtime: %v", err)
	}
	t.Fatal(err)
}

func openLive(t testing.TB, name string) *Engine {
	t.Helper()
	e, err := Driver{}.open(t.Context(), engine.Spec{Model: sampleModel(t, name)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// recorded are a sample's runtime.safetensors.
type recorded struct {
	t testing.TB
	f *safetensors.File
}

func readRecorded(t testing.TB, name string) recorded {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(samplePath(name), "runtime.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return recorded{t, f}
}

func (r recorded) has(name string) bool { _, ok := r.f.Tensor(name); return ok }

func (r recorded) ints(name string) (out []int32) {
	r.t.Helper()
	x, ok := r.f.Tensor(name)
	if !ok {
		r.t.Fatalf("no %s", name)
	}
	for i := 0; i < len(x.Data); i += 4 {
		out = append(out, int32(binary.LittleEndian.Uint32(x.Data[i:])))
	}
	return out
}

func (r recorded) floats(name string) []float32 {
	r.t.Helper()
	x, ok := r.f.Tensor(name)
	if !ok {
		r.t.Fatalf("no %s", name)
	}
	return decode(string(x.DType), x.Data)
}

// prompts are the names of the recorded prompts, the shortest first.
func (r recorded) prompts() (out []string) {
	for _, x := range r.f.Tensors() {
		if p, ok := strings.CutSuffix(x.Name, ".input_ids"); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return len(r.ints(a+".input_ids")) - len(r.ints(b+".input_ids")) })
	return out
}

// tally counts bits that are the same.
type tally struct{ same, all int }

func (c *tally) add(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		c.all++
		if got[i] == want[i] {
			c.same++
		}
	}
}

// TestLiveRecorded: the live runtime says what it said when the samples were recorded: every logit along teacher
// forcing token by token, all four states after it, and 16 greedy tokens; in one call too where a graph takes one.
func TestLiveRecorded(t *testing.T) {
	needRuntime(t)
	for _, name := range samples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, e := readRecorded(t, name), openLive(t, name)
			for _, p := range r.prompts() {
				ids, key := r.ints(p+".input_ids"), p+"."
				slow := strings.Contains(name, "apple-q35") && !strings.HasSuffix(name, "-bf16") // a second a step
				if len(ids) > 20 && (testing.Short() || slow && os.Getenv("SIBYL_LONG") == "") {
					continue // SIBYL_LONG=1 walks these too: docs/coreai.md has what it gave
				}
				if r.has(p + ".decode.logits") {
					key = p + ".decode."
				}
				var c tally
				recordedWalk(t, e, r, ids, key, engine.Path{Chunk: 1}, &c)
				if whole := p + ".main_whole."; r.has(whole + "logits") {
					recordedWalk(t, e, r, ids, whole, engine.Path{}, &c)
				}
				if prefill := p + ".prefill."; r.has(prefill + "logits_last") {
					recordedPrefill(t, e, r, ids, prefill, &c)
				}
				t.Logf("%s, %d tokens: %d of %d values have the recorded bits", p, len(ids), c.same, c.all)
				if c.same != c.all {
					t.Errorf("%s: %d of %d values differ from the recorded ones", p, c.all-c.same, c.all)
				}
			}
		})
	}
}

// recordedWalk holds teacher forcing along a path, the states after it and the greedy ids against what was recorded.
func recordedWalk(t *testing.T, e *Engine, r recorded, ids []int32, key string, path engine.Path, c *tally) {
	t.Helper()
	logits, vocab := r.floats(key+"logits"), e.info.VocabSize
	var end engine.State
	last := int32(-1)
	err := e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true, Path: path, FinalState: &end}, func(p *engine.Position) error {
		want := logits[p.Pos*vocab:][:vocab]
		c.add(t, fmt.Sprintf("%slogits, position %d", key, p.Pos), p.Logits, want)
		if id := shown.Largest(want, 1)[0].ID; p.ID != id {
			t.Errorf("%s position %d: id %d, recorded %d", key, p.Pos, p.ID, id)
		}
		last = p.ID
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	recordedStates(t, e, r, key, &end, c)
	if !r.has(key + "greedy.ids") {
		return
	}
	want := r.ints(key + "greedy.ids")
	got := []int32{last}
	err = e.Generate(t.Context(), engine.Prompt{IDs: []int32{last}}, engine.Options{MaxTokens: len(want) - 1, State: &end}, func(t *engine.Token) error {
		got = append(got, t.ID)
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s greedy %v (%v), recorded %v", key, got, err, want)
	}
}

func recordedStates(t *testing.T, e *Engine, r recorded, key string, st *engine.State, c *tally) {
	t.Helper()
	values, err := e.layout.values(st)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range e.layout.tensors() {
		c.add(t, key+s.Name, values[s.Name], r.floats(key+s.Name))
	}
}

// recordedPrefill: the function without a head, on all tokens but the last, leaves the recorded states; main goes on
// from them.
func recordedPrefill(t *testing.T, e *Engine, r recorded, ids []int32, key string, c *tally) {
	t.Helper()
	n := len(ids) - 1
	st, err := e.Prefill(t.Context(), engine.Prompt{IDs: ids[:n]}, engine.Path{})
	if err != nil {
		t.Fatal(err)
	}
	recordedStates(t, e, r, key, st, c)
	want := r.ints(key + "greedy.ids")
	var got []int32
	opt := engine.Options{MaxTokens: len(want), State: st, Logits: true}
	err = e.Generate(t.Context(), engine.Prompt{IDs: ids[n:]}, opt, func(tok *engine.Token) error {
		if got = append(got, tok.ID); tok.Index == 0 {
			c.add(t, key+"logits_last", tok.Logits, r.floats(key+"logits_last"))
		}
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s greedy %v (%v), recorded %v", key, got, err, want)
	}
}
