package faults

import (
	"context"
	"math"
	"testing"

	"sibyl/engine"
	"sibyl/trace"
)

// TestNoise: a seed is an engine; its noise reaches every tap behind the embedding, and moves none of them far.
func TestNoise(t *testing.T) {
	t.Parallel()
	spec := specOf("tiny-asym", "")
	noisy := func(seed uint64) map[string][]float32 {
		e, err := OpenNoisy(context.Background(), spec, seed)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		got, _ := run(t, e, nil, engine.Path{})
		return got
	}
	sound, _ := run(t, open(t, spec, nil), nil, engine.Path{})
	a, b, c := noisy(1), noisy(1), noisy(2)
	if first := firstChange(a, b); first != "" {
		t.Errorf("one seed gives two engines: %q differs", first)
	}
	if firstChange(a, c) == "" {
		t.Error("two seeds give one engine")
	}
	for name := range sound {
		tap, _, _ := trace.Parse(name)
		// A norm's own noise is a unit of fp32 in its scale, which fp16 mostly hides; layer 0's is fed by the embedding.
		if equal := same(sound[name], a[name]); equal != (tap == trace.Embed) && name != trace.InputNorm.Name(0) {
			t.Errorf("%s is the sound one's: %v", name, equal)
		}
	}
	worst := 0.0
	for i, x := range sound["logits"] {
		worst = max(worst, math.Abs(float64(x-a["logits"][i])))
	}
	if worst == 0 || worst > 0.1 { // a tenth of a logit is the gate's floor
		t.Errorf("the noise moves a logit by %g", worst)
	}
}
