package coreai

import (
	"slices"
	"testing"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/oracle/oracletest"
)

// TestLiveSuite runs the engine through the suite that every engine must pass. One token a call: every path gives the same bits.
func TestLiveSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("a few hundred steps of Apple's runtime, 0.2 s each")
	}
	needRuntime(t)
	const name = "opticks-2m-int8hu-sym"
	b, err := bundle.OpenSource(t.Context(), sampleModel(t, name), bundle.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := *b.Config()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	r := readRecorded(t, name)
	ids := r.ints("passage96.input_ids")
	golden := oracletest.Golden{Name: "g0", IDs: r.ints("g0.input_ids"), Logits: r.floats("g0.logits"), Greedy: r.ints("g0.greedy.ids")}
	open := func(t testing.TB) engine.Engine { return openLive(t, name) }
	oracletest.Run(t, open, oracletest.Fixture{Config: &cfg, Prompts: [][]int32{ids[:6], ids[6:14]}, Golden: []oracletest.Golden{golden}})
}

// TestLiveGenerateIsForce: the shipped path chooses the tokens that forcing shows, token by token, after prompts in
// one call, in several and with the last token apart.
func TestLiveGenerateIsForce(t *testing.T) {
	needRuntime(t)
	for _, name := range []string{"tiny-dense-tied-fp16", "tiny-dense-gva-apple-q35-bf16"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := openLive(t, name)
			prompt := engine.Prompt{IDs: readRecorded(t, name).ints("p17.input_ids")[:7]}
			paths := []engine.Path{{}, {Chunk: 3}, {Last: true}}
			if e.opened.Call == 1 {
				paths = paths[:1]
			}
			for _, path := range paths {
				const n = 10
				shipped, err := e.greedy(t.Context(), prompt.IDs, nil, engine.Options{MaxTokens: n, Path: path})
				if err != nil {
					t.Fatal(err)
				}
				var chosen []int32
				err = e.Generate(t.Context(), prompt, engine.Options{Force: shipped, Path: path, TopK: 2}, func(tok *engine.Token) error {
					chosen = append(chosen, tok.Position.ID)
					return nil
				})
				if err != nil || len(shipped) != n || !slices.Equal(shipped, chosen) {
					t.Errorf("%s: generate gives %v, force %v (%v)", path, shipped, chosen, err)
				}
			}
		})
	}
}

// TestSuite runs the stand-in through the suite: what the Go side promises holds with any worker that keeps the
// protocol, also on a machine without Apple's runtime.
func TestSuite(t *testing.T) {
	t.Parallel()
	b, err := bundle.OpenSource(t.Context(), samplePath("opticks-2m-int8hu-sym"), bundle.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := *b.Config()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	open := func(t testing.TB) engine.Engine {
		e, err := openFake(t, "", &traces{})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	oracletest.Run(t, open, oracletest.Fixture{Config: &cfg, Prompts: [][]int32{{3, 1, 4, 1, 5, 9, 2}, {2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4}}})
}
