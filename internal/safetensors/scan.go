package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"sibyl/internal/inputerr"
	"sibyl/internal/strictjson"
)

// The bounds of what is read. They lie well above anything real and keep a hostile header of the permitted length
// from costing more than a few times that length.
const (
	// MaxHeader is the format's own limit of the header's length in bytes.
	MaxHeader = 100_000_000
	// MaxTensors per file: a 256-expert model of 40 layers with one tensor per expert and projection has 31,000 in
	// all its shards.
	MaxTensors = 1 << 16
	// MaxRank of a shape; the family uses up to 3, vision towers 5.
	MaxRank = 8
	// MaxName is the length of a tensor's name in bytes.
	MaxName = 512
	// maxMetadata is the number of __metadata__ entries.
	maxMetadata = 1 << 12
)

const brokenFile = "download the file again; a correct writer never produces this"

// fault is an error about the header of one file.
func fault(file, field, found, want, do string) error {
	return &inputerr.Error{File: file, Field: field, Found: found, Want: want, Do: do}
}

// headerBytes finds the header in a file of size bytes of which b is the start (at least the header).
func headerBytes(file string, b []byte, size int64) ([]byte, error) {
	const field = "header length (bytes 0..8)"
	if size < 8 {
		return nil, fault(file, field, fmt.Sprintf("a file of %d bytes", size), "at least 8", "the download stopped early: download the file again")
	}
	n := binary.LittleEndian.Uint64(b)
	switch {
	case n < 2:
		return nil, fault(file, field, fmt.Sprint(n), "at least 2, the length of {}", brokenFile)
	case n > MaxHeader:
		return nil, fault(file, field, fmt.Sprint(n), fmt.Sprintf("at most %d", MaxHeader), "is this a safetensors file? its first 8 bytes are no header length")
	case n > uint64(size-8):
		return nil, fault(file, field, fmt.Sprint(n), fmt.Sprintf("at most %d, what the file holds after it", size-8), "the download stopped early: download the file again")
	}
	return b[8 : 8+n], nil
}

// scan reads the header text: entries in the order of the text, and the metadata. Offsets are not judged yet.
func scan(file string, header []byte) ([]Tensor, map[string]string, error) {
	if header[0] != '{' {
		return nil, nil, fault(file, "header, byte 0", strconv.QuoteRune(rune(header[0])), "{", brokenFile)
	}
	s, err := strictjson.New(header)
	if err != nil {
		return nil, nil, located(file, "header", err)
	}
	var tensors []Tensor
	var metadata map[string]string
	err = s.Object(func(key string) error {
		if key == "__metadata__" {
			m, err := scanMetadata(s)
			metadata = m
			return located(file, "header, __metadata__", err)
		}
		if len(tensors) == MaxTensors {
			return fault(file, "header", fmt.Sprintf("more than %d tensors", MaxTensors), "fewer", "split the file into shards")
		}
		if key == "" || len(key) > MaxName {
			return fault(file, "header", "a tensor name of "+strconv.Itoa(len(key))+" bytes", fmt.Sprintf("1 to %d", MaxName), brokenFile)
		}
		t, err := scanTensor(s)
		t.Name = key
		tensors = append(tensors, t)
		return located(file, "header, "+tensorField(key), err)
	})
	if err == nil {
		err = s.End()
	}
	return tensors, metadata, located(file, "header", err)
}

// located gives a scanner's error its file and place; other errors pass.
func located(file, where string, err error) error {
	var at *strictjson.Error
	if errors.As(err, &at) {
		return fault(file, fmt.Sprintf("%s, byte %d", where, at.Offset), at.Found, at.Want, brokenFile)
	}
	var text *entryError
	if errors.As(err, &text) {
		return fault(file, where+text.field, text.found, text.want, brokenFile)
	}
	return err
}

// entryError is what is wrong within one entry, before its name is known to the message.
type entryError struct{ field, found, want string }

func (e *entryError) Error() string { return e.field + e.found + e.want }

func tensorField(name string) string { return "tensor " + inputerr.Clip(name, 80) }

func scanMetadata(s *strictjson.Scanner) (map[string]string, error) {
	m := map[string]string{}
	err := s.Object(func(key string) error {
		if len(m) == maxMetadata {
			return &entryError{"", fmt.Sprintf("more than %d entries", maxMetadata), "fewer"}
		}
		v, err := s.String()
		m[key] = v
		return err
	})
	return m, err
}

