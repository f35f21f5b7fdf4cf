package trace

import (
	"fmt"
	"strconv"
	"strings"

	"sibyl/internal/inputerr"
)

// checkShapes holds every tensor to the axes of its tap without a config: T is the number of ids, and an axis such
// as hd has one size in the whole file, whatever tensor it is read from. So a trace stitched together from two
// models, or cut, is refused by the first tensor that does not fit.
func (f *File) checkShapes() error {
	past := 0
	if f.meta != nil {
		past = f.meta.Past
	}
	sizes := map[string]size{}
	for pass := range 2 { // axes that are one symbol first: products need them
		for _, t := range f.list {
			if err := f.checkTensor(t, sizes, past, pass == 1); err != nil {
				return err
			}
		}
	}
	return nil
}

// size is the size of an axis and the tensor that said so.
type size struct {
	n    int
	from string
}

func (f *File) checkTensor(t TensorInfo, sizes map[string]size, past int, products bool) error {
	axes, tokens := "N", len(f.ids)
	switch {
	case t.Tap == OpResult:
		if len(t.Shape) != 2 || t.Shape[0] != tokens || t.Shape[1] < 1 {
			return f.shapeFault(t, fmt.Sprintf("[%d, width], a row for each token of input_ids", tokens))
		}
		return nil
	case t.Tap < NumTaps:
		axes = t.Tap.Axes()
		if t.Tap.Cache() {
			tokens += past
		}
	}
	parts := strings.Split(axes, ",")
	if len(t.Shape) != len(parts) {
		return f.shapeFault(t, "the axes ["+axes+"]")
	}
	for i, axis := range parts {
		if t.Shape[i] < 1 {
			return f.shapeFault(t, "no axis below 1")
		}
		if axis == "T" {
			if t.Shape[i] != tokens {
				return f.shapeFault(t, fmt.Sprintf("axis %d to be the %d tokens of input_ids", i, tokens))
			}
			continue
		}
		if _, err := strconv.Atoi(axis); strings.Contains(axis, "*") == products || err == nil {
			if want, ok := evaluate(axis, sizes); ok && want.n != t.Shape[i] {
				return f.shapeFault(t, fmt.Sprintf("%s = %d as in %s", axis, want.n, want.from))
			}
			sizes[axis] = size{t.Shape[i], t.Name}
		}
	}
	return nil
}

// evaluate gives the size of an axis, if it was seen before or is a product of axes that were.
func evaluate(axis string, sizes map[string]size) (size, bool) {
	if s, ok := sizes[axis]; ok {
		return s, true
	}
	out := size{n: 1, from: "the tap's definition"}
	for _, sym := range strings.Split(axis, "*") {
		n, err := strconv.Atoi(sym)
		if err != nil {
			s, ok := sizes[sym]
			if !ok {
				return size{}, false
			}
			n, out.from = s.n, s.from
		}
		out.n *= n // every factor is the size of an axis of a tensor in the file, at most 4 of them: no overflow that matters
	}
	return out, true
}

func (f *File) shapeFault(t TensorInfo, want string) error {
	return f.fault("tensor "+inputerr.Clip(t.Name, 80)+" shape", fmt.Sprint(t.Shape), want, "make the trace again with `sibyl trace`")
}
