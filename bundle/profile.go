package bundle

import (
	"fmt"
	"slices"
	"strings"

	"sibyl/bundle/aicode"
	"sibyl/internal/inputerr"
)

// Profile is a shape of graph that sibyl knows: which inputs, states and functions it has, and under which contract its
// arithmetic is described. It is recognised from the graph's own signature, never from names of files or metadata.
type Profile struct {
	Name     string      // "zoo-s1" or "apple-q35"
	Contract string      // the contract a subject has when it names none; "" if none describes this graph
	Compute  aicode.Kind // F16 or BF16: what activations and states are
	Step     bool        // main takes one token a call; else any number
}

// The profiles. A zoo-s1 graph in bf16 has the ops of coreai-fp16 and other rounding points than apple-q35: no
// published contract says what it computes. Sources: docs/aimodel.md; the port's graphs, apple/coreai-models (2026-09).
var profiles = []struct {
	Profile
	conv, recurrent string // names of the two fixed states
}{
	{Profile{"zoo-s1", "coreai-fp16", aicode.F16, true}, "convState", "recState"},
	{Profile{"zoo-s1", "", aicode.BF16, true}, "convState", "recState"},
	{Profile{"apple-q35", "coreai-bf16", aicode.BF16, false}, "convStates", "recurrentStates"},
}

// States are the four states of main, by what they hold. Dynamic dimensions are aicode.Dynamic.
type States struct {
	Key, Value *aicode.Arg // [full layers, 1, kv heads, C, hd]
	Conv       *aicode.Arg // zoo-s1 [GDN layers, 1, channels, K-1]; apple-q35 [GDN layers, 1, K, channels]
	Recurrent  *aicode.Arg // [GDN layers, 1, value heads, dk, dv]
}

// Recognise finds the profile of a program by main's signature. A graph of another architecture is refused with what
// it looks like.
func Recognise(p *aicode.Program) (Profile, *States, error) {
	main, err := entry(p)
	if err != nil {
		return Profile{}, nil, err
	}
	for _, c := range profiles {
		s := &States{Key: state(main, "keyCache"), Value: state(main, "valueCache"), Conv: state(main, c.conv), Recurrent: state(main, c.recurrent)}
		if s.fit(c.Profile) && inputs(main, c.Profile) {
			return c.Profile, s, nil
		}
	}
	return Profile{}, nil, &inputerr.Error{File: p.File, Field: "main", Found: "a graph of another architecture: " + Signature(main),
		Want: "the signature of zoo-s1 or apple-q35 (Qwen3.5 family: input_ids, position_ids, two KV caches, conv and recurrent states, logits)",
		Do:   "sibyl knows these graphs only; `sibyl inspect` lists what is in this one"}
}

// entry is the public function main, of which there must be one.
func entry(p *aicode.Program) (*aicode.Graph, error) {
	var mains []*aicode.Graph
	var names []string
	for _, g := range p.Graphs {
		if !g.Private {
			names = append(names, g.Name)
		}
		if g.Name == "main" {
			mains = append(mains, g)
		}
	}
	e := &inputerr.Error{File: p.File, Field: "functions", Want: "one function main", Do: "export the model again"}
	switch {
	case len(mains) > 1:
		e.Found = fmt.Sprintf("%d functions named main", len(mains))
		return nil, e
	case len(mains) == 0 || mains[0].Private:
		e.Found = fmt.Sprintf("the public functions %s", inputerr.Clip(strings.Join(names, ", "), 120))
		return nil, e
	}
	return mains[0], nil
}

// state finds a state of main by its name: a handle to a tensor.
func state(g *aicode.Graph, name string) *aicode.Arg {
	for i := range g.Inputs {
		a := &g.Inputs[i]
		if a.State == name && a.Type != nil && a.Type.Kind == aicode.Handle && a.Type.Of != nil && a.Type.Of.Kind == aicode.Tensor {
			return a
		}
	}
	return nil
}

// fit says whether the states are there with the ranks and the element type of the profile.
func (s *States) fit(p Profile) bool {
	for _, c := range []struct {
		a    *aicode.Arg
		rank int
	}{{s.Key, 5}, {s.Value, 5}, {s.Conv, 4}, {s.Recurrent, 5}} {
		if c.a == nil || len(c.a.Type.Of.Dims) != c.rank || c.a.Type.Of.Elem != p.Compute || c.a.Type.Of.Dims[1] != 1 {
			return false
		}
	}
	return slices.Equal(s.Key.Type.Of.Dims, s.Value.Type.Of.Dims)
}

// inputs says whether main takes ids and positions as the profile does, and gives logits.
func inputs(g *aicode.Graph, p Profile) bool {
	ids, pos, logits := find(g.Inputs, "input_ids"), find(g.Inputs, "position_ids"), find(g.Outputs, "logits")
	if ids == nil || pos == nil || logits == nil || len(g.Inputs) != 6 {
		return false
	}
	tensor := func(t *aicode.Type, elem aicode.Kind, rank int) bool { return t.Elem == elem && len(t.Dims) == rank }
	step := int64(aicode.Dynamic)
	if p.Step {
		step = 1
	}
	return tensor(ids.Type, aicode.I32, 2) && tensor(pos.Type, aicode.I32, 2) && len(logits.Type.Dims) == 3 &&
		ids.Type.Dims[1] == step && logits.Type.Dims[1] == step && pos.Type.Dims[1] == aicode.Dynamic
}

func find(args []aicode.Arg, name string) *aicode.Arg {
	for i := range args {
		if a := &args[i]; a.Name == name && a.Type != nil && a.Type.Kind == aicode.Tensor {
			return a
		}
	}
	return nil
}

// Signature is a function's inputs and outputs in a line, for messages: "(input_ids i32[1,1], ...) -> (logits f16[1,1,640])".
func Signature(g *aicode.Graph) string {
	list := func(args []aicode.Arg) string {
		var out []string
		for i, a := range args {
			if i == 12 {
				out = append(out, fmt.Sprintf("%d more", len(args)-i))
				break
			}
			if a.Type != nil && a.Type.Kind != aicode.Token {
				out = append(out, strings.Trim(inputerr.Clip(a.Name, 40), `"`)+" "+a.Type.String())
			}
		}
		return "(" + strings.Join(out, ", ") + ")"
	}
	return list(g.Inputs) + " -> " + list(g.Outputs)
}
