package refcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/engine/enginetest"
	_ "sibyl/model"
	"sibyl/oracle/oracletest"
)

// open is a store in a folder of its own, or in dir; what it warns of fails the test unless warnings is given.
func open(t testing.TB, dir string, warnings *[]string) *Store {
	t.Helper()
	var mu sync.Mutex
	s, err := Open(dir, func(text string) {
		mu.Lock()
		defer mu.Unlock()
		if warnings == nil {
			t.Errorf("warning: %s", text)
			return
		}
		*warnings = append(*warnings, text)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// counting counts the tokens that reach an engine.
type counting struct {
	*enginetest.Fake
	n *atomic.Int64
}

func newCounting() (*counting, *atomic.Int64) {
	n := new(atomic.Int64)
	f := enginetest.New(nil)
	f.Fail = func(enginetest.At) error { n.Add(1); return nil }
	return &counting{f, n}, n
}

// TestConformance: the wrapper keeps every promise of the engine below it, with an empty folder and with a full one.
func TestConformance(t *testing.T) {
	t.Parallel()
	tiny := oracletest.Fixture{Config: enginetest.TinyConfig(), Prompts: [][]int32{{3, 1, 4, 1, 5, 9, 2}, make([]int32, 70), {7}}}
	for name, shows := range map[string]engine.Shows{"all": enginetest.All, "top-k": engine.IDs | engine.TopK, "ids": engine.IDs} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, how := range []string{"cold", "warm"} {
				t.Run(how, func(t *testing.T) {
					oracletest.Run(t, func(t testing.TB) engine.Engine {
						f := enginetest.New(nil)
						f.Describes.Shows = shows
						return open(t, dir, nil).Wrap(f, Identity{WeightsSHA256: "w", ConfigSHA256: "c"})
					}, tiny)
				})
			}
		})
	}
	t.Run("cpu", func(t *testing.T) {
		t.Parallel()
		model := filepath.Join("..", "..", "testdata", "goldens", "tiny-asym")
		ck, err := bundle.Open(model)
		if err != nil {
			t.Fatal(err)
		}
		defer ck.Close()
		cfg, dir := *ck.Config(), t.TempDir()
		for _, how := range []string{"cold", "warm"} {
			t.Run(how, func(t *testing.T) {
				oracletest.Run(t, func(t testing.TB) engine.Engine {
					e, err := engine.Open(t.Context(), "cpu", engine.Spec{Model: model, Mode: "exact", Threads: 1})
					if err != nil {
						t.Fatal(err)
					}
					return open(t, dir, nil).Wrap(e, Identity{WeightsSHA256: "w", ConfigSHA256: "c"})
				}, oracletest.Fixture{Config: &cfg, Prompts: [][]int32{{3, 1, 4, 1, 5, 9, 2}, {9, 8}}})
			})
		}
	})
}

