package main

import (
	"testing"

	"sibyl/engine"
	"sibyl/oracle"
)

// TestTestSide: whose weights the controls read for TEST.
func TestTestSide(t *testing.T) {
	t.Parallel()
	ref := Subject{Model: "models/m", Contract: "hf-fp32"}
	for _, tt := range []struct {
		name, why string
		test      Subject
		info      engine.Info
		want      oracle.Side
	}{
		{"same-model", "the same folder spelled otherwise", Subject{Model: "./models//m", Contract: "coreai-fp16", Scheme: "int8lin"}, engine.Info{},
			oracle.Side{Engine: "cpu", Model: "models/m", Contract: "coreai-fp16", Scheme: "int8lin"}},
		{"other-engine", "an engine that is no CPU engine says itself what it computes", Subject{Model: "models/m", Engine: "coreai"}, engine.Info{Contract: "coreai-fp16", Scheme: "int8hu-sym", Mode: "x"},
			oracle.Side{Engine: "coreai", Model: "models/m", Contract: "coreai-fp16", Scheme: "int8hu-sym"}},
		{"quantized-checkpoint", "its weights are made again from REF's, and a mistake in its files is not repeated", Subject{Model: "m-int8", Contract: "coreai-fp16"}, engine.Info{Scheme: "int8lin"},
			oracle.Side{Engine: "another checkpoint", Model: "models/m", Contract: "coreai-fp16", Scheme: "int8lin"}},
		{"unquantized-copy", "weights that nothing says are quantized should be REF's", Subject{Model: "copy"}, engine.Info{Scheme: "stored"},
			oracle.Side{Engine: "another checkpoint", Model: "models/m"}},
		{"recipe-checkpoint", "what a recipe did is known from the files alone", Subject{Model: "m-own"}, engine.Info{Scheme: "my-recipe"},
			oracle.Side{Engine: "cpu", Model: "m-own"}},
	} {
		if got := testSide(ref, tt.test, tt.info); got != tt.want {
			t.Errorf("%s: testSide = %+v, want %+v\nwhy: %s", tt.name, got, tt.want, tt.why)
		}
	}
}
