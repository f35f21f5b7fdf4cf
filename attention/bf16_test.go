package attention

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"sibyl/internal/goldens"
	"sibyl/internal/kernels"
	"sibyl/internal/ragged"
	"sibyl/precision"
)

// fixture is one layer's mixer of a bf16-modules set under a contract, with the weights its goldens were made with.
type fixture struct {
	*Mixer
	g       *goldens.Modules
	points  *goldens.Points
	linears map[string][]float32 // tap -> weight, for sum|w*x|
	cache   *Cache
}

func newFixture(t testing.TB, g *goldens.Modules, l int, c *precision.Contract, points *goldens.Points) *fixture {
	t.Helper()
	at := fmt.Sprintf("layers.%d.self_attn.", l)
	f := &fixture{g: g, points: points, linears: map[string][]float32{}, cache: NewCache(c.KV)}
	linear := func(name string) *kernels.Matrix {
		w := g.Weight(t, at+name+".weight")
		f.linears["attn."+name] = w.Data
		return matrix(t, w)
	}
	first := g.Calls[0].Prefix + fmt.Sprintf("layer%d.", l)
	q, k := g.Get(t, first+"attn.q_rope").Shape, g.Get(t, first+"attn.k_rope").Shape
	f.Mixer = &Mixer{
		Weights: Weights{Q: linear("q_proj"), K: linear("k_proj"), V: linear("v_proj"), O: linear("o_proj"),
			QNorm: g.Weight(t, at+"q_norm.weight").Data, KNorm: g.Weight(t, at+"k_norm.weight").Data, One: 1},
		Rope: NewRope(1e7, 8, [3]int{2, 1, 1}), Layer: l, Contract: c,
	}
	f.Dims = Dims{Hidden: f.Q.Cols, Heads: q[1], HeadDim: q[2], KVHeads: k[1], Eps: 1e-6}
	return f
}

