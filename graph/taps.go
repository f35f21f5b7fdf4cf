package graph

import (
	"maps"
	"slices"

	"sibyl/bundle"
	"sibyl/bundle/aicode"
	"sibyl/engine"
	"sibyl/trace"
)

// tap is a value of main that a name stands for.
type tap struct {
	name string
}

var logitsName = trace.Logits.Name(-1)

// put hands rows to a sink that wants them.
func put(sink engine.Sink, name string, seq, pos, rows int, x []float32) error {
	if sink == nil || !sink.Wants(name) {
		return nil
	}
	return sink.Put(name, seq, pos, rows, x)
}

func sortedNames(st *engine.State) []string { return slices.Sorted(maps.Keys(st.Tensors)) }

func findTaps(p *aicode.Program, main *function, roles *bundle.Roles, profile bundle.Profile) []tap {
	return nil
}

func (e *Engine) watch(s *sequence, n int, a asked) func(*instr, frame) error { return nil }
