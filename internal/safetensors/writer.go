package safetensors

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"sibyl/internal/inputerr"
)

// Spec is a tensor to be written.
type Spec struct {
	Name  string
	DType DType
	Shape []int
}

// Writer writes a file whose tensors are known beforehand and come in any order. The file grows under a temporary
// name beside its place ("model.safetensors" as ".model.safetensors.tmp-123") and gets its own by Commit, so a
// killed run leaves nothing that a later one would trust. WriteAt may be called by several goroutines at once; the
// other methods by one, after them.
type Writer struct {
	path    string
	f       *os.File
	start   int64 // of the data section in the file
	end     int64
	tensors map[string]*slot
	values  map[string]value // metadata values and where they stand
}

type slot struct {
	begin, size int64 // in the data section
	written     atomic.Int64
}

type value struct {
	at  int64  // in the file, the opening quote
	raw []byte // as it stands, with quotes and escapes
}

// Create begins a file at path. Its size is fixed from here on, and the space is claimed where the file system can.
// The bytes of the data section are in the order of tensors, those of wider elements first, so that every tensor is
// aligned to its element (as the format's own writer does). path is not touched before Commit, which replaces what
// is there if that is a regular file (anything else is refused): whether it is wanted is the caller's to ask. Metadata values may be changed by SetMetadata as long as
// their length stays; reserve them with filler.
func Create(path string, metadata map[string]string, tensors []Spec) (*Writer, error) {
	w := &Writer{path: path, tensors: make(map[string]*slot, len(tensors)), values: map[string]value{}}
	header, err := w.layout(metadata, tensors)
	if err != nil {
		return nil, err
	}
	if w.f, err = createTemp(path); err != nil {
		return nil, w.fail("create", err)
	}
	if err = claim(w.f, w.end); err == nil {
		_, err = w.f.WriteAt(header, 0)
	}
	if err != nil {
		err = w.fail(fmt.Sprintf("claim %d bytes", w.end), err)
		w.Abort()
		return nil, err
	}
	return w, nil
}