// matrix views float32 values as a weight.
func matrix(t testing.TB, w goldens.Tensor) *kernels.Matrix {
	t.Helper()
	var b []byte
	for _, v := range w.Data {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	m, err := kernels.NewMatrix(kernels.F32, w.Shape[0], w.Shape[1], b, precision.F32)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run is one call of the mixer with every module fed its golden input. The cache that grows is the golden one: its rows
// are taken from the taps, after Force put the goldens there.
func (f *fixture) run(t testing.TB, call goldens.ModuleCall) {
	t.Helper()
	at := fmt.Sprintf("%slayer%d.", call.Prefix, f.Layer)
	T := len(call.IDs)
	batch := &ragged.Batch{Seqs: []ragged.Seq{{Len: T, Pos: call.Pos}}, Rows: T, Pool: kernels.NewPool(1), Arith: kernels.Exact}
	cos, sin := f.table(t, call, batch)
	batch.Sink = &goldens.Force{Modules: f.g, Prefix: call.Prefix, Check: func(tap string, got, want []float32) { f.check(t, at, tap, got, want) }}
	x := f.g.Get(t, at+"input_norm").Data
	f.Forward(make([]float32, len(x)), slices.Clone(x), cos, sin, batch, []*Cache{f.cache})
	if f.Contract.SoftmaxLate {
		return // the goldens hold eager's insides alone
	}
	for i := range T * f.Heads {
		f.inside(t, at, i/f.Heads, i%f.Heads, batch)
	}
}

// table holds the rope tables and gives the golden ones. Hugging Face's rows hold the frequencies twice.
func (f *fixture) table(t testing.TB, call goldens.ModuleCall, batch *ragged.Batch) (cos, sin []float32) {
	t.Helper()
	half := f.Rope.Rot / 2
	halve := func(name string) (out []float32) {
		x := f.g.Get(t, call.Prefix+name)
		for i := range call.IDs {
			out = append(out, x.Row(i)[:half]...)
		}
		return out
	}
	cos, sin = f.Rope.Table(batch, f.Contract)
	f.points.BF16("rope.cos/sin", call.Prefix+"rope.cos", cos, halve("rope.cos"), 1)
	f.points.BF16("rope.cos/sin", call.Prefix+"rope.sin", sin, halve("rope.sin"), 1)
	return halve("rope.cos"), halve("rope.sin")
}

// check holds one tap, whose input was the golden before it.
func (f *fixture) check(t testing.TB, at, name string, got, want []float32) {
	t.Helper()
	_, tap, _ := goldens.LayerTap(name)
	golden := func(name string) []float32 { return f.g.Get(t, at+name).Data }
	linear := func(input string, inner int) {
		f.points.Sum("linear "+tap, at, got, want, goldens.SumAbs(golden(input), f.linears[tap], inner), goldens.SumSlack, goldens.EqualShare)
	}
	switch tap {
	case "attn.q_proj", "attn.k_proj", "attn.v_proj":
		linear("input_norm", f.Hidden)
	case "attn.o_proj":
		linear("attn.out_gated", f.O.Cols)
	case "attn.q_norm", "attn.k_norm":
		f.points.BF16("q_norm/k_norm", at, got, want, 1)
	case "attn.q_rope", "attn.k_rope":
		f.points.BF16("rope", at, got, want, 1)
	case "attn.out_pre_gate":
		if f.Contract.SoftmaxLate {
			f.points.Sum("attn sdpa", at, got, golden("attn.out_pre_gate.sdpa"), func() []float64 { return f.flashSize(golden("attn.q_rope")) },
				goldens.SDPASlack, goldens.SDPAShare)
		}
	case "attn.out_gated":
		f.points.BF16("output gate", at, got, want, 1)
	}
}

// inside holds the steps of eager attention, which have no taps, for one query: row of the call, head.
func (f *fixture) inside(t testing.TB, at string, row, head int, batch *ragged.Batch) {
	t.Helper()
	hd, T, N := f.HeadDim, batch.Rows, f.cache.Len
	golden := func(name string) []float32 { return f.g.Get(t, at+name).Data[(head*T+row)*N:][:N] }
	keys, values := f.head(head)
	query := slices.Clone(f.g.Get(t, at+"attn.q_rope").Data[(row*f.Heads+head)*hd:][:hd])

	scores := make([]float32, N)
	f.scores(scores, query, keys, f.KVHeads*hd, batch)
	f.points.Sum("attn q.k", at, scores, golden("attn.scores_raw"), goldens.SumAbs(query, f.packed(keys), hd), goldens.SumSlack, goldens.EqualShare)
	copy(scores, golden("attn.scores_raw"))
	f.scale(scores)
	f.points.BF16("attn scale", at, scores, golden("attn.scores"), 1)

	visible := N - T + row + 1
	weights := slices.Clone(golden("attn.scores"))[:visible]
	den := f.weights(weights, batch)
	f.points.BF16("attn softmax", at, append(weights, make([]float32, N-visible)...), golden("attn.weights"), 1)

	weights = slices.Clone(golden("attn.weights"))[:visible]
	out := make([]float32, hd)
	f.weigh(out, weights, values, f.KVHeads*hd, den, batch)
	want := f.g.Get(t, at+"attn.out_pre_gate").Data[(row*f.Heads+head)*hd:][:hd]
	f.points.Sum("attn w.v", at, out, want, func() []float64 { return f.weighed(weights, values) }, goldens.SumSlack, goldens.EqualShare)
}

// head gives the cached keys and values of a query head, rows KVHeads*hd apart.
func (f *fixture) head(h int) (keys, values []float32) {
	kv := h / (f.Heads / f.KVHeads) * f.HeadDim
	return f.cache.K.Floats()[kv:], f.cache.V.Floats()[kv:]
}

// packed gives one head's cached rows without the other heads between them.
func (f *fixture) packed(x []float32) (out []float32) {
	for j := range f.cache.Len {
		out = append(out, x[j*f.KVHeads*f.HeadDim:][:f.HeadDim]...)
	}
	return out
}

// weighed is sum w|v|.
func (f *fixture) weighed(w, values []float32) []float64 {
	out := make([]float64, f.HeadDim)
	for j, a := range w {
		for d := range out {
			out[d] += float64(a) * math.Abs(float64(values[j*f.KVHeads*f.HeadDim+d]))
		}
	}
	return out
}

// flashSize is sum w|v| of every out of the call, with the weights of an unrounded softmax.
func (f *fixture) flashSize(q []float32) (out []float64) {
	hd := f.HeadDim
	rows := len(q) / (f.Heads * hd)
	for i := range rows * f.Heads {
		keys, values := f.head(i % f.Heads)
		w := make([]float32, f.cache.Len-rows+i/f.Heads+1)
		for j := range w {
			s := 0.0
			for d, a := range q[i*hd:][:hd] {
				s += float64(a) * float64(keys[j*f.KVHeads*hd+d])
			}
			w[j] = float32(s / math.Sqrt(float64(hd)))
		}
		precision.SoftmaxR32(w)
		out = append(out, f.weighed(w, values)...)
	}
	return out
}

// runAll runs every attention layer and every call of a set.
func runAll(t testing.TB, g *goldens.Modules, c *precision.Contract) *goldens.Points {
	t.Helper()
	points := new(goldens.Points)
	for l := 0; ; l++ {
		layer := fmt.Sprintf("%slayer%d.", g.Calls[0].Prefix, l)
		if _, ok := g.Tensors[layer+"input_norm"]; !ok {
			return points
		}
		if _, ok := g.Tensors[layer+"attn.q_rope"]; !ok {
			continue // GatedDeltaNet
		}
		f := newFixture(t, g, l, c, points)
		for _, call := range g.Calls {
			f.run(t, call)
		}
		cache := fmt.Sprintf("%s.cache.layer%d.", g.Prompt, l)
		points.BF16("KV cache", cache, f.HeadMajor(&f.cache.K, f.cache.Len), g.Get(t, cache+"key").Data, 1)
		points.BF16("KV cache", cache, f.HeadMajor(&f.cache.V, f.cache.Len), g.Get(t, cache+"value").Data, 1)
	}
}

func lookup(t testing.TB, name string) *precision.Contract {
	t.Helper()
	c, err := precision.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBF16Modules holds every module of every attention layer, prefill and steps, to Hugging Face in bfloat16: fed its
// golden input, for the eager attention and for sdpa.
func TestBF16Modules(t *testing.T) {
	t.Parallel()
	for _, set := range goldens.BF16Sets {
		for _, contract := range []string{"hf-bf16", "hf-bf16-sdpa"} {
			t.Run(set+"/"+contract, func(t *testing.T) {
				t.Parallel()
				points := runAll(t, goldens.LoadModules(t, set), lookup(t, contract))
				t.Logf("\n%v", points)
				for _, f := range points.Failures() {
					t.Error(f)
				}
			})
		}
	}
}

// TestBF16Controls: the goldens see every rounding that the contracts do not make, and every one left out.
func TestBF16Controls(t *testing.T) {
	t.Parallel()
	g := goldens.LoadModules(t, "tiny-moe")
	for _, tc := range []struct {
		name, why, contract, row string
		change                   func(*precision.Contract)
	}{
		{"norm-f32", "q and k norm round once, at the end", "hf-bf16", "q_norm/k_norm", at(precision.Norm, precision.F32)},
		{"table-f32", "cos and sin are cast", "hf-bf16", "rope.cos/sin", at(precision.RopeTable, precision.F32)},
		{"product-f32", "rope's products are rounded", "hf-bf16", "rope", at(precision.RopeProduct, precision.F32)},
		{"rope-f32", "and their sum", "hf-bf16", "rope", at(precision.RopeOut, precision.F32)},
		{"score-f32", "q.k is rounded before the scale", "hf-bf16", "attn q.k", at(precision.Score, precision.F32)},
		{"scale-query", "the scale multiplies the scores", "hf-bf16", "attn scale", func(c *precision.Contract) { c.ScaleScores = false }},
		{"scaled-f32", "and is rounded; adding the mask would round it too", "hf-bf16", "attn scale", func(c *precision.Contract) {
			c.At[precision.ScoreScaled], c.At[precision.ScoreMasked] = precision.F32, precision.F32
		}},
		{"softmax-f32", "weights are cast", "hf-bf16", "attn softmax", at(precision.Softmax, precision.F32)},
		{"out-f32", "w.v is rounded", "hf-bf16", "attn w.v", at(precision.AttnOut, precision.F32)},
		{"sigmoid-f32", "the gate's sigmoid is rounded", "hf-bf16", "output gate", at(precision.GateSigmoid, precision.F32)},
		{"gated-f32", "and its product", "hf-bf16", "output gate", at(precision.AttnGated, precision.F32)},
		{"sdpa-score", "sdpa's scores stay float32", "hf-bf16-sdpa", "attn sdpa", func(c *precision.Contract) {
			c.At[precision.Score] = precision.BF16
		}},
		{"sdpa-exp-f32", "sdpa rounds exp", "hf-bf16-sdpa", "attn sdpa", at(precision.Softmax, precision.F32)},
		{"sdpa-out-f32", "and the quotient", "hf-bf16-sdpa", "attn sdpa", at(precision.AttnOut, precision.F32)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := *lookup(t, tc.contract)
			tc.change(&c)
			if p := runAll(t, g, &c); !p.Fails(tc.row) {
				t.Errorf("%s: %q still within its bounds\nwhy: %s\n%v", tc.name, tc.row, tc.why, p)
			}
		})
	}
}

func at(p precision.Point, r precision.Round) func(*precision.Contract) {
	return func(c *precision.Contract) { c.At[p] = r }
}
