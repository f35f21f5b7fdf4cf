package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
)

// File is an open trace: a Source whose tensors are read from the mapped file, valid until Close.
type File struct {
	label   string
	f       *safetensors.File
	meta    *Meta // nil for goldens
	ids     []int32
	list    []TensorInfo
	tensors map[string]safetensors.Tensor // by tap name, without the prompt's prefix
}

// IsTrace says whether path is a regular file with our trace metadata: such a file is a subject by itself.
// A file that cannot be read is none.
func IsTrace(path string) bool {
	f, err := safetensors.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return strings.HasPrefix(f.Metadata()["format"], "sibyl-trace/")
}

// Open opens a trace file. prompt is "" for our own; for a golden, which holds several prompts under prefixes, it
// is one of them ("p9"), or a reference within one that uses the names of taps ("p9.f64", "p9.step"), whose ids are
// the prompt's. Tensors of a golden that are no taps are left out. Bad input gives an *inputerr.Error.
func Open(path, prompt string) (*File, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, &inputerr.Error{File: path, Found: "no such file", Want: "a trace file", Do: "make one with `sibyl trace`"}
	}
	sf, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := bind(sf, prompt)
	if err != nil {
		_ = sf.Close() // the binding's error is the one to tell
		return nil, err
	}
	return f, nil
}

// ParseFile reads a trace whose bytes are b, as Open does; name is for messages.
func ParseFile(name string, b []byte, prompt string) (*File, error) {
	sf, err := safetensors.Parse(name, b)
	if err != nil {
		return nil, err
	}
	return bind(sf, prompt)
}

// bind finds the tensors of one sequence and checks everything that reading relies on.
func bind(sf *safetensors.File, prompt string) (*File, error) {
	f := &File{label: sf.Path(), f: sf, tensors: map[string]safetensors.Tensor{}}
	format, ours := sf.Metadata()["format"], false
	if strings.HasPrefix(format, "sibyl-trace/") {
		if format != Format {
			return nil, f.fault("metadata format", inputerr.Clip(format, 40), Format, "make the trace again with this sibyl")
		}
		ours = true
		if prompt != "" {
			return nil, f.fault("prompt "+inputerr.Clip(prompt, 40), "a trace of one sequence", "a file with prompts under prefixes", "leave the prompt out")
		}
		var err error
		if f.meta, err = decodeMeta(f.label, sf.Metadata()); err != nil {
			return nil, err
		}
	}
	for _, t := range sf.Tensors() {
		name, ok := t.Name, true
		if prompt != "" {
			name, ok = strings.CutPrefix(t.Name, prompt+".")
		}
		if !ok {
			continue
		}
		if err := f.addTensor(name, t, ours); err != nil {
			return nil, err
		}
	}
	if err := f.bindIDs(prompt); err != nil {
		return nil, err
	}
	if len(f.list) == 0 {
		return nil, f.fault("tensors", "none that is a tap", "at least one", "`sibyl taps` lists the names")
	}
	sortMath(f.list)
	return f, f.checkShapes()
}

// addTensor takes a tensor if its name is a tap's, or one of the greedy pair. Others are left out of goldens and
// refused in our own files, where only a fault can have put them.
func (f *File) addTensor(name string, t safetensors.Tensor, ours bool) error {
	info := TensorInfo{Name: name, Tap: NumTaps, Layer: -1, Shape: t.Shape}
	tap, layer, ok := Parse(name)
	switch {
	case ok && tap == OpResult:
		info.Tap, info.DType = tap, tap.DType()
	case ok:
		info.Tap, info.Layer, info.DType = tap, layer, tap.DType()
	case name == GreedyIDs:
		info.DType = I32
	case name == GreedyMargin:
		info.DType = F32
	case ours:
		return f.fault("tensor "+inputerr.Clip(name, 80), "a name that is no tap", "one of the taps", "`sibyl taps` lists the names")
	default:
		return nil
	}
	if string(t.DType) != string(info.DType) {
		return f.fault("tensor "+inputerr.Clip(name, 80)+" dtype", string(t.DType), string(info.DType), "make the trace again with `sibyl trace`")
	}
	f.list = append(f.list, info)
	f.tensors[name] = t
	return nil
}

