package oracle_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"sibyl/config"
	"sibyl/engine"
	"sibyl/internal/safetensors"
	"sibyl/oracle"
)

// shape is what a config.json may choose freely; everything else in it is fixed or follows.
type shape struct {
	hidden, vocab, ffn                    int
	layers                                []string
	groups, kvHeads, headDim, rotary      int // heads = groups x kvHeads
	valueGroups, keyHeads, keyDim, valDim int // value heads = valueGroups x keyHeads
	conv                                  int
	experts, topK, expertWidth, sharedFFN int // experts 0: dense
	tied                                  bool
	section                               [3]int // 0 0 0: all of the rotary pairs to T
	seed                                  uint64
}

const gdnLayer, attentionLayer = "linear_attention", "full_attention"

// plainShape is a small model with nothing at an end of its range; cases change what they are about.
func plainShape() shape {
	return shape{hidden: 12, vocab: 20, ffn: 10, layers: []string{gdnLayer, attentionLayer}, groups: 2, kvHeads: 1, headDim: 8, rotary: 4,
		valueGroups: 2, keyHeads: 1, keyDim: 4, valDim: 6, conv: 4}
}

// randomShape draws each size on its own, small ones often.
func randomShape(seed uint64) shape {
	r := rand.New(rand.NewPCG(seed, 7))
	to := func(n int) int { return 1 + min(r.IntN(n), r.IntN(n)) }
	s := shape{seed: seed, hidden: to(40), vocab: to(40), ffn: to(40), groups: to(4), kvHeads: to(3), headDim: 1 + to(16),
		valueGroups: to(3), keyHeads: to(3), keyDim: to(12), valDim: to(12), conv: 1 + r.IntN(64), tied: r.IntN(2) == 0}
	for range to(4) {
		s.layers = append(s.layers, []string{gdnLayer, attentionLayer}[r.IntN(2)])
	}
	s.rotary = 2 * to(s.headDim/2)
	if share := float64(s.rotary) / float64(s.headDim); share*float64(s.headDim) != float64(s.rotary) {
		s.headDim = s.rotary // the share of this head_dim is no float64; config.json could not say it
	}
	half := s.rotary / 2
	s.section[1] = r.IntN(half/3 + 1)
	s.section[2] = r.IntN(half/3 + 1)
	s.section[0] = half - s.section[1] - s.section[2]
	if r.IntN(2) == 0 {
		s.experts, s.expertWidth, s.sharedFFN = to(9), to(20), to(20)
		s.topK = to(s.experts)
	}
	return s
}

