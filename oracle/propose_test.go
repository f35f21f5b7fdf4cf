package oracle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sibyl/engine/enginetest"
)

// TestGateStreamed: a reference that is read anew at every pass is never asked to decode. Its continuation, margins and
// every verdict are those of the plain gate, and it takes one pass more than the worst prompt has flips.
func TestGateStreamed(t *testing.T) {
	t.Parallel()
	flipAfter := func(first int32, lengths ...int) func(enginetest.At, []float64) {
		return func(at enginetest.At, row []float64) {
			if at.Prefix[0] == first && slices.Contains(lengths, len(at.Prefix)) {
				gateFlip(at.Prefix, row, 1)
			}
		}
	}
	for _, tt := range []struct {
		name       string
		test       func(enginetest.At, []float64)
		testStream bool
		stop       []int32
		passes     int
	}{
		{name: "no flip", passes: 1},
		{name: "one flip at the first token", test: flipAfter(1, 3), passes: 2},
		{name: "a flip of the last token is corrected in the same pass", test: flipAfter(1, 7), passes: 1},
		{name: "two flips of one prompt", test: flipAfter(1, 3, 5), passes: 3},
		{name: "both prompts at once", test: func(at enginetest.At, row []float64) {
			flipAfter(1, 4)(at, row)
			flipAfter(20, 2, 3)(at, row)
		}, passes: 3},
		{name: "a test that is streamed too is not asked", testStream: true, passes: 5},
		{name: "a stop id ends a continuation", stop: []int32{stopOf(gatePrompts[0].IDs, 2)}, passes: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run := func(stream bool) *GateResult {
				s, p := gateSetup(nil, tt.test)
				p.MaxTokens, p.Stop = 5, tt.stop
				ref, test := fake(s.Ref), fake(s.Test)
				ref.Describes.Streams, test.Describes.Streams = stream, stream && tt.testStream
				ref.Fail = func(at enginetest.At) error {
					if stream && at.Call == enginetest.Generate {
						return fmt.Errorf("a streamed reference was asked to decode")
					}
					return nil
				}
				r, err := Gate(t.Context(), s, p)
				if err != nil {
					t.Fatal(err)
				}
				gateInvariants(t, r)
				return r
			}
			want, got := run(false), run(true)
			if got.RefPasses != tt.passes || want.RefPasses != 0 {
				t.Errorf("%d passes, want %d; %d of the plain gate", got.RefPasses, tt.passes, want.RefPasses)
			}
			for i := range want.Prompts {
				w, g := want.Prompts[i], got.Prompts[i]
				if tt.testStream {
					w.TestIDs = nil
				}
				if diff := cmp.Diff(w, g); diff != "" {
					t.Errorf("prompt %d (-plain +streamed):\n%s", i, diff)
				}
			}
			for _, name := range []PartName{Qualification, TeacherForced} {
				if diff := cmp.Diff(want.part(name), got.part(name)); diff != "" {
					t.Errorf("part %s (-plain +streamed):\n%s", name, diff)
				}
			}
			if p := got.part(StateStep); p.Positions != 1 || !strings.Contains(p.Note, "of prompt 1 alone") {
				t.Errorf("part 3 = %+v, want one prompt and a note", p)
			}
			if p := got.part(Rollout); (p.Status == PartNotShown) != tt.testStream {
				t.Errorf("part 4 = %+v, streamed test: %v", p, tt.testStream)
			}
		})
	}
}

// TestGuess: what is proposed where no engine is asked.
func TestGuess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		text, said, want []int32
	}{
		{"what followed the last two", []int32{5, 6, 1, 5, 9, 5, 6}, []int32{7, 7, 7}, []int32{1, 5, 9}},
		{"what REF said", []int32{1, 2}, []int32{7, 8, 9, 10}, []int32{7, 8, 9}},
		{"what REF said of that place", []int32{5, 6, 1, 5, 6}, []int32{7, 8, 9}, []int32{1, 5, 6}},
		{"what followed the last one, where it stood last", []int32{5, 1, 5, 2, 4, 5}, nil, []int32{2, 4, 5}},
		{"what REF said is looked up too", []int32{3, 4, 8, 1}, []int32{3, 4}, []int32{3, 4, 8}},
		{"the last id again", []int32{3}, nil, []int32{3, 3, 3}},
	} {
		if got := guess(tt.text, tt.said, 3); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestGateGuesses: where both engines stream, a continuation that repeats itself takes fewer passes than it has tokens.
func TestGateGuesses(t *testing.T) {
	t.Parallel()
	s, p := gateSetup(nil, nil)
	lead := func(ids []int32) int32 { return 11 + (ids[len(ids)-1]-10)%3 } // 11, 12, 13, 11, ...
	for _, e := range []*enginetest.Fake{fake(s.Ref), fake(s.Test)} {
		e.Describes.Streams = true
		e.Row = func(at enginetest.At) []float64 {
			row := make([]float64, e.Describes.VocabSize)
			row[lead(at.Prefix)] = 4
			return row
		}
	}
	s.Prompts, p.MaxTokens = []Prompt{{IDs: []int32{3, 11, 12}}}, 12
	r, err := Gate(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	want := []int32{13, 11, 12, 13, 11, 12, 13, 11, 12, 13, 11, 12}
	if !slices.Equal(r.Prompts[0].RefIDs, want) {
		t.Errorf("REF's continuation = %v, want %v", r.Prompts[0].RefIDs, want)
	}
	// The first pass learns 13, the second that 11 follows it; from there on all is a repetition.
	if r.RefPasses > 4 {
		t.Errorf("%d passes for a repetition of three ids", r.RefPasses)
	}
}

// stopOf is the n-th id that leads after prompt.
func stopOf(prompt []int32, n int) int32 {
	ids := slices.Clone(prompt)
	for range n {
		ids = append(ids, int32(gateLead(ids)))
	}
	return ids[len(ids)-1]
}
