package trace

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"sibyl/config"
	"sibyl/internal/inputerr"
)

// ErrIncomplete is what reading or committing gives when an engine did not hand over every row it was asked for.
var ErrIncomplete = errors.New("not every row of the tap was written")

// Recorder keeps taps in memory, of one or several sequences. It is an engine.Sink, and safe for concurrent Puts.
type Recorder struct {
	label string
	cfg   *config.Config // may be nil: shapes are then flat
	want  map[string]bool
	ids   [][]int32
	mu    sync.Mutex
	seqs  []map[string]*recorded
}

// recorded is one tensor: rows of width elements, token-major.
type recorded struct {
	tap     Tap
	layer   int
	width   int
	data    []float32
	written spans
}

// NewRecorder records the tensors of entries (nil means every tap an engine hands over) for the sequences ids.
// cfg gives tensors their full shapes; with nil they are [T, width]. label is the Source's Label.
func NewRecorder(label string, cfg *config.Config, entries []Entry, ids ...[]int32) *Recorder {
	r := &Recorder{label: label, cfg: cfg, ids: ids, seqs: make([]map[string]*recorded, len(ids))}
	if entries != nil {
		r.want = make(map[string]bool, len(entries))
		for _, e := range entries {
			r.want[e.Name] = true
		}
	}
	for s := range ids {
		r.seqs[s] = map[string]*recorded{}
		if r.want == nil || r.want[InputIDs.Name(-1)] {
			r.seqs[s][InputIDs.Name(-1)] = &recorded{tap: InputIDs, layer: -1, width: 1,
				data: floats(ids[s]), written: spans{{0, len(ids[s])}}}
		}
	}
	return r
}

// floats widens ids; they are below 2^24, so exact.
func floats(ids []int32) []float32 {
	x := make([]float32, len(ids))
	for i, id := range ids {
		x[i] = float32(id)
	}
	return x
}

// Wants says whether a tensor is to be recorded. input_ids is never wanted: the Recorder knows it already. Operations'
// results are wanted only by name.
func (r *Recorder) Wants(name string) bool {
	return name != tapTable[InputIDs].name && (r.want == nil && !strings.HasPrefix(name, opPrefix) || r.want[name])
}

// Put stores rows pos.. of sequence seq; for states at the end pos is 0, rows is 1 and x is the whole tensor.
// Rows may come in any order; a row that comes twice, a width that changes, or a name that is no tap is an error.
func (r *Recorder) Put(name string, seq, pos, rows int, x []float32) error {
	if !r.Wants(name) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq < 0 || seq >= len(r.seqs) {
		return fmt.Errorf("tap %s: sequence %d, want one of %d", name, seq, len(r.seqs))
	}
	t, ok := r.seqs[seq][name]
	if !ok {
		tap, layer, known := Parse(name)
		if !known {
			return fmt.Errorf("%q is not a tap", name)
		}
		t = &recorded{tap: tap, layer: layer}
	}
	total := len(r.ids[seq])
	if t.tap.Cache() {
		total = 1
	}
	if pos < 0 || rows < 1 || pos > total-rows {
		return fmt.Errorf("tap %s: rows %d..%d, want rows of 0..%d", name, pos, pos+rows-1, total-1)
	}
	width := len(x) / rows
	if !ok {
		if len(x)%rows != 0 || len(x) == 0 {
			return fmt.Errorf("tap %s: %d elements in %d rows", name, len(x), rows)
		}
		t.width, t.data = width, make([]float32, total*width)
		r.seqs[seq][name] = t
	}
	if len(x) != rows*t.width {
		return fmt.Errorf("tap %s: %d elements in %d rows, the rows before had %d each", name, len(x), rows, t.width)
	}
	if err := t.written.add(pos, pos+rows); err != nil {
		return fmt.Errorf("tap %s: %w", name, err)
	}
	copy(t.data[pos*t.width:], x)
	return nil
}

// Rows gives a recorded tensor of sequence seq, token-major ([T, width], or a whole state). Nil if it was not
// recorded. The slice is the Recorder's own.
func (r *Recorder) Rows(seq int, name string) []float32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.seqs[seq][name]; t != nil {
		return t.data
	}
	return nil
}

