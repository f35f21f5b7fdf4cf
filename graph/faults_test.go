package graph

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sibyl/bundle/aicode"
	"sibyl/engine"
	_ "sibyl/model"
	"sibyl/oracle"
	"sibyl/precision"
)

// mutant is a decoded program that a test spoils: operands, constants and operations, with users kept in step.
type mutant struct {
	t testing.TB
	p *aicode.Program
	g *aicode.Graph // main
	e *Engine       // of the whole program: names its values
}

// value is what a tap's name stands for.
func (m *mutant) value(tap string) *aicode.Value {
	m.t.Helper()
	t := m.e.tapNamed(tap)
	if t == nil {
		m.t.Fatal("no tap ", tap)
	}
	return t.parts[0].v
}

func (m *mutant) def(tap string) *aicode.Op { return m.value(tap).Def }

// before is the last operation of a kind that makes a tap.
func (m *mutant) before(tap, kind string) *aicode.Op {
	m.t.Helper()
	f := flow{m.p, m.g}
	for _, l := range m.e.makers(tap) {
		if l.via == nil && f.kind(l.op) == kind {
			return l.op
		}
	}
	m.t.Fatal("no ", kind, " before ", tap)
	return nil
}

// all lists the operations of a kind that make a tap, in the order of the block.
func (m *mutant) all(tap, kind string) []*aicode.Op {
	f := flow{m.p, m.g}
	var out []*aicode.Op
	for _, l := range m.e.makers(tap) {
		if l.via == nil && f.kind(l.op) == kind {
			out = append(out, l.op)
		}
	}
	slices.Reverse(out)
	return out
}

// operand makes v the i-th operand of op.
func (m *mutant) operand(op *aicode.Op, i int, v *aicode.Value) {
	old := op.Operands[i]
	op.Operands[i] = v
	if !slices.Contains(op.Operands, old) {
		old.Users = slices.DeleteFunc(old.Users, func(u *aicode.Op) bool { return u == op })
	}
	if !slices.Contains(v.Users, op) {
		v.Users = append(v.Users, op)
	}
}

// instead makes every reader of op's result read v.
func (m *mutant) instead(op *aicode.Op, v *aicode.Value) {
	for _, user := range slices.Clone(op.Results[0].Users) {
		if user == v.Def {
			continue
		}
		for i, o := range user.Operands {
			if o == op.Results[0] {
				m.operand(user, i, v)
			}
		}
	}
}

// insert puts a new operation before another, or first with nil.
func (m *mutant) insert(before, op *aicode.Op) *aicode.Value {
	at := 0
	if before != nil {
		at = before.Index
	}
	m.g.Body.Ops = slices.Insert(m.g.Body.Ops, at, op)
	for i, o := range m.g.Body.Ops {
		o.Index = i
	}
	for _, v := range op.Operands {
		v.Users = append(v.Users, op)
	}
	for i, v := range op.Results {
		v.Def, v.Index = op, i
	}
	return op.Results[0]
}

