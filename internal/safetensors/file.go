package safetensors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	nlp "github.com/nlpodyssey/safetensors"

	"sibyl/internal/inputerr"
	"sibyl/internal/mmap"
	"sibyl/internal/userfile"
)

// File is an open safetensors file. Its tensors' Data are views of the mapped bytes, valid until Close.
type File struct {
	path     string
	m        *mmap.Map
	metadata map[string]string
	tensors  []Tensor       // in the order of their bytes
	index    map[string]int // name to place in tensors
}

// Open maps the file at path and reads its header only. Bad input gives an *inputerr.Error.
func Open(path string) (*File, error) {
	m, err := mmap.Open(path)
	if err != nil {
		return nil, userfile.Fault(path, "give the path of a safetensors file that can be read", err)
	}
	return FromMap(path, m)
}

// FromMap reads the header of a mapped file, which File takes over (an error closes it). path is for messages.
func FromMap(path string, m *mmap.Map) (*File, error) {
	f, err := Parse(path, m.Bytes())
	if err != nil {
		_ = m.Close() // the header's error is the one to tell
		return nil, err
	}
	f.m = m
	return f, nil
}

// Parse reads the header of a file whose bytes are b. Nothing is copied: the tensors' Data point into b.
// Header and data are judged in full, the data's values not at all. Bad input gives an *inputerr.Error.
func Parse(path string, b []byte) (*File, error) {
	if pointer(b) {
		return nil, fault(path, "", "a Git LFS pointer", "the file itself", "run `git lfs pull` in the folder it came from, or download the file again")
	}
	header, err := headerBytes(path, b, int64(len(b)))
	if err != nil {
		return nil, err
	}
	tensors, metadata, err := scan(path, header)
	if err != nil {
		return nil, err
	}
	data := b[8+len(header):]
	if err := checkRanges(path, tensors, int64(len(data))); err != nil {
		return nil, err
	}
	if err := secondReading(path, tensors); err != nil {
		return nil, err
	}
	f := &File{path: path, metadata: metadata, tensors: tensors, index: make(map[string]int, len(tensors))}
	for i := range tensors {
		t := &tensors[i]
		t.Data = data[t.Begin:t.End:t.End]
		f.index[t.Name] = i
	}
	return f, nil
}

// pointer says whether b is a Git LFS pointer: the small text that stands for a file that was not fetched.
func pointer(b []byte) bool { return bytes.HasPrefix(b, []byte("version https://git-lfs")) }

// secondReading hands the entries of known dtypes to nlpodyssey/safetensors as headers of their own and compares
// what it reads with what we read: two parsers that share no code must agree before any byte is used. The entries
// of other dtypes are left out, because it refuses a whole file for one of them. Parts of some thousand entries
// keep its memory, about a kilobyte an entry, from adding up.
func secondReading(path string, tensors []Tensor) error {
	const part = 1 << 12
	known := slices.DeleteFunc(slices.Clone(tensors), func(t Tensor) bool { return t.DType.Size() == 0 })
	for some := range slices.Chunk(known, part) {
		header, err := headerOf(some)
		if err != nil {
			return err
		}
		var second nlp.Metadata
		if err := json.Unmarshal(header, &second); err != nil {
			return &inputerr.Error{File: path, Field: "header", Err: err, Do: brokenFile}
		}
		infos := second.Tensors()
		for i := range some {
			if info := infos[some[i].Name]; info == nil || !same(&some[i], info) || len(infos) != len(some) {
				return fault(path, "header, "+tensorField(some[i].Name), "two readings that differ", "one meaning", brokenFile)
			}
		}
	}
	return nil
}

// headerOf writes the entries as a header's JSON.
func headerOf(tensors []Tensor) ([]byte, error) {
	var b bytes.Buffer
	sep := byte('{')
	for i := range tensors {
		t := &tensors[i]
		shape, err := json.Marshal(t.Shape)
		if err != nil {
			return nil, err
		}
		b.WriteByte(sep)
		sep = ','
		fmt.Fprintf(&b, `%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, quote(t.Name), string(t.DType), shape, t.Begin, t.End)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func same(t *Tensor, info *nlp.TensorInfo) bool {
	return string(t.DType) == info.DType.String() && uint64(t.DType.Size()) == info.DType.Size() &&
		uint64(t.Begin) == info.DataOffsets[0] && uint64(t.End) == info.DataOffsets[1] &&
		slices.EqualFunc(t.Shape, info.Shape, func(a int, b uint64) bool { return uint64(a) == b })
}

// Path is the name the file was opened under.
func (f *File) Path() string { return f.path }

// Metadata gives the header's __metadata__, nil if it has none. It must not be changed.
func (f *File) Metadata() map[string]string { return f.metadata }

// Tensors lists all entries, those of unknown dtype included, in the order of their bytes. It must not be changed.
func (f *File) Tensors() []Tensor { return f.tensors }

// Tensor finds an entry by name.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.index[name]
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[i], true
}

// Map is the mapping under the file, nil after Parse: for advice and for Check.
func (f *File) Map() *mmap.Map { return f.m }

// Close unmaps the file. Data of its tensors must not be used after it.
func (f *File) Close() error {
	if f.m == nil {
		return nil
	}
	return f.m.Close()
}
