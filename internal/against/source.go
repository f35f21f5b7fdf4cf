package against

import (
	"encoding/binary"
	"fmt"
	"math"

	"sibyl/bundle"
	"sibyl/config"
	"sibyl/precision"
)

// source is a checkpoint's tensor as a matrix: rows of its last axis.
type source struct {
	name       string // as in the file
	rows, cols int
	tensor     func(row int) (bundle.Tensor, int) // which tensor a row is in, and where
}

// read fills dst, whole rows, from row on.
func (s *source) read(dst []float32, row int) {
	for ; len(dst) > 0; dst, row = dst[s.cols:], row+1 {
		t, r := s.tensor(row)
		b := t.Data[r*s.cols*t.DType.Size():]
		switch t.DType {
		case bundle.F32:
			for i := range s.cols {
				dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
			}
		case bundle.BF16:
			for i := range s.cols {
				dst[i] = precision.BF16ToF32(binary.LittleEndian.Uint16(b[2*i:]))
			}
		default:
			for i := range s.cols {
				dst[i] = precision.F16ToF32(binary.LittleEndian.Uint16(b[2*i:]))
			}
		}
	}
}

// sourceOf finds the tensor of a role. proj chooses among routed experts' projections, whose rows are those of all experts in turn.
func sourceOf(ck *bundle.Checkpoint, role config.Role, layer int, proj string) (*source, error) {
	if proj != "" {
		return expertSource(ck, layer, proj)
	}
	t, err := ck.Tensor(role, max(layer, 0))
	if err != nil {
		return nil, err
	}
	cols := 1
	if n := len(t.Shape); n > 0 {
		cols = t.Shape[n-1]
	}
	if cols == 0 {
		return nil, fmt.Errorf("%s: an empty tensor", t.Name)
	}
	return &source{t.Name, t.Elements() / cols, cols, func(row int) (bundle.Tensor, int) { return t, row }}, nil
}

func expertSource(ck *bundle.Checkpoint, layer int, proj string) (*source, error) {
	m := ck.Config().MoE
	if m == nil {
		return nil, fmt.Errorf("%s has no experts", ck.Name())
	}
	var each []bundle.Tensor
	for e := range m.NumExperts {
		gate, up, down, err := ck.Expert(layer, e)
		if err != nil {
			return nil, err
		}
		each = append(each, map[string]bundle.Tensor{"gate": gate, "up": up, "down": down}[proj])
	}
	rows, cols := each[0].Shape[0], each[0].Shape[1]
	return &source{each[0].Name + " (" + proj + ")", rows * len(each), cols, func(row int) (bundle.Tensor, int) { return each[row/rows], row % rows }}, nil
}

// place is a role in a layer.
type place struct {
	role  config.Role
	layer int
	proj  string
}

// places lists everything a checkpoint of the config has, in the order of the math.
func places(c *config.Config) []place {
	out := []place{{config.Embed, -1, ""}}
	for l, kind := range c.Layers {
		for _, r := range c.LayerRoles(kind) {
			switch r {
			case config.ExpertsGateUp:
				out = append(out, place{r, l, "gate"}, place{r, l, "up"})
			case config.ExpertsDown:
				out = append(out, place{r, l, "down"})
			default:
				out = append(out, place{r, l, ""})
			}
		}
	}
	return append(out, place{config.FinalNorm, -1, ""}, place{config.Head, -1, ""})
}
