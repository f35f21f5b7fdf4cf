package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sibyl/bundle/aicode"
)

// TestRecognise: a graph is known by its own signature; another one is told what it looks like.
func TestRecognise(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(sampleAsset(t, "tiny-dense-tied-int4lin"), mainFile))
	if err != nil {
		t.Fatal(err)
	}
	const other = `x: main: found a graph of another architecture: (`
	for _, tt := range []struct {
		name string
		edit func(g *aicode.Graph)
		want string
	}{
		{"other-state", func(g *aicode.Graph) { g.Inputs[5].State = "ssmState" }, other},
		{"no-state", func(g *aicode.Graph) { g.Inputs = g.Inputs[:5] }, other},
		{"more-inputs", func(g *aicode.Graph) { g.Inputs = append(g.Inputs, aicode.Arg{Name: "mask", Type: g.Inputs[0].Type}) }, other},
		{"no-logits", func(g *aicode.Graph) { g.Outputs[len(g.Outputs)-1].Name = "hidden" }, other},
		{"ids-of-floats", func(g *aicode.Graph) {
			g.Inputs[0].Type = &aicode.Type{Kind: aicode.Tensor, Elem: aicode.F16, Dims: []int64{1, 1}}
		}, other},
		{"many-ids", func(g *aicode.Graph) {
			g.Inputs[0].Type = &aicode.Type{Kind: aicode.Tensor, Elem: aicode.I32, Dims: []int64{1, aicode.Dynamic}}
		}, other},
		{"caches-differ", func(g *aicode.Graph) {
			of := *g.Inputs[2].Type.Of
			of.Dims = []int64{1, 1, 1, aicode.Dynamic, 48}
			g.Inputs[2].Type = &aicode.Type{Kind: aicode.Handle, Of: &of}
		}, other},
		{"no-main", func(g *aicode.Graph) { g.Name = "forward" }, `x: functions: found the public functions "forward", want one function main; export the model again`},
		{"private-main", func(g *aicode.Graph) { g.Private = true }, `x: functions: found the public functions "", want one function main; export the model again`},
	} {
		p, err := aicode.Decode(data, "x")
		if err != nil {
			t.Fatal(err)
		}
		tt.edit(p.Graph("main"))
		_, _, err = Recognise(p)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s\n got %v\nwant %s", tt.name, err, tt.want)
		}
	}
	p, err := aicode.Decode(data, "x")
	if err != nil {
		t.Fatal(err)
	}
	p.Graph("main").Inputs[5].State = "ssmState"
	const want = "x: main: found a graph of another architecture: (input_ids i32[1,1], position_ids i32[1,?], keyCache handle f16[2,1,1,?,48], valueCache handle f16[2,1,1,?,48], " +
		"convState handle f16[6,1,576,3], recState handle f16[6,1,8,24,24]) -> (logits f16[1,1,640]), want the signature of zoo-s1 or apple-q35 " +
		"(Qwen3.5 family: input_ids, position_ids, two KV caches, conv and recurrent states, logits); sibyl knows these graphs only; `sibyl inspect` lists what is in this one"
	if _, _, err := Recognise(p); err == nil || err.Error() != want {
		t.Errorf("\n got %v\nwant %s", err, want)
	}
}
