package trace

import (
	"slices"
	"testing"
)

func TestInputs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, why string
		tap       Tap
		layer     int
		recorded  []Tap // in every layer
		want      []string
		skipped   int
	}{
		{"direct", "all recorded", GDNGatedNorm, 2, []Tap{GDNCoreOut, GDNInProjZ, InputNorm}, []string{"layer2.gdn.core_out", "layer2.gdn.in_proj_z"}, 0},
		{"first-layer", "the stream into layer 0 is the embedding", InputNorm, 0, []Tap{Embed, LayerOut}, []string{"embed"}, 0},
		{"stream", "the stream into layer 2 is layer 1's", InputNorm, 2, []Tap{Embed, LayerOut}, []string{"layer1.out"}, 0},
		{"gap", "a golden with residual streams only", LayerOut, 2, []Tap{Embed, LayerOut}, []string{"layer1.out", "layer1.out+"}, 20},
		{"history", "the recurrence sees earlier rows, also through a gap", GDNCoreOut, 1, []Tap{InputNorm, GDNG}, []string{"layer1.input_norm+", "layer1.gdn.g+"}, 8},
		{"top", "the final norm reads the last layer", Logits, -1, []Tap{LayerOut}, []string{"layer3.out"}, 1},
		{"no-layers", "a trace of embed and logits only", Logits, -1, []Tap{Embed}, []string{"embed", "embed+"}, 20},
		{"none", "nothing before it was recorded", LayerOut, 2, nil, nil, 60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var list []TensorInfo
			for _, tap := range tt.recorded {
				list = append(list, TensorInfo{Tap: tap, Layer: max(tt.layer, 0)})
			}
			exists := Kinds(list)
			last := 3
			if tt.name == "no-layers" {
				last = -1
			}
			var got []string
			inputs, skipped := Inputs(tt.tap, tt.layer, last, exists, func(tap Tap, _ int) bool { return slices.Contains(tt.recorded, tap) })
			if skipped < tt.skipped || (tt.skipped == 0) != (skipped == 0) {
				t.Errorf("skipped %d, want at least %d, and 0 for 0", skipped, tt.skipped)
			}
			for _, in := range inputs {
				name := in.Tap.Name(in.Layer)
				if in.History {
					name += "+"
				}
				got = append(got, name)
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("Inputs(%v, %d) = %v, want %v (+ is history)\nwhy: %s", tt.tap, tt.layer, got, tt.want, tt.why)
			}
		})
	}
}

// TestInputsComeBefore: every input of a tap is earlier in the order of the math, so one pass in that order suffices.
func TestInputsComeBefore(t *testing.T) {
	t.Parallel()
	for _, c := range []int{0, 1} {
		cfg := asym()
		if c == 1 {
			cfg = moe()
		}
		at := map[string]int{}
		for i, e := range All(cfg) {
			at[e.Name] = i
		}
		for _, e := range All(cfg) {
			recorded := func(tap Tap, l int) bool { _, ok := at[tap.Name(l)]; return ok }
			ins, _ := Inputs(e.Tap, e.Layer, cfg.NumLayers-1, func(Tap, int) bool { return true }, recorded)
			if len(ins) == 0 && e.Tap != InputIDs {
				t.Errorf("%s has no input", e.Name)
			}
			for _, in := range ins {
				if at[in.Tap.Name(in.Layer)] >= at[e.Name] {
					t.Errorf("%s reads %s, which comes later", e.Name, in.Tap.Name(in.Layer))
				}
			}
		}
	}
}