// Sequence gives sequence seq as a Source, once the run has ended. A tensor of which rows are missing is
// ErrIncomplete.
func (r *Recorder) Sequence(seq int) (Source, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &sequence{r: r, ids: r.ids[seq], tensors: r.seqs[seq]}
	for name, t := range s.tensors {
		if err := t.complete(name, len(s.ids)); err != nil {
			return nil, err
		}
		info := TensorInfo{Name: name, Tap: t.tap, Layer: t.layer, DType: t.tap.DType()}
		if t.tap == OpResult {
			info.Layer = -1
		}
		if err := t.shape(r.cfg, len(s.ids), &info); err != nil {
			return nil, err
		}
		s.list = append(s.list, info)
	}
	sortMath(s.list)
	return s, nil
}

func (t *recorded) complete(name string, tokens int) error {
	total := tokens
	if t.tap.Cache() {
		total = 1
	}
	if m := t.written.missing(total); m < total {
		return fmt.Errorf("tap %s, row %d of %d: %w", name, m, total, ErrIncomplete)
	}
	return nil
}

// shape fills in info.Shape from the config, if there is one and it agrees with what came.
func (t *recorded) shape(cfg *config.Config, tokens int, info *TensorInfo) error {
	if cfg != nil && t.tap.PerLayer() && (t.layer >= cfg.NumLayers || !t.tap.In(cfg, t.layer)) {
		return fmt.Errorf("tap %s: the engine gave a tap that this model does not have", info.Name)
	}
	switch {
	case t.tap == OpResult:
		info.Shape = []int{tokens, t.width}
	case cfg != nil:
		// A key cache of a continued run holds more tokens than were run: its T follows from its size.
		n := tokens
		if per := cfg.KVWidth(); (t.tap == CacheKey || t.tap == CacheValue) && per > 0 {
			n = len(t.data) / per
		}
		info.Shape = t.tap.Shape(cfg, n)
		if info.Len() != len(t.data) {
			return fmt.Errorf("tap %s: the engine gave %d elements, want shape %v", info.Name, len(t.data), info.Shape)
		}
	case t.tap.Cache():
		info.Shape = []int{len(t.data)}
	case t.tap == InputIDs:
		info.Shape = []int{tokens}
	default:
		info.Shape = []int{tokens, t.width}
	}
	return nil
}

// sortMath sorts by the order of the math: see All.
func sortMath(list []TensorInfo) {
	slices.SortFunc(list, func(a, b TensorInfo) int {
		return cmp.Or(cmp.Compare(stage(a.Tap), stage(b.Tap)), cmp.Compare(a.Layer, b.Layer),
			cmp.Compare(a.Tap, b.Tap), cmp.Compare(a.Name, b.Name))
	})
}

// stage puts what comes before the layers, the layers, what comes after, states and rollouts in this order.
func stage(t Tap) int {
	switch {
	case t <= Embed:
		return 0
	case t <= LayerOut:
		return 1
	case t <= Logits:
		return 2
	case t < NumTaps:
		return 3
	}
	return 4
}

// sequence is one sequence of a Recorder as a Source.
type sequence struct {
	r       *Recorder
	ids     []int32
	tensors map[string]*recorded
	list    []TensorInfo
}

func (s *sequence) Label() string         { return s.r.label }
func (s *sequence) IDs() []int32          { return s.ids }
func (s *sequence) Tensors() []TensorInfo { return s.list }

func (s *sequence) Read(name string, off int, dst []float32) error {
	t, ok := s.tensors[name]
	if !ok || off < 0 || off > len(t.data)-len(dst) {
		return outside(s.r.label, name, off, len(dst))
	}
	copy(dst, t.data[off:])
	return nil
}

func outside(label, name string, off, n int) error {
	return &inputerr.Error{File: label, Field: fmt.Sprintf("tensor %q", name),
		Found: fmt.Sprintf("a read of elements %d..%d", off, off+n-1), Want: "elements it has"}
}

// Bytes is how much memory recording entries for tokens tokens takes, in bytes; it saturates instead of overflowing.
func Bytes(c *config.Config, entries []Entry, tokens int) int64 {
	var sum float64
	for _, e := range entries {
		n := 4.0
		for _, d := range e.Shape(c, tokens) {
			n *= float64(d)
		}
		sum += n
	}
	if sum >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(sum)
}