// floats gives op a constant of its own in place of its i-th operand, each number changed.
func (m *mutant) floats(op *aicode.Op, i int, f func(i int, x []float32) float32) {
	old := op.Operands[i]
	x := constant(old.Def.Const).floats()
	var b []byte
	for k := range x {
		switch v := f(k, x); old.Type.Elem {
		case aicode.F16:
			b = binary.LittleEndian.AppendUint16(b, precision.F32ToF16(v))
		case aicode.BF16:
			b = binary.LittleEndian.AppendUint16(b, precision.F32ToBF16(v))
		default:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	m.constant(op, i, b)
}

// ints is the same for whole numbers of 32 bits.
func (m *mutant) ints(op *aicode.Op, i int, f func(x []int64)) {
	x, _ := op.Operands[i].Def.Const.Ints()
	f(x)
	var b []byte
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	m.constant(op, i, b)
}

func (m *mutant) constant(op *aicode.Op, i int, b []byte) {
	typ := op.Operands[i].Type
	v := m.insert(nil, &aicode.Op{Name: "primitive.constant_v1", Const: &aicode.Const{Type: typ, Data: b}, Results: []*aicode.Value{{Type: typ}}, ID: -1})
	m.operand(op, i, v)
}

// replace makes op another operation of the same operands.
func (m *mutant) replace(op *aicode.Op, name string) { op.Name = name }

// via puts casts to f16 and back between op's result and its readers.
func (m *mutant) throughF16(op *aicode.Op) {
	v := op.Results[0]
	narrow := *v.Type
	narrow.Elem = aicode.F16
	users := slices.Clone(v.Users)
	next := m.g.Body.Ops[op.Index+1]
	a := m.insert(next, &aicode.Op{Name: "primitive.cast_v1", Operands: []*aicode.Value{v}, Results: []*aicode.Value{{Type: &narrow}}, ID: -1})
	b := m.insert(next, &aicode.Op{Name: "primitive.cast_v1", Operands: []*aicode.Value{a}, Results: []*aicode.Value{{Type: v.Type}}, ID: -1})
	for _, u := range users {
		for i, o := range u.Operands {
			if o == v {
				m.operand(u, i, b)
			}
		}
	}
}

func times(c float32) func(int, []float32) float32 {
	return func(i int, x []float32) float32 { return x[i] * c }
}

func plus(c float32) func(int, []float32) float32 {
	return func(i int, x []float32) float32 { return x[i] + c }
}

// fault is an export fault: what it does to the graph, and the tap at which the runs must part.
type fault struct {
	name, bundle, at string
	refused          bool // the engine must refuse the graph at the operation: shapes do not fit
	apply            func(m *mutant) *aicode.Op
}

const (
	dense = "tiny-dense-tied-fp16"
	moe   = "tiny-moe-int8hu-sym"
)

// exportFaults: each gives the operation that is wrong.
var exportFaults = []fault{
	{"norm-gain-w-instead-of-1+w", dense, "layer2.input_norm", false, func(m *mutant) *aicode.Op {
		op := m.def("layer2.input_norm")
		m.floats(op, 1, plus(-1))
		return op
	}},
	{"post-norm-gain-of-another-layer", dense, "layer5.post_attn_norm", false, func(m *mutant) *aicode.Op {
		op := m.def("layer5.post_attn_norm")
		m.operand(op, 1, m.def("layer6.post_attn_norm").Operands[1])
		return op
	}},
	{"norm-eps", dense, "layer0.input_norm", false, func(m *mutant) *aicode.Op {
		op := m.def("layer0.input_norm")
		g := m.p.Graph(op.Callee)
		for _, o := range g.Body.Ops {
			if o.Const != nil && o.Const.Type.Elem == aicode.F32 {
				o.Const = &aicode.Const{Type: o.Const.Type, Data: binary.LittleEndian.AppendUint32(nil, math.Float32bits(1e-3))}
			}
		}
		return op
	}},
	{"rope-theta", dense, "layer3.attn.q_rope", false, func(m *mutant) *aicode.Op {
		op := m.all("layer3.attn.q_rope", "mul")[0]
		m.floats(op, 1, func(i int, x []float32) float32 { return x[i] * float32(math.Pow(1.5, float64(i))) })
		return op
	}},
	{"rope-without-minus", dense, "layer7.attn.k_rope", false, func(m *mutant) *aicode.Op {
		op := m.all("layer7.attn.k_rope", "mul")[1]
		m.floats(op, 1, times(-1))
		return op
	}},
	{"rope-cos-and-sin-swapped", dense, "layer3.attn.k_rope", false, func(m *mutant) *aicode.Op {
		muls := m.all("layer3.attn.k_rope", "mul")
		a, b := muls[2], muls[3]
		cos, sin := a.Operands[1], b.Operands[1]
		m.operand(a, 1, sin)
		m.operand(b, 1, cos)
		return a
	}},
	{"conv-state-of-another-layer", dense, "layer1.gdn.conv_pre_silu", false, func(m *mutant) *aicode.Op {
		op := m.all("layer1.gdn.conv_pre_silu", "slice")[0]
		m.ints(op, 1, func(x []int64) { x[0] = 0 })
		m.ints(op, 2, func(x []int64) { x[0] = 1 })
		return op
	}},
	{"recurrent-state-of-another-layer", dense, "layer4.gdn.core_out", false, func(m *mutant) *aicode.Op {
		op := m.all("layer4.gdn.core_out", "slice")[0]
		m.ints(op, 1, func(x []int64) { x[0] = 0 })
		m.ints(op, 2, func(x []int64) { x[0] = 1 })
		return op
	}},
	{"recurrent-state-not-written", dense, "layer5.gdn.core_out", false, func(m *mutant) *aicode.Op {
		op := m.before("layer5.gdn.core_out", "slice_update")
		m.instead(op, op.Operands[0])
		return op
	}},
	{"wrong-axis", dense, "layer2.gdn.core_out", true, func(m *mutant) *aicode.Op {
		op := m.all("layer2.gdn.core_out", "reduce_sum")[0]
		m.ints(op, 1, func(x []int64) { x[0] = 3 })
		return op
	}},
	{"query-and-gate-swapped", dense, "layer3.attn.q_norm", false, func(m *mutant) *aicode.Op {
		op := m.before("layer3.attn.q_norm", "split")
		a, b := op.Results[0], op.Results[1]
		for _, u := range slices.Clone(a.Users) {
			m.operand(u, slices.Index(u.Operands, a), b)
		}
		for _, u := range slices.Clone(b.Users) {
			if (&flow{m.p, m.g}).kind(u) != "rms_norm" {
				m.operand(u, slices.Index(u.Operands, b), a)
			}
		}
		return op
	}},
	{"mlp-gate-and-up-swapped", dense, "layer6.mlp_out", false, func(m *mutant) *aicode.Op {
		silu := m.before("layer6.mlp_out", "silu")
		mul := m.before("layer6.mlp_out", "mul")
		gate, up := silu.Operands[0], mul.Operands[1]
		m.operand(silu, 0, up)
		m.operand(mul, 1, gate)
		m.later(silu, up)
		return silu
	}},
	{"precision-lost-before-the-recurrence", dense, "layer0.gdn.core_out", false, func(m *mutant) *aicode.Op {
		op := m.before("layer0.gdn.core_out", "exp")
		m.throughF16(op)
		return op
	}},
	{"silu-after-conv-missing", dense, "layer1.gdn.conv_out", false, func(m *mutant) *aicode.Op {
		op := m.def("layer1.gdn.conv_out")
		m.replace(op, "primitive.cast_v1")
		op.Regions = nil
		return op
	}},
	{"conv-taps-reversed", dense, "layer2.gdn.conv_pre_silu", false, func(m *mutant) *aicode.Op {
		op := m.before("layer2.gdn.conv_pre_silu", "conv2d")
		m.floats(op, 1, func(i int, x []float32) float32 { return x[i/4*4+3-i%4] })
		return op
	}},
	{"gate-of-z-sigmoid-instead-of-silu", dense, "layer4.gdn.gated_norm", false, func(m *mutant) *aicode.Op {
		op := m.before("layer4.gdn.gated_norm", "silu")
		m.replace(op, "sigmoid_v1")
		return op
	}},
	{"missing-dk^-0.5", dense, "layer5.gdn.core_out", false, func(m *mutant) *aicode.Op {
		for _, op := range m.all("layer5.gdn.core_out", "mul") {
			if c := op.Operands[1].Def; c != nil && c.Const != nil {
				m.floats(op, 1, func(int, []float32) float32 { return 1 })
				return op
			}
		}
		return nil
	}},
	{"decay-of-another-layer", dense, "layer2.gdn.g", false, func(m *mutant) *aicode.Op {
		op := m.def("layer2.gdn.g")
		m.operand(op, 1, m.def("layer1.gdn.g").Operands[1])
		return op
	}},
	{"beta-without-sigmoid", dense, "layer6.gdn.beta", false, func(m *mutant) *aicode.Op {
		op := m.def("layer6.gdn.beta")
		m.replace(op, "primitive.cast_v1")
		op.Regions = nil
		return op
	}},
	{"l2norm-eps", dense, "layer4.gdn.k_l2", false, func(m *mutant) *aicode.Op {
		op := m.before("layer4.gdn.k_l2", "add")
		m.floats(op, 1, func(int, []float32) float32 { return 0.01 })
		return op
	}},
	{"residual-of-the-norm", dense, "layer3.after_mixer", false, func(m *mutant) *aicode.Op {
		op := m.def("layer3.after_mixer")
		m.operand(op, slices.Index(op.Operands, m.value("layer2.out")), m.value("layer3.input_norm"))
		return op
	}},
	{"key-and-value-swapped", dense, "layer7.attn.out_pre_gate", false, func(m *mutant) *aicode.Op {
		op := m.def("layer7.attn.out_pre_gate")
		k, v := op.Operands[1], op.Operands[2]
		m.operand(op, 1, v)
		m.operand(op, 2, k)
		return op
	}},
	{"attention-gate-without-sigmoid", dense, "layer3.attn.out_gated", false, func(m *mutant) *aicode.Op {
		op := m.before("layer3.attn.out_gated", "sigmoid")
		m.replace(op, "primitive.cast_v1")
		op.Regions = nil
		return op
	}},
	{"head-before-the-final-norm", dense, "logits", false, func(m *mutant) *aicode.Op {
		op := m.def("logits")
		m.operand(op, 0, m.value("layer7.out"))
		return op
	}},
	{"router-not-renormalised", moe, "layer2.moe.topk_weights", false, func(m *mutant) *aicode.Op {
		op := m.def("layer2.moe.topk_weights")
		m.floatsOf(op, 1, 1)
		return op
	}},
	{"shared-gate-without-sigmoid", moe, "layer1.mlp_out", false, func(m *mutant) *aicode.Op {
		op := m.before("layer1.mlp_out", "sigmoid")
		m.replace(op, "primitive.cast_v1")
		op.Regions = nil
		return op
	}},
}

// later moves op behind the operation that makes v.
func (m *mutant) later(op *aicode.Op, v *aicode.Value) {
	ops := slices.Delete(m.g.Body.Ops, op.Index, op.Index+1)
	at := slices.Index(ops, v.Def) + 1
	m.g.Body.Ops = slices.Insert(ops, at, op)
	for i, o := range m.g.Body.Ops {
		o.Index = i
	}
}

// floatsOf gives op a constant in place of a computed operand of one element.
func (m *mutant) floatsOf(op *aicode.Op, i int, x float32) {
	typ := op.Operands[i].Type
	v := m.insert(nil, &aicode.Op{Name: "primitive.constant_v1", Results: []*aicode.Value{{Type: typ}}, ID: -1,
		Const: &aicode.Const{Type: typ, Splat: true, Data: binary.LittleEndian.AppendUint32(nil, math.Float32bits(x))}})
	m.operand(op, i, v)
}

// TestExportFaults: `diff CHECKPOINT BUNDLE@graph` names the layer and the tap of every export fault, and the wrong operation
// is among the few that Engine.Locate gives for it. At least 19 of 20 must be; today all are.
func TestExportFaults(t *testing.T) {
	t.Parallel()
	ids := []int32{15, 320, 99, 241, 383}
	var mu sync.Mutex
	var most int
	for _, f := range exportFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			n := checkFault(t, f, ids)
			mu.Lock()
			defer mu.Unlock()
			most = max(most, n)
		})
	}
	t.Cleanup(func() { t.Logf("%d faults; at most %d operations named for one", len(exportFaults), most) })
}

