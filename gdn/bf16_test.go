package gdn

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
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
	state   *State
}

func newFixture(t testing.TB, g *goldens.Modules, l int, c *precision.Contract, chunk bool, points *goldens.Points) *fixture {
	t.Helper()
	at := fmt.Sprintf("layers.%d.linear_attn.", l)
	f := &fixture{g: g, points: points, linears: map[string][]float32{}}
	vector := func(name string) []float32 { return g.Weight(t, at+name).Data }
	linear := func(name string) *kernels.Matrix {
		w := g.Weight(t, at+name+".weight")
		f.linears["gdn."+name] = w.Data
		return matrix(t, w)
	}
	first := g.Calls[0].Prefix + fmt.Sprintf("layer%d.", l)
	k, v := g.Get(t, first+"gdn.k_l2").Shape, g.Get(t, first+"gdn.v").Shape
	f.Mixer = &Mixer{
		Weights: Weights{QKV: linear("in_proj_qkv"), Z: linear("in_proj_z"), B: linear("in_proj_b"), A: linear("in_proj_a"),
			Out: linear("out_proj"), Conv: vector("conv1d.weight"), ALog: vector("A_log"), DtBias: vector("dt_bias"), Norm: vector("norm.weight")},
		Layer: l, Contract: c, Chunk: chunk,
	}
	f.Dims = Dims{Hidden: f.QKV.Cols, KeyHeads: k[1], KeyDim: k[2], ValueHeads: v[1], ValueDim: v[2], Kernel: 4, Eps: 1e-6}
	f.state = f.NewState()
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

// run is one call of the mixer with every module fed its golden input; the state that follows is the golden one too.
func (f *fixture) run(t testing.TB, call goldens.ModuleCall) {
	t.Helper()
	at := fmt.Sprintf("%slayer%d.", call.Prefix, f.Layer)
	golden := func(name string) []float32 { return f.g.Get(t, at+name).Data }
	if call.Step {
		f.points.BF16("conv_state", at, f.ConvColumns(f.state), golden("gdn.conv_state.in"), 1)
	}
	before := f.state.Clone()
	f.forward(t, call, func(tap string, got, want []float32) { f.check(t, at, tap, got, want, before) })
	form := "delta recurrent: "
	if f.Chunk {
		form = "delta chunk: "
	}
	f.points.F32(form+"final_state (F32)", at, f.state.S, golden("gdn.final_state"))
	if !call.Step {
		f.points.F32(form+"final_state.recurrent (F32)", at, f.state.S, golden("gdn.final_state.recurrent"))
	}
	copy(f.state.S, golden("gdn.final_state"))

	// the rule's out before its cast: the same call under a contract that leaves it alone
	wide, kept, after := *f.Contract, f.Contract, f.state
	wide.At[precision.CoreOut] = precision.F32
	f.Contract, f.state = &wide, before
	f.forward(t, call, func(tap string, got, _ []float32) {
		if strings.HasSuffix(tap, "gdn.core_out") {
			f.points.F32(form+"core_out.f32 (F32)", at, got, golden("gdn.core_out.f32"))
			if !call.Step {
				f.points.F32(form+"core_out.recurrent_f32 (F32)", at, got, golden("gdn.core_out.recurrent_f32"))
			}
		}
	})
	f.Contract, f.state = kept, after
}

func (f *fixture) forward(t testing.TB, call goldens.ModuleCall, check func(tap string, got, want []float32)) {
	t.Helper()
	x := f.g.Get(t, fmt.Sprintf("%slayer%d.input_norm", call.Prefix, f.Layer)).Data
	T := len(call.IDs)
	batch := &ragged.Batch{Seqs: []ragged.Seq{{Len: T, Pos: call.Pos}}, Rows: T, Pool: kernels.NewPool(1), Arith: kernels.Exact,
		Sink: &goldens.Force{Modules: f.g, Prefix: call.Prefix, Check: check}}
	f.Forward(make([]float32, len(x)), slices.Clone(x), batch, []*State{f.state})
}

// check holds one tap, whose input was the golden before it.
func (f *fixture) check(t testing.TB, at, name string, got, want []float32, before *State) {
	t.Helper()
	_, tap, _ := goldens.LayerTap(name)
	golden := func(name string) []float32 { return f.g.Get(t, at+name).Data }
	switch tap {
	case "gdn.in_proj_qkv", "gdn.in_proj_z", "gdn.in_proj_b", "gdn.in_proj_a":
		f.points.Sum("linear "+tap, at, got, want, goldens.SumAbs(golden("input_norm"), f.linears[tap], f.Hidden), goldens.SumSlack, goldens.EqualShare)
	case "gdn.out_proj":
		f.points.Sum("linear "+tap, at, got, want, goldens.SumAbs(golden("gdn.gated_norm"), f.linears[tap], f.Out.Cols), goldens.SumSlack, goldens.EqualShare)
	case "gdn.conv_pre_silu":
		f.points.Sum("conv", at, got, want, func() []float64 { return f.convSize(before.Conv, golden("gdn.in_proj_qkv")) },
			goldens.SumSlack, goldens.EqualShare)
	case "gdn.conv_out":
		f.points.BF16("conv silu", at, got, want, 1)
	case "gdn.q_l2", "gdn.k_l2":
		f.points.F32("l2norm q,k (F32)", at, got, want)
	case "gdn.g":
		f.points.F32("g (F32)", at, got, want)
	case "gdn.core_out":
		form := map[bool]string{false: "delta recurrent: core_out", true: "delta chunk: core_out"}[f.Chunk]
		f.points.Core(form, at, got, want)
	case "gdn.gated_norm": // a flip of its first rounding can move the last by two
		f.points.BF16("gated norm", at, got, want, 2)
	default: // v is a slice; beta
		f.points.BF16(tap, at, got, want, 1)
	}
}

// convSize is sum|w*x| of the conv: old holds the rows before x.
func (f *fixture) convSize(old, x []float32) []float64 {
	C, K := f.Channels(), f.Kernel
	win := append(slices.Clone(old[C:]), x...)
	out := make([]float64, len(x))
	for i := range out {
		for j := range K {
			out[i] += math.Abs(float64(f.Conv[i%C*K+j]) * float64(win[i+j*C]))
		}
	}
	return out
}

// runAll runs every GatedDeltaNet layer and every call of a set.
func runAll(t testing.TB, g *goldens.Modules, c *precision.Contract, chunk bool) *goldens.Points {
	t.Helper()
	points := new(goldens.Points)
	for l := 0; ; l++ {
		layer := fmt.Sprintf("%slayer%d.", g.Calls[0].Prefix, l)
		if _, ok := g.Tensors[layer+"input_norm"]; !ok {
			return points
		}
		if _, ok := g.Tensors[layer+"gdn.v"]; !ok {
			continue // attention
		}
		f := newFixture(t, g, l, c, chunk, points)
		for _, call := range g.Calls {
			f.run(t, call)
		}
		cache := fmt.Sprintf("%s.cache.layer%d.conv_state", g.Prompt, l)
		points.BF16("conv_state", cache, f.ConvColumns(f.state), g.Get(t, cache).Data, 1)
	}
}

// TestBF16Modules holds every module of every GatedDeltaNet layer, prefill and steps, to Hugging Face in bfloat16: fed
// its golden input, in both forms of the delta rule.
func TestBF16Modules(t *testing.T) {
	t.Parallel()
	c, err := precision.Lookup("hf-bf16")
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range goldens.BF16Sets {
		for _, chunk := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/chunk=%v", set, chunk), func(t *testing.T) {
				t.Parallel()
				points := runAll(t, goldens.LoadModules(t, set), c, chunk)
				t.Logf("\n%v", points)
				for _, f := range points.Failures() {
					t.Error(f)
				}
			})
		}
	}
}

