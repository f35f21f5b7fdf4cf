package trace

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sibyl/config"
	"sibyl/engine"
)

var (
	_ engine.Sink = (*Writer)(nil)
	_ Source      = (*File)(nil)
)

var testIDs = []int32{3, 1, 4, 1, 5, 9, 2}

func testMeta() Meta {
	return Meta{SibylVersion: "test", Subject: "tiny@fast", Engine: "cpu", Contract: "hf-fp32", Scheme: "stored", Mode: "fast",
		Delta: "recurrent", Path: "prefill", Threads: 2, ConfigSHA256: "c0", WeightsSHA256: "f0", IDs: testIDs}
}

// value is a number that depends on the tensor, the row and the column, so that a row in a wrong place shows.
func value(e Entry, row, col int) float32 {
	if e.Tap.DType() == I32 {
		return float32((row*7 + col) % 32)
	}
	return float32(len(e.Name)) + float32(row)/8 + float32(col)/4096
}

// put hands every row of every entry to sink, chunk rows at a time, tensors and chunks in the order of rng.
func put(t *testing.T, sink engine.Sink, c *config.Config, entries []Entry, chunk int, rng *rand.Rand) {
	t.Helper()
	type job struct{ e, pos, rows, width int }
	var jobs []job
	for i, e := range entries {
		width := 1
		for _, d := range e.Shape(c, len(testIDs)) {
			width *= d
		}
		if e.Tap.Cache() {
			jobs = append(jobs, job{i, 0, 1, width})
			continue
		}
		for pos := 0; pos < len(testIDs); pos += chunk {
			jobs = append(jobs, job{i, pos, min(chunk, len(testIDs)-pos), width / len(testIDs)})
		}
	}
	if rng != nil {
		rng.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
	}
	for _, j := range jobs {
		if !sink.Wants(entries[j.e].Name) {
			continue
		}
		x := make([]float32, j.rows*j.width)
		for i := range x {
			x[i] = value(entries[j.e], j.pos+i/j.width, i%j.width)
		}
		if err := sink.Put(entries[j.e].Name, 0, j.pos, j.rows, x); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheHashForgetsTheOrder: the same rows in one piece, in steps, in chunks, shuffled, and through a Recorder give
// the same data_sha256.
func TestTheHashForgetsTheOrder(t *testing.T) {
	t.Parallel()
	c := moe()
	all := All(c)
	dir := t.TempDir()
	var want string
	for i, tt := range []struct {
		name  string
		chunk int
		rng   *rand.Rand
	}{
		{"prefill", len(testIDs), nil}, {"step", 1, nil}, {"chunks", 3, nil}, {"shuffled", 2, rand.New(rand.NewPCG(1, 2))},
	} {
		path := filepath.Join(dir, tt.name)
		w, err := Create(path, c, all, testMeta(), 0)
		if err != nil {
			t.Fatal(err)
		}
		put(t, w, c, all, tt.chunk, tt.rng)
		got, err := w.Commit()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			want = got
		}
		if got != want {
			t.Errorf("%s: data_sha256 %s, prefill's is %s", tt.name, got, want)
		}
	}
	r := NewRecorder("memory", c, nil, testIDs)
	put(t, r, c, all, 2, nil)
	s, err := r.Sequence(0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DataSHA256(s); got != want || err != nil {
		t.Errorf("recorder: data_sha256 %s, %v, the file's is %s", got, err, want)
	}
}

func TestFileGivesBackWhatWasWritten(t *testing.T) {
	t.Parallel()
	c := moe()
	all := All(c)
	path := filepath.Join(t.TempDir(), "t.trace")
	m := testMeta()
	m.PositionIDs = make([][3]int32, len(testIDs))
	for i := range m.PositionIDs {
		m.PositionIDs[i] = [3]int32{int32(i), int32(2 * i), 7}
	}
	w, err := Create(path, c, all, m, 2)
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, c, all, 3, nil)
	if err := w.PutGreedy([]int32{11, 12}, []float32{0.5, 0.25}); err != nil {
		t.Fatal(err)
	}
	if m.DataSHA256, err = w.Commit(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if d := cmp.Diff(&m, f.Meta()); d != "" {
		t.Errorf("metadata (-written +read):\n%s", d)
	}
	if err := f.Verify(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(f.IDs(), testIDs) || !IsTrace(path) {
		t.Errorf("ids %v, IsTrace %v", f.IDs(), IsTrace(path))
	}
	for i, info := range f.Tensors() {
		if i >= len(all) {
			break
		}
		if info.Name != all[i].Name {
			t.Fatalf("tensor %d is %s, want %s: the order of the math", i, info.Name, all[i].Name)
		}
		x := make([]float32, info.Len())
		if err := f.Read(info.Name, 0, x); err != nil {
			t.Fatal(err)
		}
		width := info.Len() / len(testIDs)
		if info.Tap.Cache() {
			width = info.Len()
		}
		for k, v := range x {
			want := value(all[i], k/width, k%width)
			if info.Tap == InputIDs {
				want = float32(testIDs[k])
			}
			if v != want {
				t.Fatalf("%s[%d] = %v, want %v", info.Name, k, v, want)
			}
		}
	}
	g := make([]float32, 2)
	if err := f.Read(GreedyIDs, 0, g); err != nil || !slices.Equal(g, []float32{11, 12}) {
		t.Errorf("greedy.ids = %v, %v", g, err)
	}
}

func TestIncompleteTracesLeaveNothing(t *testing.T) {
	t.Parallel()
	c := asym()
	for _, tt := range []struct {
		name, want string
		do         func(w *Writer) error
	}{
		{"row-missing", "tap embed, row 6 of 7: not every row", func(w *Writer) error { return w.Put("embed", 0, 0, 6, make([]float32, 6*96)) }},
		{"greedy-missing", `tensor "greedy.`, func(w *Writer) error { return w.Put("embed", 0, 0, 7, make([]float32, 7*96)) }},
		{"row-twice", "written twice", func(w *Writer) error {
			return errors.Join(w.Put("embed", 0, 0, 7, make([]float32, 7*96)), w.Put("embed", 0, 3, 1, make([]float32, 96)))
		}},
		{"wide", "want 96 a row", func(w *Writer) error { return w.Put("embed", 0, 0, 1, make([]float32, 97)) }},
		{"beyond", "want rows of 0..6", func(w *Writer) error { return w.Put("embed", 0, 6, 2, make([]float32, 2*96)) }},
		{"second-sequence", "of sequence 1", func(w *Writer) error { return w.Put("embed", 1, 0, 1, make([]float32, 96)) }},
		{"greedy-length", "1 ids and 1 margins, want 2", func(w *Writer) error { return w.PutGreedy([]int32{1}, []float32{1}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			entries, err := Select(c, []string{"embed", "input_ids"})
			if err != nil {
				t.Fatal(err)
			}
			w, err := Create(filepath.Join(dir, "t.trace"), c, entries, testMeta(), 2)
			if err != nil {
				t.Fatal(err)
			}
			err = tt.do(w)
			_, err2 := w.Commit()
			if err = errors.Join(err, err2); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestNonIntegerExpertIsAFault(t *testing.T) {
	t.Parallel()
	c := moe()
	entries, err := Select(c, []string{"layer0.moe.topk_index"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := Create(filepath.Join(t.TempDir(), "t"), c, entries, testMeta(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := w.Put("layer0.moe.topk_index", 0, 0, 1, []float32{1, 2, 3.5, 4, 5, 6, 7, 8}); err == nil {
		t.Error("expert 3.5 was written")
	}
}

// TestGoldensAreTraces: every prompt of every golden opens, and a reference within a prompt has the prompt's ids.
func TestGoldensAreTraces(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		model, prompt string
		tokens, atom  int // atom: at least this many tensors
	}{
		{"tiny-asym", "p9", 9, 86}, {"tiny-moe", "p17", 17, 150}, {"tiny-realdims", "p131", 131, 10},
		{"tiny-realdims", "p131.f64", 131, 1}, {"edge-cancel", "p70.step", 70, 4}, {"edge-ties", "p9", 9, 30},
	} {
		t.Run(tt.model+"-"+tt.prompt, func(t *testing.T) {
			t.Parallel()
			f, err := Open(filepath.Join(goldens, tt.model, "golden.safetensors"), tt.prompt)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if len(f.IDs()) != tt.tokens || len(f.Tensors()) < tt.atom || f.Meta() != nil {
				t.Errorf("%d ids, %d tensors, want %d ids and at least %d tensors", len(f.IDs()), len(f.Tensors()), tt.tokens, tt.atom)
			}
		})
	}
	_, err := Open(filepath.Join(goldens, "tiny-asym", "golden.safetensors"), "")
	if err == nil || !strings.Contains(err.Error(), "the name of one: p") {
		t.Errorf("a golden without a prompt: %v, want the list of prompts", err)
	}
	_, err = Open(filepath.Join(goldens, "tiny-asym", "golden.safetensors"), "p7")
	if err == nil || !strings.Contains(err.Error(), `golden.safetensors: found "p7", want one of the file's prompts: p1, p70, p9; name one of these`) {
		t.Errorf("a prompt that is not there: %v", err)
	}
	_, err = Open(filepath.Join(goldens, "tiny-asym", "model.safetensors"), "")
	if err == nil || !strings.Contains(err.Error(), "found a safetensors file without trace metadata, want a trace; make one with `sibyl trace`") {
		t.Errorf("a checkpoint: %v", err)
	}
}

// small is a valid trace in bytes, for tests and fuzzing to break.
func small(t testing.TB) []byte {
	c := asym()
	entries, err := Select(c, []string{"input_ids", "layer0.gdn.g", "layer0.gdn.v", "layer0.gdn.in_proj_z", "cache.layer3.key"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "t")
	w, err := Create(path, c, entries, testMeta(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n := 1
		for _, d := range e.Shape(c, len(testIDs)) {
			n *= d
		}
		rows := len(testIDs)
		if e.Tap.Cache() {
			rows = 1
		}
		if err := w.Put(e.Name, 0, 0, rows, make([]float32, n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edit replaces old by new, of the same length, in a trace's header.
func edit(t testing.TB, b []byte, old, new string) []byte {
	n := 8 + int(binary.LittleEndian.Uint64(b))
	if len(old) != len(new) || strings.Count(string(b[:n]), old) != 1 {
		t.Fatalf("%q does not stand once in the header, or %q has another length", old, new)
	}
	return slices.Concat([]byte(strings.Replace(string(b[:n]), old, new, 1)), b[n:])
}

func TestBrokenTraces(t *testing.T) {
	t.Parallel()
	good := small(t)
	for _, tt := range []struct{ name, why, old, new, want string }{
		{"format", "a later sibyl", `"sibyl-trace/1"`, `"sibyl-trace/2"`, `found "sibyl-trace/2", want sibyl-trace/1`},
		{"ids", "no list", `"[3,1,4,1,5,9,2]"`, `"{3,1,4,1,5,9,2]"`, "metadata ids: found"},
		{"ids-differ", "input_ids is the second witness", `"[3,1,4,1,5,9,2]"`, `"[3,1,4,1,5,9,3]"`, "input_ids: found other ids than in the metadata"},
		{"threads", "no number", `"threads":"2"`, `"threads":"x"`, "metadata threads"},
		{"digest", "never patched", `"past":"0"`, `"past":"-"`, "metadata past"},
		{"past", "states cover past tokens too", `"past":"0"`, `"past":"1"`, "[2 7 48], want axis 1 to be the 8 tokens"},
		{"name", "our own files hold taps only", `layer0.gdn.v"`, `layer0.gdn.w"`, "a name that is no tap"},
		{"layer", "a second spelling", `layer0.gdn.v"`, `layer00gdn.v"`, "a name that is no tap"},
		{"dtype", "every tap has one", `"layer0.gdn.v":{"dtype":"F32"`, `"layer0.gdn.v":{"dtype":"I32"`, "dtype: found I32, want F32"},
		{"tokens", "T is the number of ids", `"shape":[7,8,40]`, `"shape":[8,7,40]`, "want axis 0 to be the 7 tokens of input_ids"},
		{"heads", "one size of v_heads in the whole file", `"shape":[7,8,40]`, `"shape":[7,40,8]`, "found [7 8], want v_heads = 40 as in layer0.gdn.v"},
		{"product", "in_proj_z is v_heads*dv", `"shape":[7,320]`, `"shape":[320,7]`, "want axis 0"},
		{"rank", "axes", `"shape":[7,320]`, `"shape":[ 2240]`, "want the axes [T,v_heads*dv]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseFile("x.trace", edit(t, good, tt.old, tt.new), "")
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "x.trace: ") {
				t.Errorf("%q for %q: %v, want %q\nwhy: %s", tt.new, tt.old, err, tt.want, tt.why)
			}
		})
	}
	flipped := slices.Clone(good)
	flipped[len(flipped)-1] ^= 1
	f, err := ParseFile("x.trace", flipped, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(); err == nil || !strings.Contains(err.Error(), "changed after it was written") {
		t.Errorf("one bit flipped: Verify = %v", err)
	}
}

// FuzzTraceFile: any bytes either open, and then every element they announce can be read, or are refused.
func FuzzTraceFile(f *testing.F) {
	good := small(f)
	f.Add(good, "")
	f.Add(good[:len(good)/2], "")
	f.Add(edit(f, good, `"shape":[7,8,40]`, `"shape":[7,40,8]`), "")
	f.Add(edit(f, good, `"past":"0"`, `"past":"9"`), "p9")
	f.Fuzz(func(t *testing.T, b []byte, prompt string) {
		s, err := ParseFile("fuzz", b, prompt)
		if err != nil {
			return
		}
		sum := 0
		x := make([]float32, 1<<10)
		for _, info := range s.Tensors() {
			if sum += 4 * info.Len(); sum > len(b) {
				t.Fatalf("%s: tensors hold %d bytes, the file %d", info.Name, sum, len(b))
			}
			n := min(info.Len(), len(x))
			if err := s.Read(info.Name, info.Len()-n, x[:n]); err != nil && info.DType == F32 {
				t.Fatal(err)
			}
		}
		_ = s.Verify()
	})
}