// layout computes header and places.
func (w *Writer) layout(metadata map[string]string, tensors []Spec) ([]byte, error) {
	if len(tensors) > MaxTensors {
		return nil, fmt.Errorf("write %s: %d tensors, at most %d fit one file", w.path, len(tensors), MaxTensors)
	}
	order := slices.Clone(tensors)
	slices.SortStableFunc(order, func(a, b Spec) int { return b.DType.Size() - a.DType.Size() })
	h := headerText{}
	if len(metadata) > 0 {
		if err := h.metadata(metadata, w.values); err != nil {
			return nil, fmt.Errorf("write %s: %w", w.path, err)
		}
	}
	var end int64
	for _, t := range order {
		size, err := t.bytes()
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", w.path, err)
		}
		if _, dup := w.tensors[t.Name]; dup {
			return nil, fmt.Errorf("write %s: tensor %q given twice", w.path, t.Name)
		}
		w.tensors[t.Name] = &slot{begin: end, size: size}
		shape, err := json.Marshal(append([]int{}, t.Shape...))
		if err != nil {
			return nil, err
		}
		h.key(t.Name)
		fmt.Fprintf(&h.b, `{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, t.DType, shape, end, end+size)
		if end += size; end < 0 {
			return nil, fmt.Errorf("write %s: more than 2^63 bytes", w.path)
		}
	}
	header, err := h.finish()
	w.start = int64(len(header))
	w.end = w.start + end
	return header, err
}

// bytes checks a spec and gives its size.
func (t *Spec) bytes() (int64, error) {
	probe := Tensor{Name: t.Name, DType: t.DType, Shape: t.Shape}
	if t.DType.Size() == 0 || t.Name == "" || t.Name == "__metadata__" || len(t.Name) > MaxName || !utf8.ValidString(t.Name) || len(t.Shape) > MaxRank {
		return 0, fmt.Errorf("tensor %q %s %v: not a name, dtype and shape this format can hold", t.Name, t.DType, t.Shape)
	}
	size, ok := uint64(t.DType.Size()), true
	for _, d := range probe.Shape {
		if d < 0 {
			return 0, fmt.Errorf("tensor %q: negative dimension in %v", t.Name, t.Shape)
		}
		size, ok = mul(size, uint64(d), ok)
	}
	if !ok {
		return 0, fmt.Errorf("tensor %q: the size of %v overflows", t.Name, t.Shape)
	}
	return int64(size), nil
}

// headerText builds the JSON.
type headerText struct{ b bytes.Buffer }

func (h *headerText) key(name string) {
	if h.b.Len() == 0 {
		h.b.Write(make([]byte, 8)) // the length, filled in by finish
		h.b.WriteByte('{')
	} else {
		h.b.WriteByte(',')
	}
	h.b.Write(quote(name))
	h.b.WriteByte(':')
}

func (h *headerText) metadata(m map[string]string, values map[string]value) error {
	h.key("__metadata__")
	sep := byte('{')
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if !utf8.ValidString(k) || !utf8.ValidString(m[k]) {
			return fmt.Errorf("metadata %q is not UTF-8", k)
		}
		h.b.WriteByte(sep)
		sep = ','
		h.b.Write(quote(k))
		h.b.WriteByte(':')
		raw := quote(m[k])
		values[k] = value{at: int64(h.b.Len()), raw: raw}
		h.b.Write(raw)
	}
	h.b.WriteByte('}')
	return nil
}

// finish pads with spaces to a multiple of 8, as the format asks, and fills in the length.
func (h *headerText) finish() ([]byte, error) {
	if h.b.Len() == 0 {
		h.b.Write(make([]byte, 8))
		h.b.WriteByte('{')
	}
	h.b.WriteByte('}')
	h.b.WriteString(strings.Repeat(" ", (8-h.b.Len()%8)%8))
	out := h.b.Bytes()
	if len(out)-8 > MaxHeader {
		return nil, fmt.Errorf("a header of %d bytes, at most %d are readable", len(out)-8, MaxHeader)
	}
	binary.LittleEndian.PutUint64(out, uint64(len(out)-8))
	return out, nil
}

// quote is s as JSON. Marshalling a string cannot fail; it was checked to be UTF-8.
func quote(s string) []byte {
	b, _ := json.Marshal(s)
	return b
}

// WriteAt writes p at byteOffset of the named tensor. A range outside the tensor is an error and writes nothing.
func (w *Writer) WriteAt(name string, byteOffset int64, p []byte) error {
	s, ok := w.tensors[name]
	if !ok {
		return fmt.Errorf("write %s: tensor %q was not announced", w.path, name)
	}
	if byteOffset < 0 || byteOffset > s.size || int64(len(p)) > s.size-byteOffset {
		return fmt.Errorf("write %s: bytes %d..%d of tensor %q, which has %d", w.path, byteOffset, byteOffset+int64(len(p)), name, s.size)
	}
	if _, err := w.f.WriteAt(p, w.start+s.begin+byteOffset); err != nil {
		return w.fail(fmt.Sprintf("write tensor %q", name), err)
	}
	s.written.Add(int64(len(p)))
	return nil
}

// SetMetadata replaces a value given to Create by one of the same length as JSON.
func (w *Writer) SetMetadata(key, val string) error {
	old, ok := w.values[key]
	raw := quote(val)
	if !ok || len(raw) != len(old.raw) || !utf8.ValidString(val) {
		return fmt.Errorf("write %s: metadata %q: %d bytes of JSON reserved, %d given", w.path, key, len(old.raw), len(raw))
	}
	if _, err := w.f.WriteAt(raw, old.at); err != nil {
		return w.fail("write the metadata", err)
	}
	w.values[key] = value{at: old.at, raw: raw}
	return nil
}

// SHA256 reads the data section back and gives its hash in lower-case hex. Header and metadata are not part of it.
func (w *Writer) SHA256() (string, error) {
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(w.f, w.start, w.end-w.start))
	if err != nil || n != w.end-w.start {
		return "", w.fail("read back", errors.Join(err, fmt.Errorf("%d of %d bytes", n, w.end-w.start)))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// DataBytes is the length of the data section.
func (w *Writer) DataBytes() int64 { return w.end - w.start }

// Commit flushes the file to the disk and gives it its name, replacing what was there. It refuses if a tensor was
// not written in full: a hole would read as zeros. After an error the temporary file is gone.
func (w *Writer) Commit() error {
	for name, s := range w.tensors {
		if n := s.written.Load(); n < s.size {
			w.Abort()
			return fmt.Errorf("write %s: tensor %q has %d of its %d bytes", w.path, name, n, s.size)
		}
	}
	f := w.f
	if f == nil {
		return fmt.Errorf("write %s: already committed or aborted", w.path)
	}
	if err := publish(f, w.path); err != nil {
		w.Abort()
		return w.fail("finish", err)
	}
	w.f = nil
	return nil
}

// Abort removes the temporary file. After Commit, or a second time, it does nothing.
func (w *Writer) Abort() {
	if w.f == nil {
		return
	}
	// Nothing to tell: the caller has an error of its own, and a leftover has a name that no reader takes.
	_ = w.f.Close()
	_ = os.Remove(w.f.Name())
	w.f = nil
}

// fail names the file and, for a full disk or the like, what to do.
func (w *Writer) fail(what string, err error) error {
	var in *inputerr.Error
	if errors.As(err, &in) {
		return err
	}
	return &inputerr.Error{File: w.path, Field: what, Err: err, Do: "nothing was left under that name; free space or choose another place"}
}
