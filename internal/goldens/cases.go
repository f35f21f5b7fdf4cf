package goldens

import (
	"maps"
	"math"
	"slices"
	"strings"
)

// Case is one tensor the original implementation recorded of a prompt, and how far the tap of that name may be from it.
type Case struct {
	Tap   string
	Want  Tensor
	Bound float64 // max abs difference
}

// The accuracy asked of a float32 engine: TapBound x max(1, largest golden value) for a tap, LogitBound for the logits;
// of a float64 engine F64Bound x max(1, largest).
const (
	TapBound   = 1e-4
	LogitBound = 2e-4
	F64Bound   = 1e-6
)

// references are beginnings of names (without the prompt's) that are no taps of a plain run.
var references = []string{"f64.", "step.", "bf16.", "int4_", "int8_", "greedy.", "mrope3.", "rope.", "argmax", "tie_count",
	"input_ids", "prompt_ids", "ids", "margin", "second", "nll"}

// Cases lists what was recorded of a prompt, sorted by tap. ref picks the reference: "" is the float32 prefill, "step" the
// float32 steps, "f64" float64. The bounds are those of a float32 engine.
func (s *Set) Cases(prompt, ref string) []Case {
	prefix := prompt + "."
	if ref != "" {
		prefix += ref + "."
	}
	var out []Case
	for _, name := range slices.Sorted(maps.Keys(s.Tensors)) {
		tap, ok := strings.CutPrefix(name, prefix)
		if !ok || slices.ContainsFunc(references, func(r string) bool { return strings.HasPrefix(tap, r) }) {
			continue
		}
		if layer, ok := strings.CutSuffix(tap, ".gdn.final_state"); ok { // the older name of the same state
			tap = "cache." + layer + ".recurrent_state"
		}
		want := s.Tensors[name]
		bound := TapBound * max(1, want.MaxAbs())
		if tap == "logits" {
			bound = max(LogitBound, s.conditioned(prompt))
		}
		out = append(out, Case{tap, want, bound})
	}
	return out
}

// conditioned widens the bound of a one-token prompt that is ill-conditioned in the original itself: ten times its own
// distance from float32 to float64. 0 for others.
func (s *Set) conditioned(prompt string) float64 {
	if len(s.Prompts()[prompt]) != 1 {
		return 0
	}
	return 10 * MaxDiff(s.Tensors[prompt+".logits"].Data, s.Tensors[prompt+".f64.logits"].Data)
}

// MaxDiff is the largest |a-b|, NaN if any is NaN, +Inf if the lengths differ.
func MaxDiff(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	m := 0.0
	for i := range a {
		m = max(m, math.Abs(float64(a[i])-float64(b[i])))
	}
	return m
}

// RMS is the root of the mean of (a-b)^2.
func RMS(a, b []float32) float64 {
	s := 0.0
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		s += d * d
	}
	return math.Sqrt(s / float64(len(a)))
}
