package trace

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"sibyl/config"
	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
)

// Writer is an engine.Sink that puts one sequence into a trace file. The file has its full size from the start,
// rows are written where they belong as they come, and the file gets its name at Commit: a killed run leaves no
// trace that a later one would trust. It needs no memory for the tensors, and is safe for concurrent Puts.
type Writer struct {
	path   string
	f      *safetensors.Writer
	tokens int
	greedy int
	mu     sync.Mutex
	tensor map[string]*pending
}

// pending is one tensor of the file being written.
type pending struct {
	tap     Tap
	rows    int // 1 for states
	width   int // elements of a row
	written spans
}

// Create begins a trace of entries for the sequence meta.IDs; its tensors are laid out sorted by name. greedy > 0
// reserves greedy.ids and greedy.top2_margin of that length (see PutGreedy). meta.DataSHA256 is ignored.
func Create(path string, c *config.Config, entries []Entry, meta Meta, greedy int) (*Writer, error) {
	if len(meta.IDs) == 0 || len(meta.IDs) > maxTokens || meta.Past < 0 || meta.Past > maxTokens || len(entries) == 0 {
		return nil, &inputerr.Error{File: path, Found: fmt.Sprintf("%d tokens and %d taps to trace", len(meta.IDs), len(entries)),
			Want: "at least one of each", Do: "give --ids or a prompt"}
	}
	w := &Writer{path: path, tokens: len(meta.IDs), greedy: max(greedy, 0), tensor: map[string]*pending{}}
	var specs []safetensors.Spec
	for _, e := range entries {
		shape := e.Shape(c, w.tokens)
		p := &pending{tap: e.Tap, rows: w.tokens}
		if e.Tap.Cache() {
			shape = e.Shape(c, meta.Past+w.tokens)
			p.rows = 1
		}
		p.width = 1
		for _, d := range shape {
			p.width *= d
		}
		p.width /= p.rows
		w.tensor[e.Name] = p
		specs = append(specs, safetensors.Spec{Name: e.Name, DType: safetensors.DType(e.Tap.DType()), Shape: shape})
	}
	if greedy > 0 {
		specs = append(specs, safetensors.Spec{Name: GreedyIDs, DType: safetensors.I32, Shape: []int{greedy}},
			safetensors.Spec{Name: GreedyMargin, DType: safetensors.F32, Shape: []int{greedy}})
	}
	slices.SortFunc(specs, func(a, b safetensors.Spec) int { return compareNames(a.Name, b.Name) })
	kv, err := meta.encode()
	if err != nil {
		return nil, err
	}
	if w.f, err = safetensors.Create(path, kv, specs); err != nil {
		return nil, err
	}
	return w, w.putIDs(meta.IDs)
}

func (w *Writer) putIDs(ids []int32) error {
	name := InputIDs.Name(-1)
	p, ok := w.tensor[name]
	if !ok {
		return nil
	}
	p.written = spans{{0, len(ids)}}
	if err := w.write(name, 0, len(ids), func(b []byte, i int) error {
		binary.LittleEndian.PutUint32(b, uint32(ids[i]))
		return nil
	}); err != nil {
		w.Abort()
		return err
	}
	return nil
}

// Wants says whether a tensor goes into the file. input_ids is never wanted: the Writer knows it already.
func (w *Writer) Wants(name string) bool {
	_, ok := w.tensor[name]
	return ok && name != tapTable[InputIDs].name
}

// Put writes rows pos.. of sequence 0; for states at the end pos is 0, rows is 1 and x is the whole tensor.
// Rows may come in any order; a row that comes twice or has another width than the model's is an error.
func (w *Writer) Put(name string, seq, pos, rows int, x []float32) error {
	if !w.Wants(name) {
		return nil
	}
	p := w.tensor[name]
	if seq != 0 || pos < 0 || rows < 1 || pos > p.rows-rows {
		return fmt.Errorf("tap %s: rows %d..%d of sequence %d, want rows of 0..%d of sequence 0", name, pos, pos+rows-1, seq, p.rows-1)
	}
	if len(x) != rows*p.width {
		return fmt.Errorf("tap %s: %d elements in %d rows, want %d a row", name, len(x), rows, p.width)
	}
	w.mu.Lock()
	err := p.written.add(pos, pos+rows)
	w.mu.Unlock()
	if err != nil {
		return fmt.Errorf("tap %s: %w", name, err)
	}
	put := func(b []byte, i int) error {
		binary.LittleEndian.PutUint32(b, math.Float32bits(x[i]))
		return nil
	}
	if p.tap.DType() == I32 {
		put = func(b []byte, i int) error {
			v := int32(x[i])
			if float32(v) != x[i] {
				return fmt.Errorf("tap %s: %v is no integer", name, x[i])
			}
			binary.LittleEndian.PutUint32(b, uint32(v))
			return nil
		}
	}
	return w.write(name, pos*p.width, len(x), put)
}

// PutGreedy stores the ids chosen after the prompt and the gaps between the two largest logits at each choice.
func (w *Writer) PutGreedy(ids []int32, margins []float32) error {
	if len(ids) != w.greedy || len(margins) != w.greedy {
		return fmt.Errorf("greedy: %d ids and %d margins, want %d", len(ids), len(margins), w.greedy)
	}
	err := w.write(GreedyIDs, 0, len(ids), func(b []byte, i int) error {
		binary.LittleEndian.PutUint32(b, uint32(ids[i]))
		return nil
	})
	if err != nil {
		return err
	}
	return w.write(GreedyMargin, 0, len(margins), func(b []byte, i int) error {
		binary.LittleEndian.PutUint32(b, math.Float32bits(margins[i]))
		return nil
	})
}

// blockElements is how many elements are encoded or decoded at a time: 64 KiB, which stays in the cache.
const blockElements = 1 << 14

var blocks = sync.Pool{New: func() any { return new([4 * blockElements]byte) }}

// write encodes n elements with put and stores them from element off of a tensor.
func (w *Writer) write(name string, off, n int, put func(b []byte, i int) error) error {
	buf := blocks.Get().(*[4 * blockElements]byte)
	defer blocks.Put(buf)
	for done := 0; done < n; {
		m := min(n-done, blockElements)
		for i := range m {
			if err := put(buf[4*i:4*i+4], done+i); err != nil {
				return err
			}
		}
		if err := w.f.WriteAt(name, 4*int64(off+done), buf[:4*m]); err != nil {
			return err
		}
		done += m
	}
	return nil
}

// Commit checks that every row of every tensor was written, puts the data's hash into the header and gives the
// file its name. It returns the hash. After an error nothing is left.
func (w *Writer) Commit() (dataSHA256 string, err error) {
	defer func() {
		if err != nil {
			w.Abort()
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, p := range w.tensor {
		if m := p.written.missing(p.rows); m < p.rows {
			return "", fmt.Errorf("%s: tap %s, row %d of %d: %w", w.path, name, m, p.rows, ErrIncomplete)
		}
	}
	if dataSHA256, err = w.f.SHA256(); err != nil {
		return "", err
	}
	if err := w.f.SetMetadata("data_sha256", dataSHA256); err != nil {
		return "", err
	}
	return dataSHA256, w.f.Commit()
}

// Abort removes the unfinished file; after Commit it does nothing.
func (w *Writer) Abort() { w.f.Abort() }
