package model

import (
	"context"
	"encoding/binary"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"sibyl/bundle"
	"sibyl/engine"
	"sibyl/internal/goldens"
	"sibyl/internal/kernels"
	"sibyl/precision"
)

// pointPrompt is the fixtures' prompt: long enough that a state is written, read and written again.
var pointPrompt = []int32{3, 17, 101, 42, 9, 60, 77, 5, 130, 12, 88}

// runUnder gives every tap and state of a run of a tiny set under a contract, in two calls.
func runUnder(t testing.TB, set string, c *precision.Contract) collect {
	t.Helper()
	e := engineUnder(t, set, c)
	defer e.Close()
	if set == thirds {
		e.d.Embed = third(t, e.d.Embed)
	}
	return run1(t, e, engine.Prompt{IDs: pointPrompt}, engine.Path{Chunk: 7})
}

func engineUnder(t testing.TB, set string, c *precision.Contract) *Engine {
	t.Helper()
	if set == thirds {
		set = "tiny-asym"
	}
	ck, err := bundle.Open(filepath.Join(goldens.Root(), set))
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(ck, &Plan{Contract: c}, kernels.Exact, engine.Spec{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// thirds is tiny-asym with an embedding of a third: the stored one is bf16 and lies on fp16's grid.
const thirds = "tiny-asym with a third of the embedding"

func third(t testing.TB, m *kernels.Matrix) *kernels.Matrix {
	t.Helper()
	var b []byte
	for _, v := range m.Floats() {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v/3))
	}
	out, err := kernels.NewMatrix(kernels.F32, m.Rows, m.Cols, b, precision.F32)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// changed says whether any bit differs.
func changed(a, b collect) bool {
	for name, x := range a {
		if !slices.EqualFunc(x, b[name], func(u, v float32) bool { return math.Float32bits(u) == math.Float32bits(v) }) {
			return true
		}
	}
	return false
}

// under is a contract that a point is switched in, and the set that shows it.
type under struct {
	set, why string
	base     func(*precision.Contract)
}

// special are the points that hf-fp32 on tiny-asym does not reach; why says so.
var special = map[precision.Point]under{
	precision.Embed:          {set: thirds, why: "the stored embedding is on the grid already"},
	precision.ScoreScaled:    {"tiny-asym", "read where the scores are scaled, not the query", func(c *precision.Contract) { c.ScaleScores = true }},
	precision.RouterProb:     {set: "tiny-moe", why: "a dense model has no router"},
	precision.RouterWeight:   {set: "tiny-moe", why: "a dense model has no router"},
	precision.ExpertWeighted: {set: "tiny-moe", why: "a dense model has no experts"},
	precision.ExpertPartial:  {set: "tiny-moe", why: "a dense model has no experts"},
	precision.ExpertSum:      {set: "tiny-moe", why: "a dense model has no experts"},
	precision.SharedSigmoid:  {set: "tiny-moe", why: "a dense model has no experts"},
	precision.SharedOut:      {set: "tiny-moe", why: "a dense model has no experts"},
	precision.MoEOut:         {set: "tiny-moe", why: "a dense model has no experts"},
}

// TestEveryPointIsRead switches each rounding point alone, on in hf-fp32 and off in coreai-fp16 and coreai-bf16, and demands a changed
// bit: a point that nobody reads is a contract's line that does nothing.
func TestEveryPointIsRead(t *testing.T) {
	t.Parallel()
	for p := range precision.NumPoints {
		t.Run("on/"+p.String(), func(t *testing.T) {
			t.Parallel()
			u, ok := special[p]
			if !ok {
				u.set = "tiny-asym"
			}
			c := *precision.HFFP32
			if u.base != nil {
				u.base(&c)
			}
			before := runUnder(t, u.set, &c)
			c.At[p] = precision.F16
			if !changed(before, runUnder(t, u.set, &c)) {
				t.Errorf("hf-fp32 with %v in F16 has the same bits on %s (%s)", p, u.set, u.why)
			}
		})
	}
	for name, hidden := range hiddenPoints {
		for p, r := range lookup(t, name).At {
			p := precision.Point(p)
			if r == precision.F32 {
				continue
			}
			t.Run("off/"+name+"/"+p.String(), func(t *testing.T) {
				t.Parallel()
				set := "tiny-asym"
				if u, ok := special[p]; ok {
					set = u.set
				}
				c := *lookup(t, name)
				before := runUnder(t, set, &c)
				c.At[p] = precision.F32
				if got := changed(before, runUnder(t, set, &c)); got != (hidden[p] == "") {
					t.Errorf("%s without the rounding at %v: changed bits on %s %v, want %v (%s)", name, p, set, got, !got, hidden[p])
				}
			})
		}
	}
}

// hiddenPoints are the contracts whose roundings are switched off one by one, with the points that their other roundings
// hide: nothing may change there, or the reason has gone.
var hiddenPoints = map[string]map[precision.Point]string{
	"coreai-fp16": {precision.L2Eps: "1e-6 under the root is lost when the rsqrt is rounded"},
	"coreai-bf16": {
		precision.L2Sum:      "1e-6 is lost in the sum, so the rounding after it is the same one",
		precision.L2Eps:      "1e-6 under the root is lost when the rsqrt is rounded",
		precision.LogitsCast: "a bf16 number in fp16's normal range is an fp16 number",
	},
}

// switches are the contract's fields that are no points: each switched alone, where it can show.
var switches = map[string]struct {
	under
	change func(*precision.Contract)
}{
	"Weights":       {under{"tiny-asym", "A_log and the gated norm are stored in F32", nil}, func(c *precision.Contract) { c.Weights = precision.F16 }},
	"State":         {under{"tiny-asym", "", nil}, func(c *precision.Contract) { c.State = precision.F16 }},
	"Conv":          {under{"tiny-asym", "", nil}, func(c *precision.Contract) { c.Conv = precision.F16 }},
	"KV":            {under{"tiny-asym", "", nil}, func(c *precision.Contract) { c.KV = precision.F16 }},
	"StatePerCall":  {under{"tiny-asym", "a state that is rounded", func(c *precision.Contract) { c.State = precision.BF16 }}, func(c *precision.Contract) { c.StatePerCall = true }},
	"L2Eps":         {under{"tiny-asym", "", nil}, func(c *precision.Contract) { c.L2Eps = 17 * 0x1p-24 }},
	"Softplus3":     {under{"tiny-asym", "", nil}, func(c *precision.Contract) { c.Softplus3 = true }},
	"ScaleScores":   {under{"tiny-asym", "head_dim 48: the scale rounds", nil}, func(c *precision.Contract) { c.ScaleScores = true }},
	"QDivide":       {under{"tiny-asym", "dk 24: the scale rounds", nil}, func(c *precision.Contract) { c.QDivide = true }},
	"ScaleRound":    {under{"tiny-asym", "head_dim 48: the scale rounds", nil}, func(c *precision.Contract) { c.ScaleRound = precision.F16 }},
	"SoftmaxLate":   {under{"tiny-asym", "", nil}, func(c *precision.Contract) { c.SoftmaxLate = true }},
	"SoftmaxChosen": {under{"tiny-moe", "", nil}, func(c *precision.Contract) { c.SoftmaxChosen = true }},
	"ExpertsByID": {under{"tiny-moe", "an exact sum has no order: only a rounded running sum does", func(c *precision.Contract) {
		c.At[precision.ExpertPartial] = precision.F16
	}}, func(c *precision.Contract) { c.ExpertsByID = true }},
}

// notMath are the fields that no run reads; Arithmetic picks the kernels when an engine is opened, where its own goldens
// hold it.
var notMath = []string{"Name", "Meaning", "At", "Arithmetic"}

// TestEverySwitchIsRead is TestEveryPointIsRead for the contract's other fields, of which none may be forgotten here.
func TestEverySwitchIsRead(t *testing.T) {
	t.Parallel()
	for f := range reflect.TypeFor[precision.Contract]().Fields() {
		if slices.Contains(notMath, f.Name) {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			s, ok := switches[f.Name]
			if !ok {
				t.Fatalf("no case switches Contract.%s", f.Name)
			}
			c := *precision.HFFP32
			if s.base != nil {
				s.base(&c)
			}
			before := runUnder(t, s.set, &c)
			s.change(&c)
			if !changed(before, runUnder(t, s.set, &c)) {
				t.Errorf("hf-fp32 with %s switched has the same bits on %s (%s)", f.Name, s.set, s.why)
			}
		})
	}
}

// TestStatePerCall: a state that is rounded once a call is rounded where the caller's calls end, and nowhere else: not
// where the engine cuts a long call into passes, which depends on how many sequences share them.
func TestStatePerCall(t *testing.T) {
	t.Parallel()
	c := *precision.HFFP32
	c.State, c.StatePerCall = precision.BF16, true
	e := engineUnder(t, "tiny-asym", &c)
	defer e.Close()
	prompts := make([]engine.Prompt, callSeqs) // eight share a pass: 64 rows each; alone, a sequence has 512
	for i := range prompts {
		for j := range 200 {
			prompts[i].IDs = append(prompts[i].IDs, int32((31*i+7*j*j+3*j)%170))
		}
	}
	final := func(p engine.Prompt, path engine.Path, from *engine.State) *engine.State {
		t.Helper()
		st := new(engine.State)
		err := e.Score(context.Background(), []engine.Prompt{p}, engine.Want{From: math.MaxInt, Path: path, State: from, FinalState: st}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	states := func(s *engine.State) collect {
		out := collect{}
		for name, x := range s.Tensors {
			out[name] = x.Data
		}
		return out
	}
	alone := map[int]collect{}
	for _, chunk := range []int{0, 100, 150} {
		alone[chunk] = states(final(prompts[0], engine.Path{Chunk: chunk}, nil))
		got := bySeq{}
		if err := e.Score(context.Background(), prompts, engine.Want{From: math.MaxInt, Path: engine.Path{Chunk: chunk}, Taps: got}, nil); err != nil {
			t.Fatal(err)
		}
		if changed(alone[chunk], got[0]) {
			t.Errorf("chunk=%d: other states among %d prompts than alone", chunk, len(prompts))
		}
	}
	if !changed(alone[0], alone[100]) || !changed(alone[100], alone[150]) {
		t.Errorf("the state does not depend on where calls end, so this test sees nothing")
	}
	first := final(engine.Prompt{IDs: prompts[0].IDs[:150]}, engine.Path{}, nil)
	if changed(alone[150], states(final(engine.Prompt{IDs: prompts[0].IDs[150:]}, engine.Path{}, first))) {
		t.Errorf("chunk=150 is not a call of 150 tokens and one of 50")
	}
	for name, x := range alone[0] {
		if on := slices.Clone(x); name == "cache.layer0.recurrent_state" {
			precision.RoundBF16(on)
			if !slices.Equal(on, x) {
				t.Errorf("%s after the call is not on the bf16 grid", name)
			}
		}
	}
	long := prompts[0]
	for range 2 {
		long.IDs = append(slices.Clone(long.IDs), long.IDs...)
	}
	// 800 tokens take two passes even alone: a call of 600 must be one
	if changed(states(final(long, engine.Path{Chunk: 600}, nil)), states(final(engine.Prompt{IDs: long.IDs[600:]}, engine.Path{},
		final(engine.Prompt{IDs: long.IDs[:600]}, engine.Path{}, nil)))) {
		t.Errorf("chunk=600 is not a call of 600 tokens and one of 200")
	}
}

// bySeq keeps the states of every sequence.
type bySeq map[int]collect

func (b bySeq) Wants(name string) bool { return len(name) > 6 && name[:6] == "cache." }

func (b bySeq) Put(name string, seq, pos, rows int, x []float32) error {
	if b[seq] == nil {
		b[seq] = collect{}
	}
	return b[seq].Put(name, 0, pos, rows, x)
}
