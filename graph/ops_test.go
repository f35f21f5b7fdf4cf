package graph

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sibyl/bundle/aicode"
	"sibyl/engine"
	"sibyl/internal/kernels"
)

// program decodes a sample; it is closed with the test.
func program(t testing.TB, name string) *aicode.Program {
	t.Helper()
	files, err := filepath.Glob("../testdata/bundles/" + name + "/*.aimodel/main.mlirb")
	if err != nil || len(files) != 1 {
		t.Fatal(name, files, err)
	}
	p, c, err := aicode.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return p
}

var everySample = []string{"opticks-2m-apple-q35", "opticks-2m-int8hu-sym", "tiny-dense-gva-apple-q35", "tiny-dense-gva-apple-q35-bf16", "tiny-dense-tied-fp16",
	"tiny-dense-tied-int4lin", "tiny-dense-tied-int8lin-debuginfo", "tiny-dense-tied-u4-minval", "tiny-moe-apple-q35", "tiny-moe-int8hu-sym"}

// TestTableKnowsEveryOperation: every operation of every sample, within decompositions too, is in the table, and of the
// table's lines all but palettes and what only other exporters use are met.
func TestTableKnowsEveryOperation(t *testing.T) {
	t.Parallel()
	met := map[string]bool{}
	for _, name := range everySample {
		for _, g := range program(t, name).Graphs {
			err := g.Body.Walk(func(op *aicode.Op) error {
				d, err := lookup(op)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", name, op.Where(), err)
				}
				met[d.name] = true
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	if len(met) < 53 {
		t.Errorf("%d operations met, want 53 of zoo-s1 at least", len(met))
	}
	for _, d := range Ops() {
		if !met[d.Name] && d.Name != "primitive.lut_to_dense" {
			t.Errorf("%s stands in the table and in no sample", d.Name)
		}
	}
}

// TestRegionsSayTheSame: an operation's function and the decomposition that the file carries for it agree to the last bit in
// coreai-cpu's arithmetic, on random operands of the file's types. Left out are silu, sigmoid and softmax, which the runtime
// executes as what they are named, with other roundings than their decompositions would make.
func TestRegionsSayTheSame(t *testing.T) {
	t.Parallel()
	own := []string{"silu", "sigmoid", "softmax"}
	rng := rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	for _, name := range everySample {
		p := program(t, name)
		for _, g := range p.Graphs {
			for _, op := range g.Body.Ops {
				base, _ := baseName(op.Name)
				key := base
				for _, v := range op.Operands {
					key += " " + v.Type.String()
				}
				if len(op.Regions) != 1 || seen[key] || slices.Contains(own, base) {
					continue
				}
				seen[key] = true
				regionAgrees(t, p, op, rng)
			}
		}
	}
	if len(seen) < 60 {
		t.Errorf("%d operations compared", len(seen))
	}
}

func regionAgrees(t *testing.T, p *aicode.Program, op *aicode.Op, rng *rand.Rand) {
	t.Helper()
	g := &aicode.Graph{Name: "region", Body: op.Regions[0]}
	m, err := newMachine(&aicode.Program{File: p.File, Graphs: []*aicode.Graph{g}}, CoreAICPU, kernels.NewPool(1), 0)
	if err != nil {
		t.Errorf("%s: %v", op.Where(), err)
		return
	}
	in := make([]*Tensor, len(op.Operands))
	args := make([]value, len(in))
	for i, v := range op.Operands {
		if in[i] = randomOperand(v, rng); len(op.Operands) == 2 && v.Def != nil && v.Def.Const != nil && !v.Type.Elem.IsFloat() {
			in[i] = constant(v.Def.Const) // axes
		}
		args[i].t = in[i]
	}
	want, err := m.run(t.Context(), m.public["region"], args, nil)
	if err != nil {
		t.Errorf("%s: its region: %v", op.Where(), err)
		return
	}
	def, err := lookup(op)
	if err != nil {
		t.Fatal(err)
	}
	// A spread bf16 weight is rounded otherwise than one of equal batch axes, which is what the region makes of it.
	if base, _ := baseName(op.Name); base == "broadcasting_batch_matmul" && in[0].Kind == aicode.BF16 && len(in[1].Dims) == 2 && len(in[0].Dims) > 2 {
		in[1] = in[1].view(append([]int{1}, in[1].Dims...), append([]int{0}, in[1].strides...), in[1].off)
	}
	got, err := def.eval(&call{machine: m, pool: m.pool, ctx: t.Context()}, op, in)
	if err != nil {
		t.Errorf("%s: %v", op.Where(), err)
		return
	}
	same := slices.Equal(got[0].Dims, want[0].t.Dims) && got[0].Kind == want[0].t.Kind
	switch {
	case !same:
	case got[0].isFloat():
		same = slices.EqualFunc(got[0].floats(), want[0].t.floats(), func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
	default:
		same = slices.Equal(got[0].ints(), want[0].t.ints())
	}
	if !same {
		t.Errorf("%s of %v: %s, its region gives %s of other elements", op.Where(), in, got[0], want[0].t)
	}
}

// randomOperand makes an operand of a value's type; dynamic dimensions are 3.
func randomOperand(v *aicode.Value, rng *rand.Rand) *Tensor {
	if v.Def != nil && v.Def.Const != nil && v.Type.Elem == aicode.Bool {
		return constant(v.Def.Const)
	}
	dims := dimsFor(v.Type, 3)
	n, _ := volume(dims)
	if v.Type.Elem.IsFloat() {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		grid(v.Type.Elem).Slice(x)
		return newFloats(v.Type.Elem, dims, x)
	}
	x := make([]int64, n)
	for i := range x {
		x[i] = wrap(v.Type.Elem, rng.Int64N(2))
	}
	return newInts(v.Type.Elem, dims, x)
}

// TestUnknownOperation: what the engine does not know it names, with its place, its operands and what came before.
func TestUnknownOperation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, to, want string }{
		{"name", "primitive.frobnicate_v1", "op 500 primitive.frobnicate_v1 at byte"},
		{"version", "primitive.reshape_v9", "version 9 of primitive.reshape; known: [2]"},
		{"operands", "primitive.where_v1", "found 2 operands, want 3 to 3"},
		{"types", "primitive.frobnicate_v1", "of operands (f16[1,1,192,3], u32[3])"},
		{"before", "primitive.frobnicate_v1", "after op 499 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := program(t, dense)
			ops := p.Graph("main").Body.Ops
			at := slices.IndexFunc(ops[480:], func(op *aicode.Op) bool { return op.Name == "primitive.reshape_v2" && len(op.Operands) == 2 }) + 480
			op := ops[at]
			op.Name = tt.to
			want := strings.NewReplacer("op 500", fmt.Sprintf("op %d", at), "op 499", fmt.Sprintf("op %d", at-1), "(f16[1,1,192,3], u32[3])",
				fmt.Sprintf("(%s, %s)", op.Operands[0].Type, op.Operands[1].Type)).Replace(tt.want)
			if _, err := New(p, engine.Spec{Model: "x"}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q in it", err, want)
			}
		})
	}
}

// TestRegionStandsIn: an operation that the table lacks runs through the decomposition that the file carries, and is counted.
func TestRegionStandsIn(t *testing.T) {
	t.Parallel()
	logits := func(rename bool) (out []float32, info engine.Info) {
		p := program(t, dense)
		for _, op := range p.Graph("main").Body.Ops {
			if rename && op.Name == "broadcasting_add_v1" {
				op.Name = "future_add_v3"
			}
		}
		e, err := New(p, engine.Spec{Model: "x", Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		out = rows(t, e, e.layout.start(), []int32{15, 320}, engine.Path{}, 0)
		return out, e.Info()
	}
	want, _ := logits(false)
	got, info := logits(true)
	differ(t, "logits", got, want)
	if info.Fallbacks["operations run through their region"] == 0 {
		t.Errorf("fallbacks %v: the regions were not counted", info.Fallbacks)
	}
}

// TestHostileNumbers: numbers in a graph that ask for more than there is are errors that name the operation.
func TestHostileNumbers(t *testing.T) {
	t.Parallel()
	c := &call{machine: &machine{arith: Exact}, pool: kernels.NewPool(1), ctx: context.Background()}
	i32 := func(x ...int64) *Tensor { return listOf(aicode.I32, x...) }
	scalar := func(x int64) *Tensor { return newInts(aicode.I32, nil, []int64{x}) }
	x := newFloats(aicode.F32, []int{2, 3}, []float32{1, 2, 3, 4, 5, 6})
	empty := newFloats(aicode.F32, []int{2, 0}, nil)
	typ := func(k aicode.Kind) *aicode.Op {
		return &aicode.Op{Results: []*aicode.Value{{Type: &aicode.Type{Kind: aicode.Tensor, Elem: k}}}, Attrs: map[string]aicode.Attr{"scatter_mode": "update"}}
	}
	for _, tt := range []struct {
		op string
		in []*Tensor
	}{
		{"primitive.broadcast_to", []*Tensor{x, i32(1<<40, 2, 3)}},
		{"primitive.broadcast_to", []*Tensor{newFloats(aicode.F32, []int{1, 1}, []float32{1}), i32(1<<20, 1<<20)}},
		{"primitive.broadcast_to", []*Tensor{x, i32(-2, 3)}},
		{"primitive.reshape", []*Tensor{x, i32(-1, -1)}},
		{"primitive.reshape", []*Tensor{x, i32(1<<31, 1<<31, 1<<31)}},
		{"primitive.reshape", []*Tensor{x, i32(0, -1)}},
		{"primitive.range", []*Tensor{scalar(0), scalar(math.MaxInt64), scalar(1)}},
		{"primitive.range", []*Tensor{scalar(math.MinInt64), scalar(math.MaxInt64), scalar(1)}},
		{"primitive.range", []*Tensor{scalar(0), scalar(4), scalar(0)}},
		{"primitive.transpose", []*Tensor{x, i32(0, 0)}},
		{"primitive.transpose", []*Tensor{x, i32(0, 9)}},
		{"primitive.expand_dims", []*Tensor{x, i32(7)}},
		{"primitive.shrink_dims", []*Tensor{x, i32(0)}},
		{"primitive.split", []*Tensor{x, i32(5, -2), scalar(1)}},
		{"primitive.slice", []*Tensor{x, i32(0, 0), i32(2, 3), i32(0, 1)}},
		{"primitive.slice", []*Tensor{x, i32(0), i32(2), i32(1)}},
		{"primitive.slice_update", []*Tensor{x, i32(0, 0), i32(2, 3), i32(1, 1), i32(1)}},
		{"primitive.gather_nd", []*Tensor{x, newInts(aicode.I32, []int{1, 1}, []int64{2})}},
		{"primitive.gather_nd", []*Tensor{x, newInts(aicode.I32, []int{1, 1}, []int64{-1})}},
		{"primitive.gather_nd", []*Tensor{x, newInts(aicode.I32, []int{1, 3}, []int64{0, 0, 0})}},
		{"primitive.gather_along_axis", []*Tensor{x, newInts(aicode.I32, []int{2, 1}, []int64{0, 3}), scalar(1)}},
		{"primitive.gather_along_axis", []*Tensor{x, newInts(aicode.I32, []int{1, 3}, []int64{9, 9, 9}), scalar(0)}},
		{"primitive.scatter_along_axis", []*Tensor{x, newInts(aicode.I32, []int{2, 1}, []int64{0, 3}), newFloats(aicode.F32, []int{2, 1}, []float32{1, 1}), scalar(1)}},
		{"primitive.batch_matmul", []*Tensor{x, x}},
		{"primitive.conv2d", []*Tensor{x, x, i32(1, 1), i32(1, 1), scalar(1)}},
		{"primitive.concat", []*Tensor{scalar(2), x, x}},
		{"primitive.divide", []*Tensor{i32(1), i32(0)}},
		{"reduce_mean", []*Tensor{empty, i32(1)}},
		{"reduce_sum", []*Tensor{x, i32(1, 1)}},
		{"softmax", []*Tensor{x, scalar(2)}},
		{"sort", []*Tensor{x, scalar(1), scalar(1), scalar(1)}},
	} {
		kind := aicode.F32
		if tt.in[0].Kind != aicode.F32 && tt.op != "primitive.concat" {
			kind = aicode.I32
		}
		op := typ(kind)
		if tt.op == "primitive.split" {
			op.Results = append(op.Results, op.Results[0])
		}
		if out, err := byName[tt.op].eval(c, op, tt.in); err == nil {
			t.Errorf("%s of %v: %v, want an error", tt.op, tt.in, out)
		}
	}
}

// TestMutations: random edits of a decoded graph give an error or a result, never a panic, a hang or memory without bound.
func TestMutations(t *testing.T) {
	t.Parallel()
	n := 300
	if testing.Short() {
		n = 15
	}
	for _, name := range []string{dense, "tiny-dense-gva-apple-q35-bf16"} {
		ran := 0
		for seed := range n {
			if mutated(t, name, uint64(seed)) {
				ran++
			}
		}
		t.Logf("%s: %d of %d mutants still run", name, ran, n)
	}
}

func FuzzGraph(f *testing.F) {
	for seed := range 8 {
		f.Add(uint64(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64) { mutated(t, dense, seed) })
}

// mutated edits three places of a program and runs two tokens of it.
func mutated(t testing.TB, name string, seed uint64) bool {
	t.Helper()
	p := program(t, name)
	rng := rand.New(rand.NewPCG(seed, 7))
	for range 3 {
		g := p.Graphs[rng.IntN(len(p.Graphs))]
		op := g.Body.Ops[rng.IntN(len(g.Body.Ops))]
		switch other := g.Body.Ops[rng.IntN(len(g.Body.Ops))]; rng.IntN(4) {
		case 0:
			op.Name = other.Name
		case 1:
			if len(op.Operands) > 1 {
				op.Operands[0], op.Operands[1] = op.Operands[1], op.Operands[0]
			}
		case 2:
			if len(op.Operands) > 0 && len(other.Results) > 0 {
				op.Operands[rng.IntN(len(op.Operands))] = other.Results[0]
			}
		default:
			if k := op.Const; k != nil && k.Type.Elem == aicode.I32 && len(k.Data) >= 4 {
				c := *k
				c.Data = slices.Clone(k.Data)
				c.Data[rng.IntN(len(c.Data)/4)*4] = byte(rng.Uint32())
				op.Const = &c
			}
		}
	}
	e, err := New(p, engine.Spec{Model: "x", Threads: 1})
	if err != nil {
		return false
	}
	each := func(*engine.Position) error { return nil }
	return e.Score(t.Context(), []engine.Prompt{{IDs: []int32{1, 2}}}, engine.Want{}, each) == nil
}