// scanTensor reads {"dtype": string, "shape": [n...], "data_offsets": [begin, end]}, in any order, no other key.
func scanTensor(s *strictjson.Scanner) (Tensor, error) {
	var t Tensor
	var have [3]bool
	err := s.Object(func(key string) (err error) {
		switch key {
		case "dtype":
			have[0] = true
			var text string
			if text, err = s.String(); err == nil && (text == "" || len(text) > 32) {
				return &entryError{" dtype", "a string of " + strconv.Itoa(len(text)) + " bytes", "a dtype's name"}
			}
			t.DType = DType(text)
		case "shape":
			have[1] = true
			t.Shape, err = scanShape(s)
		case "data_offsets":
			have[2] = true
			t.Begin, t.End, err = scanOffsets(s)
		default:
			return &entryError{"", "the key " + inputerr.Clip(key, 60), "dtype, shape and data_offsets only"}
		}
		return err
	})
	for i, name := range []string{"dtype", "shape", "data_offsets"} {
		if err == nil && !have[i] {
			return t, &entryError{"", "no " + name, "dtype, shape and data_offsets"}
		}
	}
	return t, err
}

func scanShape(s *strictjson.Scanner) ([]int, error) {
	shape := []int{}
	err := s.Array(func(i int) error {
		if i == MaxRank {
			return &entryError{" shape", fmt.Sprintf("more than %d dimensions", MaxRank), "fewer"}
		}
		n, err := s.Uint64()
		if err == nil && n > math.MaxInt {
			return &entryError{" shape", fmt.Sprintf("%d in dimension %d", n, i), fmt.Sprintf("at most %d", math.MaxInt)}
		}
		shape = append(shape, int(n))
		return err
	})
	return shape, err
}

func scanOffsets(s *strictjson.Scanner) (begin, end int64, err error) {
	var off [2]uint64
	n := 0
	err = s.Array(func(i int) (err error) {
		if n = i + 1; n > 2 {
			return &entryError{" data_offsets", "more than 2 numbers", "[begin, end]"}
		}
		if off[i], err = s.Uint64(); err == nil && off[i] > math.MaxInt64 {
			return &entryError{" data_offsets", fmt.Sprint(off[i]), fmt.Sprintf("at most %d", int64(math.MaxInt64))}
		}
		return err
	})
	if err == nil && n != 2 {
		err = &entryError{" data_offsets", fmt.Sprintf("%d numbers", n), "[begin, end]"}
	}
	return int64(off[0]), int64(off[1]), err
}

// checkRanges sorts the tensors by place in the file and demands that they fill its data section of n bytes exactly,
// each with the bytes that its shape and dtype say. For an unknown dtype only the range is judged.
func checkRanges(file string, tensors []Tensor, n int64) error {
	for i := range tensors {
		if err := checkEntry(file, &tensors[i], n); err != nil {
			return err
		}
	}
	slices.SortStableFunc(tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End))
	})
	var end int64
	for i := range tensors {
		t := &tensors[i]
		field := "header, " + tensorField(t.Name) + " data_offsets"
		found := fmt.Sprintf("[%d, %d]", t.Begin, t.End)
		switch {
		case t.Begin > end:
			return fault(file, field, found, fmt.Sprintf("a begin of %d: bytes %d..%d belong to no tensor", end, end, t.Begin), brokenFile)
		case t.Begin < end:
			return fault(file, field, found, fmt.Sprintf("a begin of %d: its first bytes belong to %s too", end, tensorField(tensors[i-1].Name)), brokenFile)
		}
		end = t.End
	}
	if end != n {
		return fault(file, "data section", fmt.Sprintf("%d bytes", n), fmt.Sprintf("%d, where the last tensor ends: bytes %d..%d belong to no tensor", end, end, n), brokenFile)
	}
	return nil
}

// checkEntry judges one entry by itself against a data section of n bytes.
func checkEntry(file string, t *Tensor, n int64) error {
	field := "header, " + tensorField(t.Name)
	if t.End < t.Begin {
		return fault(file, field+" data_offsets", fmt.Sprintf("[%d, %d]", t.Begin, t.End), "an end not below its begin", brokenFile)
	}
	if t.End > n {
		return fault(file, field+" data_offsets", fmt.Sprintf("[%d, %d]", t.Begin, t.End),
			fmt.Sprintf("an end of at most %d, the bytes the file holds after its header", n), "the download stopped early: download the file again")
	}
	size, ok := uint64(1), true
	for _, d := range t.Shape {
		size, ok = mul(size, uint64(d), ok)
	}
	if elem := t.DType.Size(); elem > 0 {
		size, ok = mul(size, uint64(elem), ok)
		if ok && size != uint64(t.End-t.Begin) {
			return fault(file, field+" data_offsets", fmt.Sprintf("%d bytes", t.End-t.Begin),
				fmt.Sprintf("%d, the size of %s %v", size, t.DType, t.Shape), brokenFile)
		}
	}
	if !ok {
		return fault(file, field+" shape", fmt.Sprint(t.Shape), "a product below 2^63", brokenFile)
	}
	return nil
}

// mul multiplies sizes; ok turns false when the product leaves int64. A zero dimension does not excuse another
// that overflows before it.
func mul(a, b uint64, ok bool) (uint64, bool) {
	hi, lo := bits.Mul64(a, b)
	return lo, ok && hi == 0 && lo <= math.MaxInt64
}
