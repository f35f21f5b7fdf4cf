// Package faults puts the known mistakes of DESIGN section 10 into a sound CPU engine, one at a time, at chosen layers
// and strengths. The math files are not touched: a fault changes what a bound decoder is given (weights, gains, contracts,
// entries of the table of arithmetic) or drives the engine wrongly (states and tokens between calls). What is asked of
// a gate is that it tells such an engine from one that merely rounds; internal/study measures it.
//
// Weights that a fault changes are copied as float32: faults are for small models.
package faults

import (
	"context"
	"fmt"
	"slices"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/inputerr"
	"sibyl/internal/kernels"
	"sibyl/model"
)

// Part says which layers can have a fault.
type Part string

// The parts.
const (
	Every     Part = "every layer"
	GDN       Part = "GatedDeltaNet layers"
	Attention Part = "attention layers"
	MoE       Part = "MoE layers"
	Whole     Part = "the whole model" // a fault without a layer
)

// Fault is one known mistake.
type Fault struct {
	Name    string
	Mistake string // in the words of DESIGN section 10
	Part    Part
	// Partial says what a strength between 0 and 1 is; "" if there is only the whole mistake.
	Partial string
	// Why, if not empty, says why this mistake cannot change a confident id of a sound model. Such faults are here so that
	// the claim is tested.
	Why string

	// One of these, by where the mistake is. decoder and layer change what the math is given, around drives the engine,
	// scheme gives the one that is read in place of the one that is meant.
	decoder func(s *subject, strength float32) error
	layer   func(s *subject, l int, strength float32) error
	around  func(s *subject, e *model.Engine, layers []int, strength float32) engine.Engine
	scheme  map[string]string
}

// Injection is a fault at some layers. Layers nil means every layer that can have it; strength 1 is the whole mistake,
// 0 none of it.
type Injection struct {
	Fault    string
	Layers   []int
	Strength float32
}

// String is the injection in a few words: "conv-late, layers 0 1, strength 0.5".
func (in Injection) String() string {
	s := in.Fault
	if in.Layers != nil {
		s += fmt.Sprintf(", layers %v", in.Layers)
	}
	return s + fmt.Sprintf(", strength %g", in.Strength)
}

// Table lists the faults in the order of DESIGN section 10.
func Table() []*Fault {
	return slices.Concat(normFaults, attentionFaults, gdnFaults, stateFaults, numberFaults, headFaults, moeFaults, quantFaults, streamFaults)
}

// Find gives a fault by its name.
func Find(name string) (*Fault, error) {
	for _, f := range Table() {
		if f.Name == name {
			return f, nil
		}
	}
	return nil, bad("name", name, "one of faults.Table")
}

func bad(field, found, want string) error {
	return &inputerr.Error{File: "fault", Field: field, Found: inputerr.Clip(found, 80), Want: want}
}

// Applies says which layers of a model can have the fault; for a fault of the whole model that is []int{-1}, or nothing
// where the model has not what the fault is about.
func (f *Fault) Applies(c *config.Config) []int {
	if f.Part == Whole {
		return []int{-1}
	}
	var out []int
	for l, kind := range c.Layers {
		switch {
		case f.Part == Every,
			f.Part == GDN && kind == config.GatedDeltaNet,
			f.Part == Attention && kind != config.GatedDeltaNet,
			f.Part == MoE && c.MoE != nil:
			out = append(out, l)
		}
	}
	return out
}

// Open gives the CPU engine of spec with the injection. It runs on one thread: some faults count calls. Its Info is
// the sound engine's, since a faulty engine does not know that it is one.
func Open(ctx context.Context, spec engine.Spec, in Injection) (_ engine.Engine, err error) {
	f, err := Find(in.Fault)
	if err != nil {
		return nil, err
	}
	if !(in.Strength >= 0 && in.Strength <= 1) || f.Partial == "" && in.Strength != 0 && in.Strength != 1 {
		return nil, bad(f.Name+".strength", fmt.Sprint(in.Strength), "0 or 1, or between them where the fault has parts")
	}
	spec.Threads = 1
	meant := spec.Scheme
	if f.scheme != nil && in.Strength > 0 {
		if spec.Scheme = f.scheme[meant]; spec.Scheme == "" {
			return nil, bad(f.Name+".scheme", meant, "one that the fault can be about")
		}
	}
	sound, err := engine.Open(ctx, "cpu", spec)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			sound.Close()
		}
	}()
	e := sound.(*model.Engine)
	var s *subject
	layers := in.Layers
	err = e.Change(func(d *model.Decoder, ar *kernels.Arith) (*kernels.Arith, error) {
		s = newSubject(d, ar)
		applies := f.Applies(d.Config)
		if layers == nil {
			layers = applies
		}
		for _, l := range layers {
			if !slices.Contains(applies, l) {
				return nil, bad(f.Name+".layers", fmt.Sprint(l), fmt.Sprintf("of %s: %v", f.Part, applies))
			}
		}
		if in.Strength == 0 || f.around != nil || f.scheme != nil {
			return ar, nil
		}
		return s.apply(f, layers, in.Strength)
	})
	if err != nil || in.Strength == 0 {
		return sound, err
	}
	if f.scheme != nil {
		return &retold{e, meant}, nil
	}
	if f.around != nil {
		return f.around(s, e, layers, in.Strength), nil
	}
	if s.toInner != nil {
		return &restated{Engine: e, in: s.toInner, out: s.toOuter}, nil
	}
	return sound, nil
}
