package gdn

import "fmt"

// State is one sequence's state in one layer.
type State struct {
	// Conv holds the last Kernel pre-conv rows of in_proj_qkv, oldest first, [Kernel, C], zero at the start. Hugging
	// Face keeps the transpose [C, Kernel]; zoo bundles keep its last Kernel-1 columns; Apple's port keeps this form,
	// of which row 0 is never read.
	Conv []float32
	// S is the recurrent state [nv, dk, dv].
	S []float32
}

// NewState is the state before the first token.
func (d *Dims) NewState() *State {
	return &State{Conv: make([]float32, d.Kernel*d.Channels()), S: make([]float32, d.ValueHeads*d.KeyDim*d.ValueDim)}
}

// Clone is a deep copy.
func (s *State) Clone() *State {
	return &State{Conv: append([]float32(nil), s.Conv...), S: append([]float32(nil), s.S...)}
}

// ConvColumns is the conv state as Hugging Face keeps it, [C, Kernel].
func (d *Dims) ConvColumns(s *State) []float32 { return transpose(s.Conv, d.Kernel, d.Channels()) }

// SetConvColumns sets the conv state from [C, Kernel].
func (d *Dims) SetConvColumns(s *State, cols []float32) error {
	if len(cols) != d.Kernel*d.Channels() {
		return fmt.Errorf("conv state holds %d numbers, want [%d, %d]", len(cols), d.Channels(), d.Kernel)
	}
	s.Conv = transpose(cols, d.Channels(), d.Kernel)
	return nil
}

func transpose(x []float32, rows, cols int) []float32 {
	out := make([]float32, len(x))
	for r := range rows {
		for c := range cols {
			out[c*rows+r] = x[r*cols+c]
		}
	}
	return out
}