// TestBF16Controls: the goldens see every rounding that hf-bf16 does not make, and every one that it would leave out.
func TestBF16Controls(t *testing.T) {
	t.Parallel()
	base, err := precision.Lookup("hf-bf16")
	if err != nil {
		t.Fatal(err)
	}
	g := goldens.LoadModules(t, "tiny-moe")
	for _, tc := range []struct {
		name, why, row string
		change         func(*precision.Contract)
	}{
		{"linear-f32", "each linear rounds once", "linear gdn.in_proj_qkv", at(precision.Linear, precision.F32)},
		{"conv-sum-f32", "the conv is rounded before silu", "conv", at(precision.ConvSum, precision.F32)},
		{"conv-products", "but its products are not", "conv", func(c *precision.Contract) {
			c.At[precision.ConvProduct], c.At[precision.ConvPartial] = precision.BF16, precision.BF16
		}},
		{"conv-out-f32", "silu is rounded", "conv silu", at(precision.ConvOut, precision.F32)},
		{"l2-out", "l2norm comes after the cast to float32", "l2norm q,k (F32)", at(precision.L2Out, precision.BF16)},
		{"q-scale", "q is scaled in float32", "delta recurrent: core_out", at(precision.QScale, precision.BF16)},
		{"beta-f32", "beta is bf16", "gdn.beta", at(precision.Beta, precision.F32)},
		{"g", "g never is", "g (F32)", at(precision.G, precision.BF16)},
		{"core-out-f32", "the rule's out is cast", "delta recurrent: core_out", at(precision.CoreOut, precision.F32)},
		{"state", "the state stays float32", "delta recurrent: core_out", func(c *precision.Contract) { c.State = precision.BF16 }},
		{"gated-normed", "gated norm, first of three roundings", "gated norm", at(precision.GatedNormed, precision.F32)},
		{"gated-weight", "second", "gated norm", at(precision.GatedWeight, precision.F32)},
		{"gated-out", "third", "gated norm", at(precision.GatedOut, precision.F32)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := *base
			tc.change(&c)
			if p := runAll(t, g, &c, false); !p.Fails(tc.row) {
				t.Errorf("%s: %q still within its bounds\nwhy: %s\n%v", tc.name, tc.row, tc.why, p)
			}
		})
	}
}

func at(p precision.Point, r precision.Round) func(*precision.Contract) {
	return func(c *precision.Contract) { c.At[p] = r }
}