// configJSON is the config.json of the shape.
func (s shape) configJSON(t testing.TB) []byte {
	if s.section == [3]int{} {
		s.section[0] = s.rotary / 2
	}
	text := map[string]any{"hidden_size": s.hidden, "vocab_size": s.vocab, "num_hidden_layers": len(s.layers), "layer_types": s.layers,
		"max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": false, "attn_output_gate": true,
		"num_attention_heads": s.groups * s.kvHeads, "num_key_value_heads": s.kvHeads, "head_dim": s.headDim,
		"linear_num_key_heads": s.keyHeads, "linear_num_value_heads": s.valueGroups * s.keyHeads, "linear_key_head_dim": s.keyDim,
		"linear_value_head_dim": s.valDim, "linear_conv_kernel_dim": s.conv, "tie_word_embeddings": s.tied, "eos_token_id": 0,
		"rope_parameters": map[string]any{"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": float64(s.rotary) / float64(s.headDim),
			"mrope_section": s.section, "mrope_interleaved": true}}
	kind, class := "qwen3_5", "Qwen3_5ForConditionalGeneration"
	if s.experts == 0 {
		text["intermediate_size"] = s.ffn
	} else {
		kind, class = "qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration"
		text["num_experts"], text["num_experts_per_tok"] = s.experts, s.topK
		text["moe_intermediate_size"], text["shared_expert_intermediate_size"] = s.expertWidth, s.sharedFFN
	}
	text["model_type"] = kind + "_text"
	b, err := json.Marshal(map[string]any{"architectures": []string{class}, "model_type": kind, "text_config": text, "tie_word_embeddings": s.tied})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// write makes a checkpoint of the shape, float32 weights of the size trained ones have, and gives its folder.
func (s shape) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	text := s.configJSON(t)
	c, err := config.Parse(filepath.Join(dir, "config.json"), text)
	if err != nil {
		t.Fatalf("%+v: %v", s, err)
	}
	const prefix = "model.language_model."
	roles := map[string]config.Role{prefix + config.Embed.Name(0): config.Embed, prefix + config.FinalNorm.Name(0): config.FinalNorm}
	if !s.tied {
		roles[config.Head.Name(0)] = config.Head
	}
	for l, kind := range c.Layers {
		for _, r := range c.LayerRoles(kind) {
			roles[prefix+r.Name(l)] = r
		}
	}
	var specs []safetensors.Spec
	for name, r := range roles {
		specs = append(specs, safetensors.Spec{Name: name, DType: safetensors.F32, Shape: r.Shape(c)})
	}
	w, err := safetensors.Create(filepath.Join(dir, "model.safetensors"), nil, specs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for name, r := range roles {
		if err := w.WriteAt(name, 0, s.weights(name, r, c)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// weights are normal numbers that follow from the seed and the name. Linears have the deviation that keeps the scale
// of their input, so that no layer fades away.
func (s shape) weights(name string, r config.Role, c *config.Config) []byte {
	var key [32]byte
	copy(key[:], name[max(0, len(name)-31):])
	key[31] ^= byte(s.seed)
	rng := rand.New(rand.NewChaCha8(key))
	n, sigma := 1, 0.3
	for _, d := range r.Shape(c) {
		n *= d
	}
	if dims := r.Shape(c); len(dims) > 1 {
		sigma = 1 / math.Sqrt(float64(dims[len(dims)-1]))
	}
	out := make([]byte, 0, 4*n)
	for range n {
		v := sigma * rng.NormFloat64()
		if r == config.GatedNorm {
			v++
		}
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(v)))
	}
	return out
}

// TestAcceptedShapesRun: whatever config.Parse accepts, every engine runs: at the ends of each range and over shapes
// drawn at random. exact and fast agree with float64, which shares no arithmetic with them, and exact gives the same
// bits by tokens as by prefill. Repeat one with -run 'TestAcceptedShapesRun/seed-17$'.
func TestAcceptedShapesRun(t *testing.T) {
	t.Parallel()
	cases := map[string]shape{}
	add := func(name string, change func(s *shape)) {
		s := plainShape()
		change(&s)
		cases[name] = s
	}
	for _, k := range []int{1, 2, 3, 15, 16, 17, 63, config.MaxConvKernel} {
		add(fmt.Sprint("conv-", k), func(s *shape) { s.conv = k })
	}
	add("key-dim-1", func(s *shape) { s.keyDim = 1 })
	add("value-dim-1", func(s *shape) { s.valDim = 1 })
	add("one-of-all", func(s *shape) {
		s.hidden, s.vocab, s.ffn, s.groups, s.keyDim, s.valDim, s.conv, s.valueGroups = 1, 1, 1, 1, 1, 1, 1, 1
	})
	add("rotary-all", func(s *shape) { s.rotary = 8 })
	add("head-dim-2", func(s *shape) { s.headDim, s.rotary = 2, 2 })
	add("head-dim-odd", func(s *shape) { s.headDim, s.rotary = 5, 4 })
	add("pairs-odd", func(s *shape) { s.rotary, s.section = 6, [3]int{1, 1, 1} })
	add("no-T-section", func(s *shape) { s.section = [3]int{0, 1, 1} })
	add("W-section-alone", func(s *shape) { s.section = [3]int{0, 0, 2} })
	add("kv-heads-3", func(s *shape) { s.kvHeads = 3 })
	add("heads-130", func(s *shape) { s.groups, s.kvHeads, s.headDim, s.rotary = 65, 2, 2, 2 })
	add("value-groups-70", func(s *shape) { s.valueGroups, s.keyDim, s.valDim = 70, 2, 3 })
	add("head-dim-600", func(s *shape) { s.headDim, s.rotary = 600, 150 })
	add("key-dim-300", func(s *shape) { s.keyDim, s.valDim = 300, 7 })
	add("attention-alone", func(s *shape) { s.layers = []string{attentionLayer} })
	add("gdn-alone", func(s *shape) { s.layers = []string{gdnLayer} })
	add("top-k-all", func(s *shape) { s.experts, s.topK, s.expertWidth, s.sharedFFN = 5, 5, 3, 4 })
	add("one-expert", func(s *shape) { s.experts, s.topK, s.expertWidth, s.sharedFFN = 1, 1, 1, 1 })
	add("experts-300-top-k-257", func(s *shape) { s.experts, s.topK, s.expertWidth, s.sharedFFN = 300, 257, 2, 2 })
	for seed := range uint64(32) {
		cases[fmt.Sprint("seed-", seed)] = randomShape(seed)
	}
	for name, s := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.check(t)
		})
	}
}

