package graph_test

import (
	"testing"

	"sibyl/engine"
	"sibyl/oracle/oracletest"
)

// TestSuite runs the engines' conformance suite on zoo-s1 in both arithmetics: a token is a call there, so paths agree to
// the last bit. On apple-q35 the state is rounded once a call, and what paths must share is said by TestAppleCalls.
func TestSuite(t *testing.T) {
	t.Parallel()
	prompts := [][]int32{{15, 320, 99, 241, 383, 47, 12}, {5, 17, 40}}
	for _, s := range []struct{ name, bundle, checkpoint, contract string }{
		{"dense-exact", "tiny-dense-tied-int4lin", "tiny-dense-tied", ""},
		{"dense-coreai-cpu", "tiny-dense-tied-fp16", "tiny-dense-tied", "coreai-cpu"},
		{"moe-exact", "tiny-moe-int8hu-sym", "tiny-moe", ""},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && s.name != "dense-exact" {
				t.Skip("exact on the dense model meets every line of the engine but the experts'")
			}
			open := func(t testing.TB) engine.Engine {
				return opened(t, "graph", engine.Spec{Model: aimodel(t, s.bundle), Contract: s.contract})
			}
			oracletest.Run(t, open, oracletest.Fixture{Config: configOf(t, s.checkpoint), Prompts: prompts})
		})
	}
}
