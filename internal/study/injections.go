package main

import (
	"context"
	"fmt"
	"slices"

	"sibyl/engine"
	"sibyl/internal/faults"
	"sibyl/oracle"
)

// injected is one injection and what the gate said of it.
type injected struct {
	bench    *bench
	fault    *faults.Fault
	in       faults.Injection
	changed  int                    // positions REF is sure of, whose id the fault changed: the sound engine has REF's there
	defects  []int                  // by the gate with each of extras
	verdicts map[oracle.Verdict]int // of the changed positions
}

// found: the gate with extras[k] fails it for a reason it cannot explain.
func (i *injected) found(k int) bool { return i.defects[k] > 0 }

// plan lists the injections of a fault into a model: into all layers that can have it, the first, and the last, whole or,
// where there are parts of it, in part.
func plan(f *faults.Fault, b *bench) (out []faults.Injection) {
	at := f.Applies(b.cfg)
	add := func(layers []int, whole bool, part float32) {
		if whole || f.Partial == "" {
			out = append(out, faults.Injection{Fault: f.Name, Layers: layers, Strength: 1})
		}
		if f.Partial != "" {
			out = append(out, faults.Injection{Fault: f.Name, Layers: layers, Strength: part})
		}
	}
	if len(at) > 0 {
		add(nil, true, 0.1)
	}
	if len(at) > 1 {
		add(at[:1], false, 0.3)
		add(at[len(at)-1:], true, 0.1)
	}
	return out
}

// benchesFor says on which models a fault is tried and under which scheme: the demo and one or two tiny ones, chosen by
// turns among those that can have it.
func benchesFor(index int, f *faults.Fault) (out [][2]string) {
	scheme := [2]string{"", "int8hu-sym"}
	pick := func(model string, n int) { out = append(out, [2]string{model, scheme[(index+n)%2]}) }
	switch f.Name {
	case "nibbles-swapped":
		return [][2]string{{demo, "int4lin"}, {"tiny-dense-gva", "int4lin"}}
	case "scale-per-channel", "head-other-flavour":
		return [][2]string{{demo, "int8hu-sym"}, {"tiny-asym", "int8hu-sym"}}
	case "head-tied":
		return [][2]string{{"tiny-asym", ""}, {"tiny-dense-gva", "int8hu-sym"}}
	case "head-untied":
		return [][2]string{{demo, ""}, {"tiny-dense-tied", "int8hu-sym"}}
	}
	if f.Part == faults.MoE {
		return [][2]string{{"tiny-moe", ""}, {"tiny-moe", "int8hu-sym"}}
	}
	pick(demo, 0)
	if f.Name == "heads-tiled" {
		pick("tiny-asym", 1)
		return out
	}
	tiny := slices.DeleteFunc(slices.Clone(models), func(m string) bool { return m == demo })
	pick(tiny[index%len(tiny)], 1)
	return out
}

// inject gates one injection. The base is fast: a real engine never shares the exact one's bits.
func inject(ctx context.Context, b *bench, sound *oracle.GateResult, f *faults.Fault, in faults.Injection) (*injected, error) {
	spec := engine.Spec{Model: b.path, Contract: contract, Scheme: b.scheme, Mode: "fast"}
	e, err := faults.Open(ctx, spec, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %v: %w", b, in, err)
	}
	defer e.Close()
	r, counts, err := b.gates(ctx, remember(e, b.known), nil)
	if err != nil {
		return nil, err
	}
	out := &injected{bench: b, fault: f, in: in, defects: counts, verdicts: map[oracle.Verdict]int{}}
	before, after := changed(sound), changed(r)
	for _, p := range r.Positions {
		if at := (spot{p.Part, p.Prompt, p.Pos}); after[at] && !before[at] {
			out.changed++
			out.verdicts[p.Verdict]++
		}
	}
	return out, nil
}

// soundRun gates the engine that faults are put into, without one.
func soundRun(ctx context.Context, b *bench) (*oracle.GateResult, error) {
	e, err := engine.Open(ctx, "cpu", engine.Spec{Model: b.path, Contract: contract, Scheme: b.scheme, Mode: "fast", Threads: 1})
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return b.gate(ctx, remember(e, b.known), b.controls)
}