func (s shape) check(t *testing.T) {
	dir := s.write(t)
	prompt := engine.Prompt{IDs: make([]int32, 70)} // longer than a conv of 64 and than the chunk form's 64
	for i := range prompt.IDs {
		prompt.IDs[i] = int32(i * 7 % s.vocab)
	}
	f64 := scoreShape(t, dir, "fp64", engine.Spec{}, prompt, engine.Path{})
	exact := scoreShape(t, dir, "cpu", engine.Spec{Mode: "exact"}, prompt, engine.Path{})
	for _, run := range []struct {
		name string
		got  [][]float32
	}{
		{"exact", exact},
		{"fast", scoreShape(t, dir, "cpu", engine.Spec{Mode: "fast"}, prompt, engine.Path{})},
		{"chunk form", scoreShape(t, dir, "cpu", engine.Spec{Mode: "fast", Delta: "chunk"}, prompt, engine.Path{})},
		{"fp64 by tokens", scoreShape(t, dir, "fp64", engine.Spec{}, prompt, engine.Path{Chunk: 1})},
	} {
		if d, top := distance(run.got, f64); !(d <= 1e-3*max(1, top)) {
			t.Errorf("%s: logits off by %.3g of at most %.3g from float64 for %+v", run.name, d, top, s)
		}
	}
	for pos, row := range scoreShape(t, dir, "cpu", engine.Spec{Mode: "exact"}, prompt, engine.Path{Chunk: 1}) {
		for i := range row {
			if math.Float32bits(row[i]) != math.Float32bits(exact[pos][i]) {
				t.Fatalf("position %d, logit %d: %g by tokens, %g by prefill, for %+v", pos, i, row[i], exact[pos][i], s)
			}
		}
	}
	for _, contract := range []string{"hf-bf16", "coreai-fp16"} { // their roundings have loops of their own
		scoreShape(t, dir, "cpu", engine.Spec{Contract: contract}, prompt, engine.Path{})
	}
	if _, err := oracle.DiffEngines(context.Background(), openShape(t, dir, "fp64", engine.Spec{}), openShape(t, dir, "cpu", engine.Spec{}),
		prompt, oracle.RunOptions{}); err != nil {
		t.Errorf("diff: %v", err)
	}
}

func openShape(t *testing.T, dir, name string, spec engine.Spec) engine.Engine {
	t.Helper()
	spec.Model, spec.Threads = dir, 1
	e, err := engine.Open(context.Background(), name, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// scoreShape gives the logit rows of all positions.
func scoreShape(t *testing.T, dir, name string, spec engine.Spec, prompt engine.Prompt, path engine.Path) (rows [][]float32) {
	t.Helper()
	err := openShape(t, dir, name, spec).Score(context.Background(), []engine.Prompt{prompt}, engine.Want{Logits: true, Path: path},
		func(p *engine.Position) error { rows = append(rows, append([]float32(nil), p.Logits...)); return nil })
	if err != nil || len(rows) != len(prompt.IDs) {
		t.Fatalf("%s %+v: %d positions of %d, %v", name, spec, len(rows), len(prompt.IDs), err)
	}
	return rows
}

// distance is the largest distance of two sets of rows, and the largest size in b. NaN on either side is NaN.
func distance(a, b [][]float32) (d, top float64) {
	for p := range a {
		for i := range a[p] {
			d = max(d, math.Abs(float64(a[p][i])-float64(b[p][i])))
			top = max(top, math.Abs(float64(b[p][i])))
		}
	}
	return d, top
}