// bindIDs finds the token ids: the metadata's, which input_ids must repeat if it is there, or a golden's input_ids.
func (f *File) bindIDs(prompt string) error {
	name := InputIDs.Name(-1)
	t, ok := f.tensors[name]
	for p := prompt; !ok && p != ""; { // p9.f64 has the ids of p9
		p = p[:max(strings.LastIndexByte(p, '.'), 0)]
		t, ok = f.f.Tensor(strings.TrimPrefix(p+"."+name, "."))
		ok = ok && t.DType == safetensors.I32
	}
	if ok {
		for i := 0; i+4 <= len(t.Data); i += 4 {
			f.ids = append(f.ids, int32(binary.LittleEndian.Uint32(t.Data[i:])))
		}
	}
	if f.meta == nil && !ok {
		e := &inputerr.Error{File: f.label, Found: "a safetensors file without trace metadata", Want: "a trace", Do: "make one with `sibyl trace`"}
		if prompts := f.prompts(); len(prompts) > 0 {
			e.Found, e.Want = "a golden with several prompts", "the name of one: "+strings.Join(prompts, ", ")
			e.Do = "add it as the prompt"
			if prompt != "" {
				e.Found, e.Want, e.Do = inputerr.Clip(prompt, 40), "one of the file's prompts: "+strings.Join(prompts, ", "), "name one of these"
			}
		}
		return e
	}
	if f.meta != nil {
		if ok && !slices.Equal(f.ids, f.meta.IDs) {
			return f.fault("input_ids", "other ids than in the metadata", "the same", "make the trace again with `sibyl trace`")
		}
		f.ids = f.meta.IDs
	}
	for i, id := range f.ids {
		if id < 0 || id >= maxExact {
			return f.fault(fmt.Sprintf("input_ids[%d]", i), fmt.Sprint(id), fmt.Sprintf("an id from 0 to %d", maxExact-1), "make the trace again with `sibyl trace`")
		}
	}
	return nil
}

// prompts lists the prefixes under which a golden keeps ids.
func (f *File) prompts() []string {
	found := map[string]bool{}
	for _, t := range f.f.Tensors() {
		if p, ok := strings.CutSuffix(t.Name, "."+InputIDs.Name(-1)); ok && len(p) < 20 && len(found) < 20 {
			found[p] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func (f *File) fault(field, found, want, do string) error {
	return &inputerr.Error{File: f.label, Field: field, Found: found, Want: want, Do: do}
}

// Label is the path the file was opened under.
func (f *File) Label() string { return f.label }

// IDs are the tokens that were run. The slice must not be changed.
func (f *File) IDs() []int32 { return f.ids }

// Meta is what the file says about its run; nil for a golden.
func (f *File) Meta() *Meta { return f.meta }

// Tensors lists what the file holds, in the order of the math. The slice must not be changed.
func (f *File) Tensors() []TensorInfo { return f.list }

// maxExact bounds integers: below it float32 holds them all.
const maxExact = 1 << 24

// Read copies len(dst) elements of a tensor from element off. An I32 element of 2^24 or more, or a negative one,
// is an error: no id or expert number is that large, and float32 would not hold it.
func (f *File) Read(name string, off int, dst []float32) error {
	t, ok := f.tensors[name]
	if !ok || off < 0 || off > len(t.Data)/4-len(dst) {
		return outside(f.label, name, off, len(dst))
	}
	data := t.Data[4*off : 4*(off+len(dst))]
	if t.DType == safetensors.I32 {
		for i := range dst {
			v := int32(binary.LittleEndian.Uint32(data[4*i:]))
			if v < 0 || v >= maxExact {
				return f.fault(fmt.Sprintf("tensor %q element %d", name, off+i), fmt.Sprint(v), fmt.Sprintf("a number from 0 to %d", maxExact-1), "make the trace again with `sibyl trace`")
			}
			dst[i] = float32(v)
		}
		return nil
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return nil
}

// Verify computes the data's hash again and compares it with the metadata's; for a golden it does nothing.
func (f *File) Verify() error {
	if f.meta == nil {
		return nil
	}
	got, err := DataSHA256(f)
	if err != nil {
		return err
	}
	if got != f.meta.DataSHA256 {
		return f.fault("data_sha256", got, f.meta.DataSHA256, "the file was changed after it was written: make it again with `sibyl trace`")
	}
	return nil
}

// Close unmaps the file.
func (f *File) Close() error { return f.f.Close() }
