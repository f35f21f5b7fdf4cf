package coreai

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"sibyl/engine"
	"sibyl/internal/shown"
)

// rowBytes bounds the rows of logits that wait in one file; a call that makes more has one of its own size.
const rowBytes = 64 << 20

// session is one sequence on a worker.
type session struct {
	e   *Engine
	pos int // tokens consumed
}

// begin starts a sequence, from a state if there is one.
func (e *Engine) begin(ctx context.Context, st *engine.State) (*session, error) {
	r := request{Op: opReset}
	if st != nil && st.Len > 0 {
		files, err := e.writeState(st)
		if err != nil {
			return nil, err
		}
		defer e.w.remove(files)
		r.Len, r.States = st.Len, files
	}
	m, err := e.w.call(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	if m.Len != r.Len {
		return nil, e.w.kill(garbled("%d tokens after a reset to %d", m.Len, r.Len), opReset)
	}
	return &session{e: e, pos: r.Len}, nil
}

// writeState writes the states of st for the worker. Values are rounded to the states' dtypes.
func (e *Engine) writeState(st *engine.State) ([]Tensor, error) {
	values, err := e.layout.values(st)
	if err != nil {
		return nil, err
	}
	var out []Tensor
	for _, t := range e.layout.tensors() {
		raw := encode(t.DType, values[t.Name])
		sum := sha256.Sum256(raw)
		t.Shape, t.File, t.SHA256 = e.layout.filled(t, st.Len), fmt.Sprintf("take-%d", len(out)), hex.EncodeToString(sum[:])
		out = append(out, t)
		if err := e.w.write(t.File, raw); err != nil {
			e.w.remove(out)
			return nil, err
		}
	}
	return out, nil
}

// feed consumes tokens in calls. The row of each position from `from` on (counted in the whole sequence) goes to show.
// Positions of calls that none is wanted of run without the head where the bundle has such a function.
func (s *session) feed(ctx context.Context, tokens []int32, calls []int, from int, show func(pos int, row []float32) error) error {
	for len(calls) > 0 {
		n, rows, k := 0, 0, 0
		for k < len(calls) && (k == 0 || rows*s.e.rowSize() < rowBytes && n < 4096) {
			n += calls[k]
			rows += min(calls[k], max(0, s.pos+n-from))
			k++
		}
		if err := s.force(ctx, tokens[:n], calls[:k], from, show); err != nil {
			return err
		}
		tokens, calls = tokens[n:], calls[k:]
	}
	return nil
}

func (s *session) force(ctx context.Context, tokens []int32, calls []int, from int, show func(int, []float32) error) error {
	first := max(s.pos, from)
	in := rowReader{w: s.e.w, dtype: s.e.info.LogitsDType, vocab: s.e.info.VocabSize}
	defer in.close()
	next := first
	m, err := s.e.w.call(ctx, request{Op: opForce, Pos: s.pos, Tokens: tokens, Calls: calls, From: min(first-s.pos, len(tokens))}, func(m *message) error {
		if m.Ev != "step" || m.Pos != next || m.Tok == nil || next >= s.pos+len(tokens) {
			return garbled("event %q of position %d where a step of position %d was due", clip(m.Ev), m.Pos, next)
		}
		next++
		row, err := in.row(m)
		if err != nil {
			return err
		}
		return show(m.Pos, row)
	})
	if err != nil {
		return err
	}
	if m.Ev != "done" || m.Reason != "max" || next != max(first, s.pos+len(tokens)) || m.Len != s.pos+len(tokens) {
		return s.e.w.kill(garbled("%q (%s) at length %d after %d rows; due were length %d and %d rows", clip(m.Ev), clip(m.Reason), m.Len, next-first, s.pos+len(tokens), max(0, s.pos+len(tokens)-first)), opForce)
	}
	s.pos = m.Len
	return nil
}

// state reads the states.
func (s *session) state(ctx context.Context) (*engine.State, error) {
	m, err := s.e.w.call(ctx, request{Op: opForce, Pos: s.pos, States: true}, nil)
	if err != nil {
		return nil, err
	}
	if m.Len != s.pos || len(m.States) != 4 {
		return nil, s.e.w.kill(garbled("%d states at length %d, want 4 at %d", len(m.States), m.Len, s.pos), opForce)
	}
	defer s.e.w.remove(m.States)
	l, values := s.e.layout, map[string][]float32{}
	for _, want := range l.tensors() {
		shape := l.filled(want, s.pos)
		got := tensorNamed(m.States, want.Name)
		if got == nil || got.DType != want.DType || !slices.Equal(got.Shape, shape) {
			return nil, s.e.w.kill(&Failure{Code: BadData, Msg: fmt.Sprintf("states %s; want %s %s%v", describeAll(m.States), want.Name, want.DType, shape)}, opForce)
		}
		n, ok := elements(shape)
		if !ok {
			return nil, &Failure{Code: BadData, Doing: opForce, Msg: fmt.Sprintf("state %s of %v is too large", want.Name, shape)}
		}
		raw, err := s.e.w.read(got.File, n*dtypeBytes[want.DType], got.SHA256)
		if err != nil {
			return nil, s.e.w.kill(err, opForce)
		}
		values[want.Name] = decode(want.DType, raw)
	}
	return l.export(s.pos, values), nil
}

// rowReader reads rows from the file of one force.
type rowReader struct {
	w     *worker
	dtype string
	vocab int
	name  string
	f     io.ReadCloser
	raw   []byte
}

// row reads the next row and holds it against what the event says of it.
func (r *rowReader) row(m *message) ([]float32, error) {
	bad := func(format string, args ...any) error {
		return &Failure{Code: BadData, Msg: fmt.Sprintf("logits of position %d: ", m.Pos) + fmt.Sprintf(format, args...), Fatal: true}
	}
	if r.f == nil {
		if err := r.w.plain(m.File); err != nil {
			return nil, bad("%v", err)
		}
		f, err := r.w.files.Open(m.File)
		if err != nil {
			return nil, bad("%v", err)
		}
		r.f, r.name, r.raw = f, m.File, make([]byte, r.vocab*dtypeBytes[r.dtype])
	}
	if m.File != r.name {
		return nil, bad("file %q after %q", clip(m.File), r.name)
	}
	if _, err := io.ReadFull(r.f, r.raw); err != nil {
		return nil, bad("the file has no row of %d logits: %v", r.vocab, err)
	}
	if sum := sha256.Sum256(r.raw); hex.EncodeToString(sum[:]) != m.SHA256 {
		return nil, bad("other bytes than announced")
	}
	row := decode(r.dtype, r.raw)
	if id := shown.Largest(row, 1)[0].ID; id != *m.Tok {
		return nil, bad("the worker names id %d, the row's largest is %d", *m.Tok, id)
	}
	return row, nil
}

func (r *rowReader) close() {
	if r.f != nil {
		_ = r.f.Close() // it was only read
		r.w.remove([]Tensor{{File: r.name}})
	}
}

// plain refuses a name that is not a file's in the scratch folder itself. What it leads to, a symlink for one, is the
// os.Root's to refuse.
func (w *worker) plain(name string) error {
	if name == "" || len(name) > maxWord || name != filepath.Base(name) || !filepath.IsLocal(name) {
		return fmt.Errorf("%q is no file's name", clip(name))
	}
	if info, err := w.files.Lstat(name); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%q is no regular file of the scratch folder", clip(name))
	}
	return nil
}

// read gives a file that must have a size and a hash.
func (w *worker) read(name string, size int, sum string) ([]byte, error) {
	bad := func(err error) error { return &Failure{Code: BadData, Msg: err.Error()} }
	if err := w.plain(name); err != nil {
		return nil, bad(err)
	}
	f, err := w.files.Open(name)
	if err != nil {
		return nil, bad(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != int64(size) {
		return nil, bad(fmt.Errorf("file %s is not of %d bytes", name, size))
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(f, int64(size))); err != nil {
		return nil, bad(err)
	}
	if got := sha256.Sum256(b.Bytes()); hex.EncodeToString(got[:]) != sum {
		return nil, bad(fmt.Errorf("file %s has other bytes than announced", name))
	}
	return b.Bytes(), nil
}

func (w *worker) write(name string, raw []byte) error {
	f, err := w.files.Create(name)
	if err != nil {
		return fmt.Errorf("coreai: %w", err)
	}
	_, err = f.Write(raw)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("coreai: %w", err)
	}
	return nil
}

// remove drops files; what is left goes with the folder.
func (w *worker) remove(files []Tensor) {
	for _, t := range files {
		if w.files != nil && w.plain(t.File) == nil {
			_ = w.files.Remove(t.File)
		}
	}
}
