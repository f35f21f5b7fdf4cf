package trace

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sibyl/engine"
)

var _ engine.Sink = (*Recorder)(nil)

func TestSpans(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, why string
		adds      [][2]int
		missing   int // of 10
		fails     bool
	}{
		{"steps", "one row at a time", [][2]int{{0, 1}, {1, 2}, {2, 3}}, 3, false},
		{"whole", "prefill", [][2]int{{0, 10}}, 10, false},
		{"backwards", "layers may finish in any order", [][2]int{{5, 10}, {0, 5}}, 10, false},
		{"hole-filled", "the middle joins both sides", [][2]int{{0, 3}, {6, 10}, {3, 6}}, 10, false},
		{"hole", "a row nobody wrote", [][2]int{{0, 3}, {4, 10}}, 3, false},
		{"no-start", "the first row", [][2]int{{1, 10}}, 0, false},
		{"twice", "the same rows", [][2]int{{0, 3}, {0, 3}}, 0, true},
		{"overlap-left", "the end of what is there", [][2]int{{0, 3}, {2, 4}}, 0, true},
		{"overlap-right", "the start of what is there", [][2]int{{4, 6}, {2, 5}}, 0, true},
		{"swallow", "around what is there", [][2]int{{4, 6}, {2, 8}}, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s spans
			var err error
			for _, a := range tt.adds {
				err = errors.Join(err, s.add(a[0], a[1]))
			}
			if (err != nil) != tt.fails {
				t.Fatalf("add %v: %v, want failure %v\nwhy: %s", tt.adds, err, tt.fails, tt.why)
			}
			if got := s.missing(10); err == nil && got != tt.missing {
				t.Errorf("missing after %v = %d, want %d\nwhy: %s", tt.adds, got, tt.missing, tt.why)
			}
		})
	}
}

func TestRecorderPutsRowsTogether(t *testing.T) {
	t.Parallel()
	r := NewRecorder("test", nil, nil, []int32{7, 8, 9}, []int32{5})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(r.Put("layer0.out", 0, 2, 1, []float32{5, 6}))
	must(r.Put("layer0.out", 0, 0, 2, []float32{1, 2, 3, 4}))
	must(r.Put("layer0.out", 1, 0, 1, []float32{9, 9}))
	must(r.Put("cache.layer0.recurrent_state", 0, 0, 1, []float32{1, 2, 3, 4, 5, 6}))
	if got, want := r.Rows(0, "layer0.out"), []float32{1, 2, 3, 4, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("rows = %v, want %v", got, want)
	}
	s, err := r.Sequence(0)
	must(err)
	var names []string
	for _, i := range s.Tensors() {
		names = append(names, i.Name)
	}
	if want := []string{"input_ids", "layer0.out", "cache.layer0.recurrent_state"}; !slices.Equal(names, want) {
		t.Errorf("tensors = %v, want %v", names, want)
	}
	got := make([]float32, 2)
	must(s.Read("layer0.out", 3, got))
	if !slices.Equal(got, []float32{4, 5}) {
		t.Errorf("Read at 3 = %v, want [4 5]", got)
	}
	for _, off := range []int{-1, 5, 1 << 40} {
		if err := s.Read("layer0.out", off, got); err == nil {
			t.Errorf("Read of 2 at %d of 6: no error", off)
		}
	}
}

func TestRecorderRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want string
		put        func(r *Recorder) error
	}{
		{"not-a-tap", "is not a tap", func(r *Recorder) error { return r.Put("layer0.nonsense", 0, 0, 1, []float32{1}) }},
		{"beyond", "want rows of 0..2", func(r *Recorder) error { return r.Put("embed", 0, 2, 2, []float32{1, 2}) }},
		{"overflow", "want rows of 0..2", func(r *Recorder) error { return r.Put("embed", 0, 1<<62, 1<<62, []float32{1, 2}) }},
		{"sequence", "want one of 1", func(r *Recorder) error { return r.Put("embed", 1, 0, 1, []float32{1}) }},
		{"ragged", "3 elements in 2 rows", func(r *Recorder) error { return r.Put("embed", 0, 0, 2, []float32{1, 2, 3}) }},
		{"width", "the rows before had 2 each", func(r *Recorder) error {
			return errors.Join(r.Put("embed", 0, 0, 1, []float32{1, 2}), r.Put("embed", 0, 1, 1, []float32{1}))
		}},
		{"twice", "written twice", func(r *Recorder) error {
			return errors.Join(r.Put("embed", 0, 0, 2, []float32{1, 2}), r.Put("embed", 0, 1, 1, []float32{1}))
		}},
		{"hole", "tap embed, row 1 of 3: not every row", func(r *Recorder) error {
			err := errors.Join(r.Put("embed", 0, 0, 1, []float32{1}), r.Put("embed", 0, 2, 1, []float32{1}))
			_, e := r.Sequence(0)
			return errors.Join(err, e)
		}},
		{"shape", "want shape [3 96]", func(r *Recorder) error {
			err := r.Put("embed", 0, 0, 3, []float32{1, 2, 3})
			_, e := r.Sequence(0)
			return errors.Join(err, e)
		}},
		{"wrong-layer", "a tap that this model does not have", func(r *Recorder) error {
			err := r.Put("layer3.gdn.g", 0, 0, 3, []float32{1, 2, 3})
			_, e := r.Sequence(0)
			return errors.Join(err, e)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := tt.put(NewRecorder("test", asym(), nil, []int32{1, 2, 3})); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
