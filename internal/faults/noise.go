package faults

import (
	"context"
	"math/rand/v2"

	"sibyl/engine"
	"sibyl/internal/kernels"
	"sibyl/model"
	"sibyl/precision"
)

// OpenNoisy gives the CPU engine of spec with noise at every operation (kernels.Noisy), drawn one after the other from a
// generator. It is no fault: it stands for a sound engine that shares no bit with any other, the gate's own noisy
// realisations included, whose noise is a function of the values. One seed gives one engine, the same on every machine;
// what it computes depends on what it was asked before.
func OpenNoisy(ctx context.Context, spec engine.Spec, seed uint64) (engine.Engine, error) {
	spec.Threads = 1
	e, err := engine.Open(ctx, "cpu", spec)
	if err != nil {
		return nil, err
	}
	c, err := precision.Lookup(spec.Contract)
	if err == nil {
		rng := rand.New(rand.NewPCG(seed, 0x5169))
		err = e.(*model.Engine).Change(func(_ *model.Decoder, ar *kernels.Arith) (*kernels.Arith, error) {
			return kernels.Noisy(ar, ar.Name, c, func(uint32, float32) int { return int(rng.Uint32()>>8%3) - 1 }), nil
		})
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}