// gateCalls is what a gate asks of its reference; it gives all that was shown.
func gateCalls(t *testing.T, e engine.Engine, topK, tokens int) string {
	t.Helper()
	var b strings.Builder
	prompts := []engine.Prompt{{IDs: []int32{1, 2, 3}}, {IDs: []int32{20, 5}}}
	for _, p := range prompts {
		if err := e.Generate(t.Context(), p, engine.Options{MaxTokens: tokens, TopK: topK}, func(k *engine.Token) error {
			fmt.Fprintf(&b, "%+v\n", *k)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		st, err := e.(engine.Stater).Prefill(t.Context(), p, engine.Path{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%v\n", st)
	}
	rows := make([]string, len(prompts))
	for _, logits := range []bool{false, true} {
		if err := e.Score(t.Context(), prompts, engine.Want{TopK: topK, Logits: logits}, func(p *engine.Position) error {
			rows[p.Seq] += fmt.Sprintf("%+v\n", *p)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return b.String() + strings.Join(rows, "")
}

// TestSecondGate: the second gate does not touch the engine, whatever of the first is asked again; what is new is run,
// and what changes a result is a key of its own.
func TestSecondGate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	id := Identity{WeightsSHA256: "w", ConfigSHA256: "c"}
	first, n := newCounting()
	want := gateCalls(t, open(t, dir, nil).Wrap(first, id), 8, 6)
	if bare, _ := newCounting(); gateCalls(t, bare, 8, 6) != want {
		t.Error("the wrapper shows something else than the engine")
	}
	if n.Load() == 0 {
		t.Fatal("the engine was not asked")
	}
	other := func(change func(f *enginetest.Fake)) *counting {
		c, _ := newCounting()
		change(c.Fake)
		return c
	}
	for _, tt := range []struct {
		name, why    string
		f            *counting
		id           Identity
		topK, tokens int
		run          bool // the engine must be asked
	}{
		{"same", "nothing is new", other(func(*enginetest.Fake) {}), id, 8, 6, false},
		{"fewer", "fewer candidates and tokens are the front of more", other(func(*enginetest.Fake) {}), id, 2, 3, false},
		{"threads", "exact bits do not depend on threads", other(func(f *enginetest.Fake) { f.Describes.Threads = 7 }), id, 8, 6, false},
		{"more-candidates", "they are not kept", other(func(*enginetest.Fake) {}), id, 9, 6, true},
		{"weights", "another model", other(func(*enginetest.Fake) {}), Identity{WeightsSHA256: "W", ConfigSHA256: "c"}, 8, 6, true},
		{"config", "another theta", other(func(*enginetest.Fake) {}), Identity{WeightsSHA256: "w", ConfigSHA256: "C"}, 8, 6, true},
		{"contract", "another rounding", other(func(f *enginetest.Fake) { f.Describes.Contract = "hf-bf16" }), id, 8, 6, true},
		{"contract-file", "the same name, another table", other(func(*enginetest.Fake) {}), Identity{WeightsSHA256: "w", ConfigSHA256: "c", ContractSHA256: "x"}, 8, 6, true},
		{"scheme", "other weights in effect", other(func(f *enginetest.Fake) { f.Describes.Scheme = "int8lin" }), id, 8, 6, true},
		{"recipe", "the same name, another recipe", other(func(*enginetest.Fake) {}), Identity{WeightsSHA256: "w", ConfigSHA256: "c", SchemeSHA256: "x"}, 8, 6, true},
		{"mode", "fast is not exact", other(func(f *enginetest.Fake) { f.Describes.Mode = "fast" }), id, 8, 6, true},
		{"engine", "another implementation", other(func(f *enginetest.Fake) { f.Describes.Engine = "fp64" }), id, 8, 6, true},
		{"delta", "the chunk form", other(func(*enginetest.Fake) {}), Identity{WeightsSHA256: "w", ConfigSHA256: "c", Delta: "chunk"}, 8, 6, true},
	} {
		s := open(t, dir, nil)
		got := gateCalls(t, s.Wrap(tt.f, tt.id), tt.topK, tt.tokens)
		if asked := tt.f.n.Load() > 0; asked != tt.run {
			t.Errorf("%s: the engine was asked: %v, want %v; %+v\nwhy: %s", tt.name, asked, tt.run, s.Stats(), tt.why)
		}
		if tt.topK == 8 && got != want {
			t.Errorf("%s: shows something else than at first", tt.name)
		}
	}
	// More tokens than are kept: run again, from the start.
	c, n := newCounting()
	gateCalls(t, open(t, dir, nil).Wrap(c, id), 8, 9)
	if n.Load() != (3+8)+(2+8) {
		t.Errorf("9 tokens after 6 were kept: %d tokens run, want the two decode paths and no more", n.Load())
	}
}

// TestInterrupted: texts that were finished before a run ends are not run again.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	prompts := []engine.Prompt{{IDs: []int32{1, 2, 3}}, {IDs: []int32{20, 5}}}
	ctx, stop := context.WithCancel(t.Context())
	c, _ := newCounting()
	err := open(t, dir, nil).Wrap(c, Identity{}).Score(ctx, prompts, engine.Want{TopK: 2}, func(p *engine.Position) error {
		if p.Seq == 1 {
			stop()
		}
		return nil
	})
	if err == nil {
		t.Fatal("not interrupted")
	}
	c, n := newCounting()
	if err := open(t, dir, nil).Wrap(c, Identity{}).Score(t.Context(), prompts, engine.Want{TopK: 2}, func(*engine.Position) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if n.Load() != 2 {
		t.Errorf("%d tokens run after an interruption in the second text, want its 2", n.Load())
	}
}

// TestDamage: every way a file can be wrong is named, ignored and repaired, and never shown.
func TestDamage(t *testing.T) {
	t.Parallel()
	rewrite := func(edit func(line map[string]any, content []byte) []byte) func(t *testing.T, path string, all []string) {
		return func(t *testing.T, path string, _ []string) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			head, content, _ := strings.Cut(string(data), "\n")
			var line map[string]any
			if err := json.Unmarshal([]byte(head), &line); err != nil {
				t.Fatal(err)
			}
			body := edit(line, []byte(content))
			if line["sha256"] == "again" {
				sum := sha256.Sum256(body)
				line["sha256"], line["bytes"] = hex.EncodeToString(sum[:]), len(body)
			}
			text, err := json.Marshal(line)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(append(text, '\n'), body...), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name, why string
		damage    func(t *testing.T, path string, all []string)
		want      string
	}{
		{"bit", "a flipped bit in the content", rewrite(func(_ map[string]any, c []byte) []byte { c[len(c)-2] ^= 1; return c }),
			"its content does not have the recorded sha256; ignored, to be written again"},
		{"cut", "a disk that was full", rewrite(func(_ map[string]any, c []byte) []byte { return c[:len(c)/2] }), "it is cut: "},
		{"empty", "a crash of the machine", func(t *testing.T, path string, _ []string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}, "its first line is not a sibyl-refcache/1 header"},
		{"other-file", "a file under another's name, whole in itself", func(t *testing.T, path string, all []string) {
			kind, _, _ := strings.Cut(filepath.Base(path), "-")
			for _, o := range all {
				if o == path || !strings.HasPrefix(filepath.Base(o), kind) {
					continue
				}
				data, err := os.ReadFile(o)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}, "it is another result's: ids_sha256 is "},
		{"other-weights", "an edited key", rewrite(func(l map[string]any, c []byte) []byte {
			l["key"].(map[string]any)["weights_sha256"] = "0123"
			return c
		}), `it is another result's: weights_sha256 is "0123", want "w"`},
		{"extra-key", "a newer sibyl's key", rewrite(func(l map[string]any, c []byte) []byte {
			l["key"].(map[string]any)["temperature"] = "2"
			return c
		}), `temperature is "2", want ""`},
		{"other-ids", "content of other ids with a right checksum", rewrite(func(l map[string]any, c []byte) []byte {
			l["sha256"] = "again"
			return []byte(strings.Replace(string(c), `"ids":[`, `"ids":[7,`, 1))
		}), "other ids"},
		{"not-json", "content that is none, with a right checksum", rewrite(func(l map[string]any, c []byte) []byte {
			l["sha256"] = "again"
			return []byte("{")
		}), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			id := Identity{WeightsSHA256: "w", ConfigSHA256: "c"}
			c, _ := newCounting()
			want := gateCalls(t, open(t, dir, nil).Wrap(c, id), 8, 6)
			files, err := filepath.Glob(filepath.Join(dir, "*.ref"))
			if err != nil || len(files) != 8 {
				t.Fatalf("%d files, %v; want 2 texts, 2 with rows, 2 decode paths, 2 states", len(files), err)
			}
			for _, kind := range []string{"text-", "rows-", "decode-", "state-"} {
				path := files[slices.IndexFunc(files, func(f string) bool { return strings.HasPrefix(filepath.Base(f), kind) })]
				tt.damage(t, path, files)
				var warnings []string
				s := open(t, dir, &warnings)
				c, n := newCounting()
				if got := gateCalls(t, s.Wrap(c, id), 8, 6); got != want || n.Load() == 0 || s.Stats().Refused != 1 || s.Stats().Run != 1 {
					t.Errorf("%s: shown as before: %v, tokens run: %d, %+v", kind, got == want, n.Load(), s.Stats())
				}
				if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "reference cache: "+path+": ") || !strings.Contains(warnings[0], tt.want) {
					t.Errorf("%s: warned of %q, want %q\nwhy: %s", kind, warnings, tt.want, tt.why)
				}
				c, n = newCounting()
				if gateCalls(t, open(t, dir, nil).Wrap(c, id), 8, 6); n.Load() != 0 {
					t.Errorf("%s: the file was not written again", kind)
				}
			}
		})
	}
}

// TestTogether: processes that share a folder (here, stores) show the same and leave whole files.
func TestTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bare, _ := newCounting()
	want := gateCalls(t, bare, 8, 6)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, _ := newCounting()
			if got := gateCalls(t, open(t, dir, nil).Wrap(c, Identity{WeightsSHA256: "w"}), 8, 6); got != want {
				t.Error("shown otherwise beside others")
			}
		})
	}
	wg.Wait()
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 8 {
		t.Errorf("left behind: %q, want 8 files", left)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, nil); err == nil || !strings.Contains(err.Error(), "which is no folder, want a folder that can be written to") {
		t.Errorf("Open of a file = %v", err)
	}
	if _, err := Open(filepath.Join(file, "x"), nil); err == nil || !strings.Contains(err.Error(), "--ref-cache: want a folder") {
		t.Errorf("Open below a file = %v", err)
	}
	made := filepath.Join(t.TempDir(), "a", "b")
	if _, err := Open(made, nil); err != nil {
		t.Error(err)
	}
}

// TestKey holds the whole key of a text: what is not in it must not change a result.
func TestKey(t *testing.T) {
	t.Parallel()
	f := enginetest.New(nil)
	id := Identity{WeightsSHA256: "w", ConfigSHA256: "c", ContractSHA256: "k", SchemeSHA256: "s", Delta: "chunk"}
	want := key{"kind": "text", "numerics": fmt.Sprint(Numerics), "weights_sha256": "w", "config_sha256": "c", "engine": "fake", "contract": "hf-fp32",
		"contract_sha256": "k", "scheme": "stored", "scheme_sha256": "s", "mode": "exact", "delta": "chunk", "shows": enginetest.All.String(),
		"path": "chunk=3", "tokens": "2", "ids_sha256": idsKey([]int32{1, 2})}
	if got := open(t, t.TempDir(), nil).Wrap(f, id).textKey("text", engine.Path{Chunk: 3}, []int32{1, 2}); !maps.Equal(got, want) {
		t.Errorf("key %v\nwant %v", got, want)
	}
	if idsKey([]int32{1, 2}) == idsKey([]int32{12}) || idsKey([]int32{1, 2}) == idsKey([]int32{2, 1}) {
		t.Error("two lists of ids have one key")
	}
	f.Describes.Mode = "fast"
	got := open(t, t.TempDir(), nil).Wrap(f, id).base
	if got["mode"] != "fast" || got["arch"] == "" || got["threads"] != "1" {
		t.Errorf("key of fast arithmetic %v; want machine and threads in it", got)
	}
}
