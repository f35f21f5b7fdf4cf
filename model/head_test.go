package model

import (
	"context"
	"math"
	"slices"
	"testing"

	"sibyl/engine"
	"sibyl/internal/kernels"
)

// headRows counts the rows that each product with the head sees.
func headRows(e *Engine) *[]int {
	var seen []int
	own := *e.arith
	linear := own.Linear
	own.Linears = nil
	own.Linear = func(p *kernels.Pool, out, x []float32, rows int, w *kernels.Matrix) {
		if w == e.d.Head {
			seen = append(seen, rows)
		}
		linear(p, out, x, rows, w)
	}
	e.arith = &own
	return &seen
}

// TestHeadBlocks: the head sees the rows that are asked for and no other, never more at once than its budget holds; what a
// block shows is what all rows at once do, and one buffer serves all blocks.
func TestHeadBlocks(t *testing.T) {
	t.Parallel()
	open := func() *Engine {
		e, err := driver{}.Open(t.Context(), engine.Spec{Model: "", Mode: "fast", Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Close() })
		return e.(*Engine)
	}
	ids := make([]int32, 300)
	for i := range ids {
		ids[i] = int32(i * 7 % 500)
	}
	score := func(e *Engine, from int) (out []engine.Position, buffers map[*float32]bool) {
		buffers = map[*float32]bool{}
		want := engine.Want{From: from, TopK: 3, Logits: true}
		if err := e.Score(context.Background(), []engine.Prompt{{IDs: ids}}, want, func(p *engine.Position) error {
			q := *p
			buffers[&q.Logits[:1][0]] = true
			q.Logits = slices.Clone(p.Logits)
			out = append(out, q)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out, buffers
	}
	whole := open()
	want, _ := score(whole, 0)
	V := whole.d.Config.VocabSize
	for _, tc := range []struct {
		name         string
		budget, from int
		rows         []int
	}{
		{"less than a row", 1, 295, []int{1, 1, 1, 1, 1}},
		{"seven rows", 4 * 7 * V, 284, []int{7, 7, 2}},
		{"whole tiles", 4 * 70 * V, 0, []int{64, 64, 64, 64, 44}},
		{"the last", 4 * 70 * V, 299, []int{1}},
		{"none", 4 * 70 * V, math.MaxInt, nil},
	} {
		e := open()
		e.logitsBytes = tc.budget
		seen := headRows(e)
		got, buffers := score(e, tc.from)
		if !slices.Equal(*seen, tc.rows) {
			t.Errorf("%s: the head saw rows %v, want %v", tc.name, *seen, tc.rows)
		}
		if len(tc.rows) > 0 && len(buffers) > tc.rows[0] {
			t.Errorf("%s: rows of logits in %d places, want %d", tc.name, len(buffers), tc.rows[0])
		}
		for i, p := range got {
			w := want[len(want)-len(got)+i]
			if p.Pos != w.Pos || p.ID != w.ID || math.Abs(p.LSE-w.LSE) > 1e-4 || len(p.Top) != 3 || p.Top[0].ID != p.ID || p.Logits[p.ID] != float32(p.Top[0].Logit) {
				t.Errorf("%s: position %d shows %d (%g), want %d (%g)", tc.name, p.Pos, p.ID, p.LSE, w.ID, w.LSE)
			}
		}
	}
}

// TestHeadByParts: positions whose logits nobody asks for show, in the same bits, what they show with them; parts are not of few
// rows, and only where the order of the sum is free.
func TestHeadByParts(t *testing.T) {
	t.Parallel()
	ids := make([]int32, 300)
	for i := range ids {
		ids[i] = int32(i * 7 % 500)
	}
	for _, mode := range []string{"fast", "exact"} {
		for _, from := range []int{0, 280, 299 - partRows + 2} {
			e := openSpec(t, engine.Spec{Model: "", Mode: mode, Threads: 2})
			V := e.d.Config.VocabSize
			if V <= partUnit {
				t.Fatalf("a vocabulary of %d is one part", V)
			}
			score := func(want engine.Want) (out []*engine.Position) {
				want.From, want.TopK = from, 3
				if err := e.Score(t.Context(), []engine.Prompt{{IDs: ids}}, want, func(p *engine.Position) error {
					q := *p
					q.Logits = nil
					out = append(out, &q)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				return out
			}
			want := score(engine.Want{Logits: true})
			seen := headRows(e)
			if mode == "fast" && len(ids)-from >= partRows {
				e.logitsBytes = 1 // parts as small as they get
			}
			got := score(engine.Want{})
			parts := len(*seen) == 0
			if by := mode == "fast" && len(ids)-from >= partRows; parts != by {
				t.Errorf("%s, from %d: by parts %v, want %v", mode, from, parts, by)
			}
			for i, w := range want {
				p := got[i]
				if p.Pos != w.Pos || p.ID != w.ID || !slices.Equal(p.Ties, w.Ties) || !slices.Equal(p.Top, w.Top) || p.Logits != nil || p.LSE != w.LSE {
					t.Fatalf("%s, position %d: shows %+v, want %+v", mode, w.Pos, p, w)
				}
			}
		}
	}
}

// TestGenerateProgress: the prompt's way through the layers is told up to its end, in calls or layer by layer, and nothing of
// the tokens after it.
func TestGenerateProgress(t *testing.T) {
	t.Parallel()
	ids := make([]int32, 300)
	for i := range ids {
		ids[i] = int32(i*7%500 + 1)
	}
	for _, stream := range []bool{false, true} {
		for _, path := range []engine.Path{{}, {Chunk: 128}} {
			e := openSpec(t, engine.Spec{Model: "", Mode: "fast", Threads: 2, Stream: stream})
			last, calls, want := int64(0), 0, int64(len(ids)*len(e.d.Layers))
			tokens := 0
			err := e.Generate(t.Context(), engine.Prompt{IDs: ids}, engine.Options{MaxTokens: 3, Path: path, Progress: func(done, total int64) {
				if calls++; done <= last || total != want || tokens > 0 {
					t.Errorf("stream %v, %v: %d of %d after %d and %d tokens, want more, of %d, before the first", stream, path, done, total, last, tokens, want)
				}
				last = done
			}}, func(*engine.Token) error { tokens++; return nil })
			if err != nil || last != want || calls < 2*len(e.d.Layers) {
				t.Errorf("stream %v, %v: told %d times, the last %d of %d (%v)", stream, path, calls, last, want, err)
			}
		}
	}
}
