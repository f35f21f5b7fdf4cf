package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/engine/enginetest"
	"sibyl/internal/meter"
)

// TestWorkOf counts a dense and an expert model by hand: every axis differs, so none can be taken for another.
func TestWorkOf(t *testing.T) {
	c := enginetest.TinyConfig() // H 10, q 6*8, kv 3*8, gdn k 2*5, v 4*7
	gdn := 10 * ((2*10 + 28) + 28 + 4 + 4 + 28)
	attention := 10 * (2*48 + 24 + 24 + 48)
	mlp := 3 * 10 * 13
	want := Work{Bytes: 77, Body: 2 * float64(gdn+attention+2*mlp), Head: 2 * 41 * 10}
	if got := WorkOf(c, 77); got != want {
		t.Errorf("WorkOf(dense) = %+v, want %+v", got, want)
	}
	c.MoE = &config.MoE{NumExperts: 9, TopK: 3, IntermediateSize: 11, SharedIntermediateSize: 12}
	moe := 10*9 + 3*(3*10*11) + 3*10*12
	want.Body = 2 * float64(gdn+attention+2*moe)
	if got := WorkOf(c, 77); got != want {
		t.Errorf("WorkOf(experts) = %+v, want %+v", got, want)
	}
}

// TestDerive: the figures of rows whose seconds are given.
func TestDerive(t *testing.T) {
	w, l := Work{Bytes: 1000, Body: 400, Head: 100}, meter.Limits{Read: 50000, FMA: 20000}
	for _, tt := range []struct {
		name string
		in   Row
		want Row
	}{
		{"decode", Row{Op: Op{Decode, 10}, Threads: 2, Seconds: []float64{4, 1, 2}, CPU: []float64{2, 2, 2}},
			Row{TokensPerSecond: 5, Least: 2.5, Most: 10, Bandwidth: 5000, ShareRead: 0.1, ShareReadCPU: 0.2}},
		{"prefill, an even number of repetitions", Row{Op: Op{Prefill, 10}, Threads: 1, Seconds: []float64{1, 3}},
			Row{TokensPerSecond: 5, Least: 10.0 / 3, Most: 10, FirstToken: 2, Flops: 2050, ShareFMA: 0.1025}},
		{"forced", Row{Op: Op{Forced, 10}, Threads: 4, Seconds: []float64{2}, CPU: []float64{4}},
			Row{TokensPerSecond: 5, Least: 5, Most: 5, Flops: 2500, ShareFMA: 0.125, ShareFMACPU: 0.25}},
	} {
		got := tt.in
		got.derive(w, l)
		tt.want.Op, tt.want.Threads, tt.want.Seconds, tt.want.CPU = tt.in.Op, tt.in.Threads, tt.in.Seconds, tt.in.CPU
		if diff := cmp.Diff(tt.want, got, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestOnce: each kind of work is what it says, seen from the engine: by which path, and which positions are asked for.
func TestOnce(t *testing.T) {
	for _, tt := range []struct {
		op         Op
		path       engine.Path
		from, rows int
	}{
		{Op{Prefill, 7}, engine.Path{}, 6, 1}, {Op{Forced, 7}, engine.Path{}, 0, 7}, {Op{Decode, 7}, engine.Path{Chunk: 1}, 0, 7},
	} {
		e := &spy{Fake: enginetest.New(nil)}
		if _, err := Once(t.Context(), e, tt.op, 41); err != nil {
			t.Fatal(err)
		}
		if e.want.Path != tt.path || e.want.From != tt.from || e.shown != tt.rows || len(e.ids) != 7 || e.ids[1] != (7919+13)%41 {
			t.Errorf("%s: path %v from %d, %d shown, ids %v", tt.op.Kind, e.want.Path, e.want.From, e.shown, e.ids)
		}
	}
	if _, err := Once(t.Context(), &spy{Fake: enginetest.New(nil), hide: true}, Op{Forced, 3}, 41); err == nil || !strings.Contains(err.Error(), "showed 0 positions of 3") {
		t.Errorf("an engine that shows nothing: %v", err)
	}
}

// spy keeps what it was asked for; hide swallows the positions.
type spy struct {
	*enginetest.Fake
	want  engine.Want
	ids   []int32
	shown int
	hide  bool
}

func (s *spy) Score(ctx context.Context, p []engine.Prompt, w engine.Want, each func(*engine.Position) error) error {
	s.want, s.ids = w, p[0].IDs
	return s.Fake.Score(ctx, p, w, func(x *engine.Position) error {
		s.shown++
		if s.hide {
			return nil
		}
		return each(x)
	})
}

// TestRun: repetitions and warm-up are counted as said, and an engine's error ends the run.
func TestRun(t *testing.T) {
	p := Plan{Ops: []Op{{Prefill, 4}, {Decode, 3}}, Repetitions: 2, WarmUp: true, Vocab: 41, Threads: 1, Spare: 1, Work: Work{Bytes: 1, Body: 1, Head: 1}}
	var last [2]int64
	rows, limits, err := Run(t.Context(), enginetest.New(nil), p, func(done, total int64) { last = [2]int64{done, total} })
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || len(rows[0].Seconds) != 2 || len(rows[1].Seconds) != 2 || rows[1].Op != p.Ops[1] || rows[1].TokensPerSecond <= 0 || limits.Read <= 0 {
		t.Errorf("Run = %+v, %+v", rows, limits)
	}
	if last != [2]int64{21, 21} {
		t.Errorf("reported %v of the end, want 21 of 21", last)
	}
	broken := enginetest.New(nil)
	broken.Fail = func(enginetest.At) error { return errors.New("out of order") }
	if _, _, err := Run(t.Context(), broken, p, func(int64, int64) {}); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("Run of a broken engine: %v", err)
	}
}

// TestCompare: rows are paired by op, size and threads and by nothing else.
func TestCompare(t *testing.T) {
	row := func(k Kind, n, threads int, rate, least, most, read float64) Row {
		return Row{Op: Op{k, n}, Threads: threads, TokensPerSecond: rate, Least: least, Most: most, ShareRead: read}
	}
	now := &Result{Rows: []Row{row(Decode, 8, 1, 20, 18, 22, 0.5), row(Decode, 8, 2, 30, 30, 30, 0), row(Prefill, 8, 1, 5, 5, 5, 0)}}
	now.Compare(&Result{Rows: []Row{row(Prefill, 9, 1, 1, 1, 1, 0), row(Decode, 8, 1, 10, 9, 19, 0.4), row(Prefill, 8, 1, 10, 8, 11, 0)}})
	want := []Ratio{{Op: Op{Decode, 8}, Threads: 1, Before: 10, Now: 20, Ratio: 2, ByLimit: 1.25, Overlap: true},
		{Op: Op{Prefill, 8}, Threads: 1, Before: 10, Now: 5, Ratio: 0.5}}
	if diff := cmp.Diff(want, now.Compared, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWorker speaks the whole protocol: good commands, bad ones that it survives, and logits held to the engine's own.
func TestWorker(t *testing.T) {
	dir := t.TempDir()
	ids, out := filepath.Join(dir, "ids"), filepath.Join(dir, "out.f32")
	if err := os.WriteFile(ids, []byte("3 1\n4"), 0o644); err != nil {
		t.Fatal(err)
	}
	var threads []int
	open := func(n int) (engine.Engine, error) { threads = append(threads, n); return enginetest.New(nil), nil }
	in := strings.Join([]string{"tg 3 41", "", "threads 2", "pp 5 41", "tf 4 40", "frobnicate", "tf 4", "tf 0 4", "tf 4 42", "threads -1", "threads",
		"tf 99999 41", "logits " + filepath.Join(dir, "none") + " " + out, "logits " + ids + " " + out, "quit", "tg 1 1"}, "\n")
	var got strings.Builder
	if err := Worker(t.Context(), strings.NewReader(in), &got, open); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(got.String()), "\n")
	want := []struct {
		n, rc int
		text  string
	}{{3, 0, ""}, {0, 0, ""}, {5, 0, ""}, {4, 0, ""}, {0, -7, "frobnicate"}, {0, -7, "want 2"}, {0, -7, "from 1 to"}, {0, -7, "from 1 to 41"},
		{0, -7, "from 1 to 1024"}, {0, -7, "want one number"}, {0, -7, "position"}, {0, -7, "no such file"}, {3, 0, ""}}
	if len(lines) != len(want)+1 || !strings.Contains(lines[0], `"load_s":`) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want)+1, got.String())
	}
	for i, w := range want {
		var a answer
		if err := json.Unmarshal([]byte(lines[i+1]), &a); err != nil || a.N != w.n || a.RC != w.rc || !strings.Contains(a.Error, w.text) {
			t.Errorf("answer %d: %s (%v), want n %d rc %d %q", i, lines[i+1], err, w.n, w.rc, w.text)
		}
	}
	if diff := cmp.Diff([]int{0, 2}, threads); diff != "" {
		t.Errorf("opened with threads (-want +got):\n%s", diff)
	}
	checkLogits(t, out, []int32{3, 1, 4})
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func checkLogits(t *testing.T, file string, ids []int32) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	err = enginetest.New(nil).Score(t.Context(), []engine.Prompt{{IDs: ids}}, engine.Want{Logits: true}, func(p *engine.Position) error {
		for _, v := range p.Logits {
			want = binary.LittleEndian.AppendUint32(want, math.Float32bits(v))
		}
		return nil
	})
	if err != nil || string(data) != string(want) {
		t.Errorf("the logits' file holds %d bytes, want %d equal ones (%v)", len(data), len(want), err)
	}
}

// TestWorkerOpen: a model that cannot be opened is told at once, also when only the second opening fails.
func TestWorkerOpen(t *testing.T) {
	for opens := range 2 {
		n := 0
		open := func(int) (engine.Engine, error) {
			if n++; n > opens {
				return nil, fmt.Errorf("no model")
			}
			return enginetest.New(nil), nil
		}
		err := Worker(t.Context(), strings.NewReader("threads 3\ntg 1 1\n"), new(strings.Builder), open)
		if err == nil || err.Error() != "no model" {
			t.Errorf("opening fails at call %d: %v", opens+1, err)
		}
	}
}
