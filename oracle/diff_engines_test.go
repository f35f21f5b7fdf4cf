package oracle_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/engine/enginetest"
	_ "sibyl/model"
	"sibyl/oracle"
	_ "sibyl/plain64"
	"sibyl/trace"
)

// goldenRun opens an engine on a golden's checkpoint.
func goldenRun(t *testing.T, name, model, mode string) engine.Engine {
	t.Helper()
	e, err := engine.Open(context.Background(), name, engine.Spec{Model: "../testdata/goldens/" + model, Mode: mode, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func goldenIDs(t *testing.T, model, prompt string) engine.Prompt {
	t.Helper()
	f, err := trace.Open("../testdata/goldens/"+model+"/golden.safetensors", prompt)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return engine.Prompt{IDs: slices.Clone(f.IDs())}
}

// TestEnginesDifferByRounding: two engines that share no arithmetic part by rounding alone, at every tap of every
// layer, so no tap is called unexplained; and the rule's factor of 64 has room.
func TestEnginesDifferByRounding(t *testing.T) {
	t.Parallel()
	for _, g := range [][2]string{{"tiny-asym", "p70"}, {"tiny-moe", "p17"}, {"tiny-dense-gva", "p131"}, {"tiny-realdims", "p17"}, {"edge-zero-qk", "p70"}} {
		for _, mode := range []string{"fast", "exact"} {
			t.Run(g[0]+"-"+mode, func(t *testing.T) {
				t.Parallel()
				r, err := oracle.DiffEngines(context.Background(), goldenRun(t, "fp64", g[0], ""), goldenRun(t, "cpu", g[0], mode), goldenIDs(t, g[0], g[1]), oracle.RunOptions{})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("largest ratio %.2f of 64 at %s", r.First.Largest, r.First.LargestAt)
				if r.First.Largest > 0.5*64 {
					t.Errorf("rounding alone comes to %.1f at %s, more than half of what is called unexplained", r.First.Largest, r.First.LargestAt)
				}
				if r.First.Unexplained != nil || len(r.OnlyRef)+len(r.OnlyTest) > 0 || len(r.Tensors) < 50 {
					t.Errorf("unexplained %+v, only in one %v %v, %d tensors", r.First.Unexplained, r.OnlyRef, r.OnlyTest, len(r.Tensors))
				}
			})
		}
	}
}

// TestThroughFiles: a diff through temporary files gives what one in memory gives, with full shapes, exact mode has
// the same bits when it steps, and nothing is left in the folder.
func TestThroughFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := bundle.Open("../testdata/goldens/tiny-asym")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	prompt := goldenIDs(t, "tiny-asym", "p9")
	ref, test := goldenRun(t, "cpu", "tiny-asym", "exact"), goldenRun(t, "cpu", "tiny-asym", "fast")
	memory, err := oracle.DiffEngines(context.Background(), ref, test, prompt, oracle.RunOptions{Config: c.Config(), Path: engine.Path{Chunk: 4}})
	if err != nil {
		t.Fatal(err)
	}
	files, err := oracle.DiffEngines(context.Background(), ref, test, prompt, oracle.RunOptions{Config: c.Config(), Spool: dir, Path: engine.Path{Chunk: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if len(files.Tensors) != len(memory.Tensors) || len(files.OnlyRef) > 0 {
		t.Errorf("%d tensors through files, %d in memory", len(files.Tensors), len(memory.Tensors))
	}
	for i := range files.Tensors {
		if a, b := files.Tensors[i], memory.Tensors[i]; a.Name != b.Name || !slices.Equal(a.Shape, b.Shape) || (a.DType == trace.F32 && (a.RMSRef != b.RMSRef || a.MaxRef != b.MaxRef)) {
			t.Errorf("%s %v rms %v through files and steps, %s %v rms %v in memory and chunks", a.Name, a.Shape, a.RMSRef, b.Name, b.Shape, b.RMSRef)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := oracle.DiffEngines(context.Background(), enginetest.New(nil), failing(), prompt, oracle.RunOptions{Config: enginetest.TinyConfig(), Spool: dir}); err == nil {
		t.Error("an engine that fails gave a diff")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind after a failure: %v", left)
	}
}

// failing breaks off at the third token.
func failing() *enginetest.Fake {
	f := enginetest.New(nil)
	f.Fail = func(at enginetest.At) error {
		if len(at.Prefix) == 3 {
			return errors.New("the device is gone")
		}
		return nil
	}
	return f
}

// TestWhatIsNotShown: an engine that shows less narrows the diff, and the result says so.
func TestWhatIsNotShown(t *testing.T) {
	t.Parallel()
	prompt := engine.Prompt{IDs: []int32{1, 2, 3, 4}}
	for _, tt := range []struct {
		name    string
		shows   engine.Shows
		seed    uint64
		note    string
		tensors int
		kl      bool
		agree   bool
	}{
		{"logits-only", engine.IDs | engine.TopK | engine.Logits, 0, "engine fake does not show taps: only logits are compared", 1, true, true},
		{"ids-only", engine.IDs, 0, "engine fake does not show logits: only ids are compared", 0, false, true},
		{"ids-differ", engine.IDs, 1, "engine fake does not show logits: only ids are compared", 0, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			test := enginetest.New(enginetest.Hashed(tt.seed))
			test.Describes.Shows = tt.shows
			r, err := oracle.DiffEngines(context.Background(), enginetest.New(nil), test, prompt, oracle.RunOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Tensors) != tt.tensors || !slices.Equal(r.Notes, []string{tt.note}) || r.Logits == nil || r.Logits.Positions != 4 {
				t.Fatalf("%d tensors, notes %q, logits %+v", len(r.Tensors), r.Notes, r.Logits)
			}
			if got := r.Logits.KLMean == r.Logits.KLMean; got != tt.kl {
				t.Errorf("KL is %v", r.Logits.KLMean)
			}
			if (r.Logits.Top1Agree == 4) != tt.agree || r.Identical != tt.agree {
				t.Errorf("agree %d of 4, identical %v, want %v", r.Logits.Top1Agree, r.Identical, tt.agree)
			}
			if err := r.Render(io.Discard, oracle.DiffView{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLogitsAreComparedAsTheyCome: rows compared while two runs show them, streamed or not, and beside a trace, give what two
// whole recordings give.
func TestLogitsAreComparedAsTheyCome(t *testing.T) {
	t.Parallel()
	const model = "tiny-asym"
	prompt := goldenIDs(t, model, "p70")
	open := func(mode string, stream bool) engine.Engine {
		e, err := engine.Open(t.Context(), "cpu", engine.Spec{Model: "../testdata/goldens/" + model, Mode: mode, Stream: stream, Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		return e
	}
	record := func(e engine.Engine) trace.Source {
		rec := trace.NewRecorder(e.Info().Subject, nil, nil, prompt.IDs)
		if err := e.Score(t.Context(), []engine.Prompt{prompt}, engine.Want{Taps: rec}, func(*engine.Position) error { return nil }); err != nil {
			t.Fatal(err)
		}
		s, err := rec.Sequence(0)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, stream := range []bool{false, true} {
		ref, test := open("exact", stream), open("exact", stream)
		if !stream {
			test = open("fast", false)
		}
		a, b := record(ref), record(test)
		want, err := oracle.Diff(t.Context(), a, b, oracle.DiffOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for name, run := range map[string]func() (*oracle.DiffResult, error){
			"engines": func() (*oracle.DiffResult, error) {
				return oracle.DiffEngines(t.Context(), ref, test, prompt, oracle.RunOptions{})
			},
			"trace as REF": func() (*oracle.DiffResult, error) {
				return oracle.DiffTrace(t.Context(), test, a, false, prompt, oracle.RunOptions{})
			},
			"trace as TEST": func() (*oracle.DiffResult, error) {
				return oracle.DiffTrace(t.Context(), ref, b, true, prompt, oracle.RunOptions{})
			},
		} {
			got, err := run()
			if err != nil {
				t.Fatal(err)
			}
			got.Ref, got.Test = want.Ref, want.Test // the engines' own words
			w, err := json.MarshalIndent(want, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			g, err := json.MarshalIndent(got, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(w), string(g)); d != "" {
				t.Errorf("stream %v, %s (-recorded +as they come):\n%s", stream, name, d)
			}
		}
	}
}

// TestDiffHoldsNoLogits: a diff asks for rows of logits, never for the tap that holds all of them; of logits alone it needs no
// other tap, and an engine that fails is the one that is named.
func TestDiffHoldsNoLogits(t *testing.T) {
	t.Parallel()
	prompt := engine.Prompt{IDs: []int32{1, 2, 3, 4}}
	only := oracle.RunOptions{Config: enginetest.TinyConfig(), Entries: []trace.Entry{{Tap: trace.Logits, Layer: -1, Name: trace.Logits.Name(-1)}}, Spool: t.TempDir()}
	r, err := oracle.DiffEngines(t.Context(), enginetest.New(nil), enginetest.New(enginetest.Hashed(3)), prompt, only)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Tensors) != 1 || r.Tensors[0].Elements != 4*enginetest.TinyConfig().VocabSize || r.Identical || r.Logits.Positions != 4 {
		t.Errorf("of logits alone: %+v, %+v", r.Tensors, r.Logits)
	}
	for _, side := range []string{"REF", "TEST"} {
		ref, test := engine.Engine(enginetest.New(nil)), engine.Engine(failing())
		if side == "REF" {
			ref, test = test, ref
		}
		if _, err := oracle.DiffEngines(t.Context(), ref, test, prompt, oracle.RunOptions{}); err == nil || !strings.Contains(err.Error(), side+" ") || !strings.Contains(err.Error(), "the device is gone") {
			t.Errorf("%s fails: %v", side, err)
		}
	}
}

// scoring is an engine whose Score is another.
type scoring struct {
	*enginetest.Fake
	score func(ctx context.Context, p []engine.Prompt, w engine.Want, each func(*engine.Position) error) error
}

func (s scoring) Score(ctx context.Context, p []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
	return s.score(ctx, p, w, each)
}

// TestErrorOfTestIsTests: TEST's error breaks off REF in the middle, and is what is told, not that REF's recording has an end missing.
func TestErrorOfTestIsTests(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{})
	ref, test := enginetest.New(nil), enginetest.New(nil)
	half := func(ctx context.Context, p []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
		return ref.Score(ctx, p, w, func(q *engine.Position) error {
			if err := each(q); err != nil || q.Pos < 1 {
				return err
			}
			close(reached)
			<-ctx.Done()
			return ctx.Err()
		})
	}
	broken := func(context.Context, []engine.Prompt, engine.Want, func(*engine.Position) error) error {
		<-reached
		return errors.New("the disk is gone")
	}
	_, err := oracle.DiffEngines(t.Context(), scoring{ref, half}, scoring{test, broken}, engine.Prompt{IDs: []int32{1, 2, 3, 4}}, oracle.RunOptions{Config: ref.Config})
	if want := "TEST tiny@fake: the disk is gone"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
