package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

var (
	mu      sync.RWMutex
	drivers = map[string]Driver{}
)

// Register makes a driver available under name ("cpu", "fp64"). It panics on an empty name, a nil driver or a
// duplicate: these are faults of the program.
func Register(name string, d Driver) {
	mu.Lock()
	defer mu.Unlock()
	if name == "" || d == nil {
		panic("engine: Register with an empty name or a nil driver")
	}
	if _, dup := drivers[name]; dup {
		panic("engine: Register called twice for " + name)
	}
	drivers[name] = d
}

// Names lists the registered engines, sorted.
func Names() []string {
	mu.RLock()
	defer mu.RUnlock()
	return slices.Sorted(maps.Keys(drivers))
}

// Lookup gives a driver by name.
func Lookup(name string) (Driver, bool) {
	mu.RLock()
	defer mu.RUnlock()
	d, ok := drivers[name]
	return d, ok
}

// Open opens spec with the engine of that name.
func Open(ctx context.Context, name string, spec Spec) (Engine, error) {
	d, ok := Lookup(name)
	if !ok {
		return nil, fmt.Errorf("engine %q is not in this build; it has %v", name, Names())
	}
	return d.Open(ctx, spec)
}

// ErrUnavailable is what Open's error is (errors.Is) where this machine lacks what the engine needs: a runtime, a
// device. The subject may be fine; a gate is inconclusive then.
var ErrUnavailable = errors.New("this machine cannot run the engine")
