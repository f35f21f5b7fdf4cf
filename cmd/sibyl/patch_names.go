package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/internal/inputerr"
	"sibyl/internal/safetensors"
	"sibyl/precision"
)

// target is a constant that patch changes.
type target struct {
	name string
	k    *aicode.Const
	rows []bundle.Span // where the name is a part of a fused matrix
}

// parseSet splits NAME[I,J]=VALUE.
func parseSet(text string) (name string, index []int64, value string, err error) {
	bad := &inputerr.Error{File: "--set", Found: inputerr.Clip(text, 80), Want: "NAME[I,J]=VALUE", Do: "put it in quotes: shells read brackets"}
	left, value, ok := cutLast(text, "=")
	name, list, open := strings.Cut(left, "[")
	list, closed := strings.CutSuffix(list, "]")
	if !ok || !open || !closed || name == "" {
		return "", nil, "", bad
	}
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil || n < 0 {
			return "", nil, "", bad
		}
		index = append(index, n)
	}
	return name, index, value, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// constantParts are the parts of a weight by the suffixes of their names.
var constantParts = []string{"data", "scale", "offset1", "offset2", "lut"}

// find gives the constant of a name: a weight's part, or key:KEY.
func (p *patcher) find(flag, name string) (*target, error) {
	if key, ok := strings.CutPrefix(name, "key:"); ok {
		return p.byKey(flag, key)
	}
	base, part := strings.TrimPrefix(name, "model."), "data"
	if left, suffix, ok := cutLast(base, "."); ok && slices.Contains(constantParts, suffix) {
		base, part = left, suffix
	}
	for _, w := range p.l.Weights {
		names, consts := w.Constants()
		i := slices.Index(names, part)
		if i < 0 {
			continue
		}
		if strings.TrimPrefix(w.Parameter(), "model.") == base {
			return &target{name: base + "." + part, k: consts[i]}, nil
		}
		for _, u := range w.Parts {
			if u.Name() == base {
				return &target{name: base + "." + part, k: consts[i], rows: u.Spans}, nil
			}
		}
	}
	return nil, &inputerr.Error{File: flag, Found: inputerr.Clip(name, 120), Want: "a weight of the bundle, with " + strings.Join(constantParts, ", ") + " behind it, or key:KEY",
		Do: "`sibyl inspect BUNDLE --tensors` lists the names"}
}

func (p *patcher) byKey(flag, key string) (*target, error) {
	for _, g := range p.l.Program.Graphs {
		var found *aicode.Const
		_ = g.Body.Walk(func(op *aicode.Op) error { // the function gives no error
			if op.Const != nil && op.Const.Resource == key && found == nil {
				found = op.Const
			}
			return nil
		})
		if found != nil {
			return &target{name: "key:" + key, k: found}, nil
		}
	}
	return nil, &inputerr.Error{File: flag, Found: inputerr.Clip("key:"+key, 120), Want: "the key of a resource that a constant has", Do: "`sibyl inspect BUNDLE --json` lists them"}
}

// element gives the flat place of an index in the constant, and the index there: of a part of a fused matrix the first number is a row of
// that part.
func (t *target) element(text string, index []int64) (int64, []int64, error) {
	dims := t.k.Type.Dims
	bad := &inputerr.Error{File: "--set", Field: inputerr.Clip(text, 80), Found: indexText(index), Want: "an element of " + t.k.Type.String()}
	if t.k.Splat {
		bad.Found, bad.Want, bad.Do = "a constant of one value for all its elements", "one that stores each", "name another part"
		return 0, nil, bad
	}
	if len(index) == 1 && len(dims) != 1 {
		if index[0] >= t.k.Len() || len(t.rows) > 0 {
			return 0, nil, bad
		}
		return index[0], index, nil
	}
	if len(index) != len(dims) {
		return 0, nil, bad
	}
	index = slices.Clone(index)
	if len(t.rows) > 0 {
		at := slices.IndexFunc(t.rows, func(s bundle.Span) bool { return index[0] >= int64(s.To) && index[0] < int64(s.To+s.N) })
		if at < 0 {
			return 0, nil, bad
		}
		index[0] += int64(t.rows[at].From - t.rows[at].To)
	}
	flat := int64(0)
	for a, i := range index {
		if i >= dims[a] {
			return 0, nil, bad
		}
		flat = flat*dims[a] + i
	}
	return flat, index, nil
}

func indexText(index []int64) string {
	s := make([]string, len(index))
	for i, n := range index {
		s[i] = strconv.FormatInt(n, 10)
	}
	return "[" + strings.Join(s, ",") + "]"
}

// elementBits reads a value for an element: its bits in hex, or a number that is rounded to the dtype.
func elementBits(text, value string, elem aicode.Kind) (uint64, error) {
	bad := &inputerr.Error{File: "--set", Field: inputerr.Clip(text, 80), Found: inputerr.Clip(value, 40), Want: "a number that " + elem.String() + " holds, or its bits as 0x..."}
	if hex, ok := strings.CutPrefix(value, "0x"); ok {
		v, err := strconv.ParseUint(hex, 16, min(64, elem.Bits()))
		if err != nil {
			return 0, bad
		}
		return v, nil
	}
	if !elem.IsFloat() {
		return wholeBits(value, elem, bad)
	}
	v, err := strconv.ParseFloat(value, 64)
	if err != nil && !math.IsInf(v, 0) {
		return 0, bad
	}
	switch elem {
	case aicode.F64:
		return math.Float64bits(v), nil
	case aicode.F16:
		return uint64(precision.F32ToF16(float32(v))), nil
	case aicode.BF16:
		return uint64(precision.F32ToBF16(float32(v))), nil
	}
	return uint64(math.Float32bits(float32(v))), nil
}

func wholeBits(value string, elem aicode.Kind, bad error) (uint64, error) {
	if !elem.IsInt() {
		return 0, bad
	}
	if elem >= aicode.U64 {
		v, err := strconv.ParseUint(value, 10, elem.Bits())
		if err != nil {
			return 0, bad
		}
		return v, nil
	}
	v, err := strconv.ParseInt(value, 10, elem.Bits())
	if err != nil {
		return 0, bad
	}
	return uint64(v), nil
}

// storedTensor reads FILE:TENSOR: the constant's elements as they are stored.
func storedTensor(text string, k *aicode.Const) ([]byte, error) {
	file, name, ok := cutLast(text, ":")
	if !ok {
		return nil, &inputerr.Error{File: "--tensor", Found: inputerr.Clip(text, 80), Want: "FILE:TENSOR"}
	}
	f, err := safetensors.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	t, found := f.Tensor(name)
	if !found {
		return nil, &inputerr.Error{File: file, Found: "no tensor " + inputerr.Clip(name, 80), Want: "the elements of the constant"}
	}
	want := map[aicode.Kind]safetensors.DType{aicode.F16: "F16", aicode.BF16: "BF16", aicode.F32: "F32", aicode.F64: "F64", aicode.I8: "I8"}[k.Type.Elem]
	if want == "" {
		want = "U8"
	}
	if t.DType != want || len(t.Data) != len(k.Data) {
		return nil, &inputerr.Error{File: file, Field: "tensor " + inputerr.Clip(name, 80), Found: fmt.Sprintf("%s %v, %d bytes", t.DType, t.Shape, len(t.Data)),
			Want: fmt.Sprintf("%s, %d bytes for %s", want, len(k.Data), k.Type)}
	}
	return slices.Clone(t.Data), nil
}
