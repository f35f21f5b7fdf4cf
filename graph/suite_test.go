package graph_test

import (
	"testing"

	"sibyl/engine"
	"sibyl/oracle/oracletest"
)

// TestSuite runs the engines' conformance suite: on zoo-s1 in both arithmetics, where a token is a call, so paths agree to
// the last bit; on apple-q35, where calls are part of the result, what holds of them.
func TestSuite(t *testing.T) {
	t.Parallel()
	prompts := [][]int32{{15, 320, 99, 241, 383, 47, 12}, {5, 17, 40}}
	for _, s := range []struct{ name, bundle, checkpoint, contract string }{
		{"dense-exact", "tiny-dense-tied-int4lin", "tiny-dense-tied", ""},
		{"dense-coreai-cpu", "tiny-dense-tied-fp16", "tiny-dense-tied", "coreai-cpu"},
		{"apple-exact", "tiny-dense-gva-apple-q35-bf16", "tiny-dense-gva", ""},
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