func checkFault(t *testing.T, f fault, ids []int32) int {
	t.Helper()
	models, err := filepath.Glob("../testdata/bundles/" + f.bundle + "/*.aimodel/main.mlirb")
	if err != nil || len(models) != 1 {
		t.Fatal(models, err)
	}
	p, closer, err := aicode.Open(models[0])
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	sound, err := New(p, engine.Spec{Model: f.bundle, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	wrong := f.apply(&mutant{t, p, p.Graph("main"), sound})
	if wrong == nil {
		t.Fatal("the fault found no operation")
	}
	e, err := New(p, engine.Spec{Model: f.bundle, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	spec := engine.Spec{Model: "../testdata/goldens/tiny-dense-tied", Contract: "coreai-fp16", Threads: 1}
	if f.bundle == moe {
		spec.Model, spec.Scheme = "../testdata/goldens/tiny-moe", "int8hu-sym"
	}
	ref, err := engine.Open(t.Context(), "cpu", spec)
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	r, err := oracle.DiffEngines(t.Context(), ref, e, engine.Prompt{IDs: ids}, oracle.RunOptions{Path: engine.Path{Chunk: 1}})
	if f.refused {
		if err == nil || !strings.Contains(err.Error(), wrong.Where()) {
			t.Errorf("error %v, want one that names %s", err, wrong.Where())
		}
		return 1
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.First.Bit == nil || r.First.Bit.Name != f.at {
		t.Fatalf("first difference at %+v, want %s", r.First.Bit, f.at)
	}
	makers := e.makers(f.at)
	if !slices.ContainsFunc(makers, func(l located) bool { return l.op == wrong || l.via == wrong }) {
		t.Errorf("%s is none of %v", wrong.Where(), e.Locate(f.at))
	}
	if len(makers) > 40 {
		t.Log(len(makers), e.Locate(f.at))
	}
	return len(makers)
}
